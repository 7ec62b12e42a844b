/** Connections to any host, direct or through a proxy. */
import type { LookupFunction } from 'node:net';
import { Agent, type buildConnector, type Dispatcher } from 'undici';
import { ProxiedConnections, type SentRequest } from './proxy.ts';
import type { Proxy, ProxyRule } from './proxy-rule.ts';

export interface ConnectionSettings {
  /** The upstream's name, as in the configuration. */
  name: string;
  /** Absent: all connections are direct. */
  proxyFor?: ProxyRule;
  /** Connections per origin. Further requests wait for one. */
  maxConnections: number;
  connectTimeoutMs: number;
  headersTimeoutMs: number;
  /** The longest silence while a body arrives. Does not limit the whole time. */
  bodyTimeoutMs: number;
}

export class Connections {
  readonly #settings: ConnectionSettings;
  readonly #tls: buildConnector.BuildOptions;
  readonly #proxyTls: buildConnector.BuildOptions;
  readonly #limits: Agent.Options;
  readonly #direct: Agent;
  readonly #proxied = new Map<Proxy, ProxiedConnections>();

  /**
   * @param options.lookup resolves names for direct connections. A proxy resolves names itself.
   * @param options.proxyTls TLS with a proxy. It must not get the client certificate, which is for the target.
   */
  constructor(
    settings: ConnectionSettings,
    options: {
      tls: buildConnector.BuildOptions;
      proxyTls: buildConnector.BuildOptions;
      lookup?: LookupFunction;
    },
  ) {
    this.#settings = settings;
    this.#tls = options.tls;
    this.#proxyTls = options.proxyTls;
    this.#limits = {
      connections: settings.maxConnections,
      allowH2: false,
      headersTimeout: settings.headersTimeoutMs,
      bodyTimeout: settings.bodyTimeoutMs,
      maxHeaderSize: 32 * 1024,
    };
    const lookup = options.lookup === undefined ? {} : { lookup: options.lookup };
    const connect = { ...options.tls, ...lookup, timeout: settings.connectTimeoutMs };
    this.#direct = new Agent({ ...this.#limits, connect });
  }

  /** Like undici's `request`. @throws {UpstreamError} a proxy failed; else the error of undici */
  request(url: URL, options: SentRequest): Promise<Dispatcher.ResponseData> {
    const proxy = this.#settings.proxyFor?.(url);
    return proxy === undefined
      ? this.#direct.request({ ...options, origin: url.origin, path: url.pathname + url.search })
      : this.#through(proxy).request(url, options);
  }

  async close(): Promise<void> {
    await Promise.all([this.#direct.destroy(), ...[...this.#proxied.values()].map((one) => one.close())]);
  }

  #through(proxy: Proxy): ProxiedConnections {
    const known = this.#proxied.get(proxy);
    if (known !== undefined) return known;
    const { name: upstream, connectTimeoutMs } = this.#settings;
    const made = new ProxiedConnections(proxy, {
      upstream,
      connectTimeoutMs,
      limits: this.#limits,
      tls: this.#tls,
      proxyTls: this.#proxyTls,
    });
    this.#proxied.set(proxy, made);
    return made;
  }
}
