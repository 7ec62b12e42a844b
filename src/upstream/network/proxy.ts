/** Requests through a proxy: `http:` by absolute URL (RFC 9112, 3.2.2), `https:` in a tunnel (RFC 9110, 9.3.6). */
import { isIPv6, type Socket } from 'node:net';
import { Agent, buildConnector, type Dispatcher, Pool } from 'undici';
import { toUpstreamError, UpstreamError } from '../errors.ts';
import type { Proxy } from './proxy-rule.ts';

/** The options of undici, without the URL. */
export type SentRequest = Omit<Dispatcher.RequestOptions, 'origin' | 'path' | 'headers'> & {
  headers: Record<string, string>;
};

export interface ProxiedSettings {
  /** The upstream's name, for errors. */
  upstream: string;
  /** For all connections, also tunnels. */
  limits: Agent.Options;
  connectTimeoutMs: number;
  /** TLS with the target, inside the tunnel. */
  tls: buildConnector.BuildOptions;
  /** TLS with the proxy, if it is an `https:` one. */
  proxyTls: buildConnector.BuildOptions;
}

/**
 * The connections through one proxy. We do not use undici's ProxyAgent: it reads the credentials only once, waits five
 * minutes for a proxy that does not answer, and reports the status of a refusal only as text.
 */
export class ProxiedConnections {
  readonly #proxy: Proxy;
  readonly #settings: ProxiedSettings;
  /** To targets, whose sockets are tunnels. */
  readonly #tunnelled: Agent;
  /** To the proxy, for `http:` targets. */
  readonly #forwarded: Pool;
  /** To the proxy, to open tunnels. */
  readonly #opener: Pool;

  constructor(proxy: Proxy, settings: ProxiedSettings) {
    this.#proxy = proxy;
    this.#settings = settings;
    const { limits, connectTimeoutMs: timeout, tls, proxyTls } = settings;
    const connectToProxy = buildConnector({ ...proxyTls, allowH2: false, timeout });
    // Drop the server name. undici takes it from the Host header, so it is that of the target. The certificate of the
    // proxy does not contain it.
    const toProxy: buildConnector.connector = ({ servername: _target, ...options }, callback) =>
      connectToProxy(options, callback);
    this.#forwarded = new Pool(proxy.url.origin, { ...limits, connect: toProxy });
    this.#opener = new Pool(proxy.url.origin, { ...limits, headersTimeout: timeout, connect: toProxy });
    const secure = buildConnector({ ...tls, allowH2: false, timeout });
    this.#tunnelled = new Agent({
      ...limits,
      connect: (options, callback) => {
        this.tunnel(options).then(
          (httpSocket) => secure({ ...options, httpSocket }, callback),
          (error: unknown) => callback(error as Error, null),
        );
      },
    });
  }

  /** Like undici's `request`. @throws {UpstreamError} the proxy failed; else the error of undici */
  request(url: URL, options: SentRequest): Promise<Dispatcher.ResponseData> {
    return url.protocol === 'https:'
      ? this.#tunnelled.request({ ...options, origin: url.origin, path: url.pathname + url.search })
      : this.#forward(url, options);
  }

  async close(): Promise<void> {
    await Promise.all([this.#tunnelled.destroy(), this.#forwarded.destroy(), this.#opener.destroy()]);
  }

  async #forward(url: URL, { headers, ...options }: SentRequest): Promise<Dispatcher.ResponseData> {
    const authorization = await this.#authorization();
    const reply = await this.#forwarded
      .request({
        ...options,
        path: url.origin + url.pathname + url.search,
        headers: { ...headers, Host: url.host, ...authorization },
      })
      .catch((error: unknown) => this.#fail(error));
    if (reply.statusCode !== 407) return reply;
    reply.body.on('error', () => undefined).destroy();
    return this.#refuse(407, url.host);
  }

  /** Opens a tunnel, of which nothing has been read. The caller closes it. @throws {UpstreamError} the proxy failed */
  async tunnel({ hostname, port }: Pick<buildConnector.Options, 'hostname' | 'port'>): Promise<Socket> {
    const host = isIPv6(hostname) ? `[${hostname}]` : hostname;
    const target = `${host}:${port || '443'}`;
    const authorization = await this.#authorization();
    const { statusCode, socket } = await this.#opener
      .connect({ path: target, headers: { Host: target, ...authorization } })
      .catch((error: unknown) => this.#fail(error));
    if (statusCode >= 200 && statusCode < 300) return socket as Socket;
    socket.on('error', () => undefined).destroy();
    return this.#refuse(statusCode, target);
  }

  async #authorization(): Promise<Record<string, string>> {
    try {
      const value = await this.#proxy.authorization();
      return value === undefined ? {} : { 'Proxy-Authorization': value };
    } catch (error) {
      // The cause goes to the log only: clients must not learn where the secrets are.
      const what = `the password for the proxy ${this.#proxy.url.host} cannot be read; the log says why`;
      throw new UpstreamError('unavailable', this.#settings.upstream, what, { cause: error });
    }
  }

  #fail(error: unknown): never {
    throw toUpstreamError(error, this.#settings.upstream, `the proxy ${this.#proxy.url.host}`);
  }

  /** Throws an error without a status, because the registry did not answer. */
  #refuse(status: number, target: string): never {
    const hint = status === 407 ? '; check its user name and password' : '';
    const what = `the proxy ${this.#proxy.url.host} refused to connect to ${target}: it answered ${status}${hint}`;
    throw new UpstreamError('unavailable', this.#settings.upstream, what);
  }
}
