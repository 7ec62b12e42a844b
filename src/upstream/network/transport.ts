/** One request and its reply, redirects followed; no authentication, no meaning. */
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

/** Real time, not the body's inactivity: a body that trickles would keep us as long as it likes. */
const DISCARD_TIMEOUT_MS = 1_000;

export interface TransportSettings extends ConnectionSettings {
  /** Base URL, without a slash at the end. */
  url: string;
  /** PEM; trusted besides the system's authorities. */
  ca?: string;
  /** PEM. */
  clientCertificate?: { cert: string; key: string };
  /** Redirects and token realms may lead to private or loopback addresses. */
  allowPrivateAddresses: boolean;
}

export interface TransportContext {
  metrics: Metrics;
  logger: Logger;
  clock: Clock;
  identity: Identity;
  /** Is told what the registry says of its limit. */
  quota?: PullQuota;
}

/** Who we are to others. */
export interface Identity {
  /** `millpond/<version>`. */
  userAgent: string;
  /** The `Via` entry of this very process, by which it knows a request that has come back to it. */
  via: string;
}

export interface TransportRequest {
  context: RequestContext;
  /** A POST is not redirected: what it carries is for this one server. */
  method: 'GET' | 'HEAD' | 'POST';
  url: URL;
  headers: Record<string, string>;
  kind: RequestKind | 'token';
  body?: string;
}

export interface Reply {
  /** Where the reply came from, after redirects. */
  url: URL;
  /** The proxy that forwarded the request, and may have answered it itself. */
  proxyHost: string | undefined;
  status: number;
  headers: Dispatcher.ResponseData['headers'];
  /** Must be read, dumped or destroyed, or its connection is lost. */
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
  /** For the registry itself, which the configuration names. */
  readonly #own: Connections;
  /** For where its redirects and challenges lead. */
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

  /** The token server at `url` must obey the address rule, too. @throws {UpstreamError} */
  assertPublic(url: URL): void {
    if (this.#allowSpecial || url.origin === this.#origin || !isSpecialHost(url.hostname)) return;
    const what = `its token server ${url.host} is not public; if that is meant, set allowPrivateAddresses`;
    throw new UpstreamError('invalid-response', this.#settings.name, what);
  }

  /**
   * Sends a request and follows redirects. `Authorization` stays with the origin it was meant for.
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
      // Once dropped it stays so: who led us away has no say in where it goes.
      if (at.origin !== url.origin) sent = withoutAuthorization(headers);
    }
    throw new UpstreamError('invalid-response', this.#settings.name, `more than ${MAX_REDIRECTS} redirects`);
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
      // CDNs and token servers have limits of their own.
      if (kind !== 'token' && url.origin === this.#origin) this.#noteRateLimit(reply.headers);
      const proxyHost = url.protocol === 'http:' ? this.#settings.proxyFor?.(url)?.url.host : undefined;
      return { url, proxyHost, status: reply.statusCode, headers: reply.headers, body: reply.body };
    } catch (error) {
      throw toUpstreamError(error, upstream, url.host);
    } finally {
      this.#metrics.upstreamRequests.inc({ upstream, kind, method, code });
      const durationMs = Math.max(0, this.#clock.now() - startedAt);
      this.#metrics.upstreamRequestDuration.observe({ upstream, kind }, durationMs / 1000);
      // The path and the query may hold a signature that opens the blob to anybody.
      const line = { requestId: context.id, upstream, kind, method, host: url.host, code, durationMs };
      this.#logger.debug(line, 'upstream request');
    }
  }

  #noteRateLimit(headers: Reply['headers']): void {
    const rateLimit = parseRateLimit(headers, this.#clock.now());
    this.#quota?.note(rateLimit);
    const { limit, remaining } = rateLimit;
    const labels = { upstream: this.#settings.name };
    if (limit !== undefined) this.#metrics.upstreamRateLimit.set(labels, limit);
    if (remaining !== undefined) this.#metrics.upstreamRateLimitRemaining.set(labels, remaining);
  }
}

/** Discards a reply. Reads a short body that is already here to its end, because that keeps the connection. */
export async function discard({ body }: Reply): Promise<void> {
  const signal = AbortSignal.timeout(DISCARD_TIMEOUT_MS);
  await body.dump({ limit: 64 * 1024, signal }).catch(() => undefined);
}

/** Closes the connection of a reply whose body may be long. Without the listener, the error of that would end the process. */
export function abandon({ body }: Reply): void {
  body.on('error', () => undefined).destroy();
}

/**
 * Node takes a `ca` instead of the usual authorities; we mean besides: a registry with a certificate of the
 * company's may lead to a public CDN. Built once, for reading hundreds of authorities takes 13 ms a connection.
 */
function tlsOptions(
  { name, ca }: TransportSettings,
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
