/** Sends requests and follows redirects. Knows nothing of authentication, and does not interpret replies. */
import { createSecureContext, getCACertificates, type SecureContext } from 'node:tls';
import type { Dispatcher } from 'undici';
import type { Clock } from '../../clock.ts';
import type { RequestContext } from '../../request-context.ts';
import type { Logger } from '../../telemetry/log.ts';
import type { Metrics, RequestKind } from '../../telemetry/metrics.ts';
import { toUpstreamError, UpstreamError } from '../errors.ts';
import type { PullQuota } from '../limits/pull-quota.ts';
import { parseRateLimit } from '../limits/rate-limit.ts';
import { isSpecialHost, publicLookup } from './address-rule.ts';
import { type ConnectionSettings, Connections } from './connections.ts';
import { isRedirect, MAX_REDIRECTS, redirectTarget } from './redirects.ts';
import { firstValue } from './reply-headers.ts';

/** The whole time, not the inactivity: a body that trickles would keep us for as long as it likes. */
const DISCARD_TIMEOUT_MS = 1_000;

export interface TransportSettings extends ConnectionSettings {
  /** Base URL, without a slash at the end. */
  url: string;
  /** PEM. Trusted in addition to the authorities of the system. */
  ca?: string;
  /** PEM. */
  clientCertificate?: { cert: string; key: string };
  /** Whether redirects and token realms may lead to private or loopback addresses. */
  allowPrivateAddresses: boolean;
}

export interface TransportContext {
  metrics: Metrics;
  logger: Logger;
  clock: Clock;
  identity: Identity;
  /** Records what the registry says about its rate limit. */
  quota?: PullQuota;
}

/** How the mirror identifies itself to other servers. */
export interface Identity {
  /** `millpond/<version>`. */
  userAgent: string;
  /** The `Via` entry of this process. With it, the process recognizes a request that has come back to it. */
  via: string;
}

export interface TransportRequest {
  context: RequestContext;
  /** The redirect of a POST is not followed: its body contains credentials, which only this server may see. */
  method: 'GET' | 'HEAD' | 'POST';
  url: URL;
  headers: Record<string, string>;
  kind: RequestKind | 'token';
  body?: string;
}

export interface Reply {
  /** Where the reply came from, after all redirects. */
  url: URL;
  /** The proxy that forwarded the request. It may have answered itself. */
  proxyHost: string | undefined;
  status: number;
  headers: Dispatcher.ResponseData['headers'];
  /** Read it, or pass the reply to {@link discard} or {@link abandon}. Else its connection is lost. */
  body: Dispatcher.ResponseData['body'];
}

export class Transport {
  readonly #settings: TransportSettings;
  readonly #metrics: Metrics;
  readonly #logger: Logger;
  readonly #clock: Clock;
  readonly #identity: Identity;
  readonly #quota: PullQuota | undefined;
  readonly #origin: string;
  /** To the registry itself, which the configuration names. */
  readonly #own: Connections;
  /** To hosts that its redirects and challenges name. */
  readonly #foreign: Connections;
  readonly #allowSpecial: boolean;

  /** @throws {Error} the CA or the client certificate cannot be used */
  constructor(settings: TransportSettings, context: TransportContext) {
    const { url, clientCertificate } = settings;
    this.#settings = settings;
    this.#metrics = context.metrics;
    this.#logger = context.logger;
    this.#clock = context.clock;
    this.#identity = context.identity;
    this.#quota = context.quota;
    const { origin, hostname } = new URL(url);
    this.#origin = origin;
    this.#allowSpecial = settings.allowPrivateAddresses || isSpecialHost(hostname);
    const foreignTls = tlsOptions(settings);
    const ownTls = clientCertificate === undefined ? foreignTls : tlsOptions(settings, clientCertificate);
    this.#own = new Connections(settings, { tls: ownTls, proxyTls: foreignTls });
    this.#foreign = new Connections(settings, {
      tls: foreignTls,
      proxyTls: foreignTls,
      ...(this.#allowSpecial ? {} : { lookup: publicLookup }),
    });
  }

  /** Applies the address rule to the token server at `url`. @throws {UpstreamError} */
  assertPublic(url: URL): void {
    if (this.#allowSpecial || url.origin === this.#origin || !isSpecialHost(url.hostname)) return;
    const what = `its token server ${url.host} is not public; if this is intended, set allowPrivateAddresses`;
    throw new UpstreamError('invalid-response', this.#settings.name, what);
  }

  /**
   * Sends a request and follows redirects. Sends `Authorization` only to the origin that it is for.
   *
   * @throws {UpstreamError} no reply, or a redirect that must not be followed
   */
  async send(request: TransportRequest): Promise<Reply> {
    const { method, url, headers } = request;
    let at = url;
    let sent = headers;
    for (let hop = 0; hop <= MAX_REDIRECTS; hop += 1) {
      const reply = await this.#sendOnce({ ...request, url: at, headers: sent });
      if (!isRedirect(reply.status) || method === 'POST') return reply;
      await discard(reply);
      const target = redirectTarget(firstValue(reply.headers['location']), at, this.#allowSpecial);
      if (typeof target === 'string')
        throw new UpstreamError('invalid-response', this.#settings.name, target);
      at = target;
      // Never send it again after another origin: that server chose the rest of the way.
      if (at.origin !== url.origin) sent = withoutAuthorization(headers);
    }
    throw new UpstreamError(
      'invalid-response',
      this.#settings.name,
      `sent more than ${MAX_REDIRECTS} redirects`,
    );
  }

  async close(): Promise<void> {
    await Promise.all([this.#own.close(), this.#foreign.close()]);
  }

  async #sendOnce({ context, method, url, headers, kind, body }: TransportRequest): Promise<Reply> {
    const { name: upstream } = this.#settings;
    const startedAt = this.#clock.now();
    let code = '0';
    try {
      const reply = await (url.origin === this.#origin ? this.#own : this.#foreign).request(url, {
        method,
        headers: {
          'User-Agent': this.#identity.userAgent,
          'Accept-Encoding': 'identity',
          Via: this.#identity.via,
          ...headers,
        },
        signal: context.signal ?? null,
        body: body ?? null,
      });
      code = String(reply.statusCode);
      // Ignore the limits of CDNs and token servers, which are not those of the registry.
      if (kind !== 'token' && url.origin === this.#origin) this.#noteRateLimit(reply.headers);
      const proxyHost = url.protocol === 'http:' ? this.#settings.proxyFor?.(url)?.url.host : undefined;
      return { url, proxyHost, status: reply.statusCode, headers: reply.headers, body: reply.body };
    } catch (error) {
      throw toUpstreamError(error, upstream, url.host);
    } finally {
      this.#metrics.upstreamRequests.inc({ upstream, kind, method, code });
      const durationMs = Math.max(0, this.#clock.now() - startedAt);
      this.#metrics.upstreamRequestDuration.observe({ upstream, kind }, durationMs / 1000);
      // Log neither path nor query: they can contain a signature, with which anybody can fetch the blob.
      const line = { requestId: context.id, upstream, kind, method, host: url.host, code, durationMs };
      this.#logger.debug(line, 'upstream request');
    }
  }

  #noteRateLimit(headers: Reply['headers']): void {
    this.#quota?.record(parseRateLimit(headers, this.#clock.now()));
  }
}

/** Discards a reply. Reads a short body that is already here to its end, because that keeps the connection. */
export async function discard({ body }: Reply): Promise<void> {
  const signal = AbortSignal.timeout(DISCARD_TIMEOUT_MS);
  await body.dump({ limit: 64 * 1024, signal }).catch(() => undefined);
}

/** Closes the connection of a reply whose body may be long. Without the listener, its error would end the process. */
export function abandon({ body }: Reply): void {
  body.on('error', () => undefined).destroy();
}

/**
 * Node uses a `ca` instead of the usual authorities. We add it to them, because a registry with a company certificate
 * may redirect to a public CDN. Built once, because reading hundreds of authorities takes 13 ms per connection.
 *
 * @throws {Error} the CA or the client certificate cannot be used
 */
export function tlsOptions(
  { name, ca }: Pick<TransportSettings, 'name' | 'ca'>,
  clientCertificate?: TransportSettings['clientCertificate'],
): { secureContext?: SecureContext } {
  if (ca === undefined && clientCertificate === undefined) return {};
  const trust = ca === undefined ? {} : { ca: [...getCACertificates('default'), ca] };
  try {
    return { secureContext: createSecureContext({ ...trust, ...clientCertificate }) };
  } catch (error) {
    throw new Error(`${name}: its ca or clientCertificate cannot be used`, { cause: error });
  }
}

function withoutAuthorization({
  Authorization: _dropped,
  ...rest
}: Record<string, string>): Record<string, string> {
  return rest;
}
