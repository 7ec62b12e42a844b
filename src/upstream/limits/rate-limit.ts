/** Reads what upstreams say about their rate limits. Pure. */
import type { IncomingHttpHeaders } from 'undici/types/header.js';

export interface RateLimit {
  /** Pulls per window. */
  limit?: number;
  /** Pulls left. */
  remaining?: number;
  /** The longest time until more pulls are left, in milliseconds. */
  windowMs?: number;
  /** Whom upstream counts our requests to: an address, or the user that logs in. */
  source?: string;
}

/**
 * Reads the rate limit headers of a reply.
 *
 * Docker Hub sends `ratelimit-limit: 100;w=21600` and `ratelimit-remaining: 76 ; w=3600`, and the same numbers without
 * a window in `x-ratelimit-*`, and whom it counts as `docker-ratelimit-source`. It sends nothing to paid plans. Other registries send `RateLimit` and `RateLimit-Policy`
 * (draft-ietf-httpapi-ratelimit-headers). Their syntax has changed: now `"default";r=76;t=30`, before that
 * `limit=100, remaining=76, reset=30`.
 *
 * @param now milliseconds since the epoch
 */
export function parseRateLimit(headers: IncomingHttpHeaders, now: number): RateLimit {
  const [limits, lefts, resets] = ['limit', 'remaining', 'reset'].map((name) =>
    [headers[`ratelimit-${name}`], headers[`x-ratelimit-${name}`]].map((header) => String(header ?? '')),
  ) as [string[], string[], string[]];
  const scarcest = scarcestItem(String(headers['ratelimit'] ?? ''));
  const policies = String(headers['ratelimit-policy'] ?? '').split(',');
  const policy = policies.find((one) => nameOf(one) === nameOf(scarcest)) ?? '';
  const limit = first(limits, leadingNumber) ?? parameter(scarcest, 'limit') ?? parameter(policy, 'q');
  const remaining =
    first(lefts, leadingNumber) ?? parameter(scarcest, 'r') ?? parameter(scarcest, 'remaining');
  const window = first([...lefts, ...limits, policy], (text) => parameter(text, 'w'));
  const reset = first(resets, leadingNumber) ?? parameter(scarcest, 't') ?? parameter(scarcest, 'reset');
  const windowMs = msUntil(reset, now) ?? (window === undefined ? undefined : window * 1000);
  const source = String(headers['docker-ratelimit-source'] ?? '').trim();
  return {
    ...(limit === undefined ? {} : { limit }),
    ...(remaining === undefined ? {} : { remaining }),
    ...(windowMs === undefined ? {} : { windowMs: Math.min(windowMs, LONGEST_WINDOW_MS) }),
    ...(source === '' ? {} : { source }),
  };
}

const LONGEST_WINDOW_MS = 24 * 3600 * 1000;
/** A larger reset is a time in seconds since the epoch. A smaller one is a number of seconds from now. */
const EARLIEST_RESET_TIME = 1_000_000_000;

function msUntil(reset: number | undefined, now: number): number | undefined {
  if (reset === undefined) return undefined;
  return reset < EARLIEST_RESET_TIME ? reset * 1000 : Math.max(0, reset * 1000 - now);
}

/** The limit with the fewest pulls left, of several in one `RateLimit` header. */
function scarcestItem(header: string): string {
  if (parameter(header, 'remaining') !== undefined) return header; // an older draft: one limit, which contains commas
  const left = (item: string) => parameter(item, 'r') ?? Number.POSITIVE_INFINITY;
  return header.split(',').reduce((scarcest, item) => (left(item) < left(scarcest) ? item : scarcest));
}

function nameOf(item: string): string | undefined {
  return item.split(';', 1)[0]?.trim();
}

function parameter(text: string, name: string): number | undefined {
  const match = new RegExp(`(?:^|[;,\\s])${name}\\s?=\\s?(\\d{1,12})(?![^;,\\s])`, 'i').exec(text);
  return match === null ? undefined : Number(match[1]);
}

function leadingNumber(text: string): number | undefined {
  const match = /^\s*(\d{1,12})\s*(?:[;,]|$)/.exec(text);
  return match === null ? undefined : Number(match[1]);
}

function first<T>(texts: readonly string[], read: (text: string) => T | undefined): T | undefined {
  return texts.map(read).find((value) => value !== undefined);
}

/** The meaning of a 429. */
export interface RateLimitRefusal {
  /** What the operator can do. Empty if nothing is known. */
  advice: string;
  /** How long to send no such requests if the reply has no `Retry-After`. */
  pauseMs: number;
}

/**
 * Distinguishes the two limits of Docker Hub: of pulls, and of requests of any kind from one address. A reply for the
 * second has no JSON, and credentials do not raise that limit.
 *
 * @param code the OCI error code of the reply
 * @param text the message of the reply
 */
export function explainRateLimit(code: string | undefined, text: string): RateLimitRefusal {
  if (/pull rate limit|increase-rate-limit/i.test(text)) {
    const advice =
      'the pull quota is used up: wait, or configure credentials of an account that is allowed more pulls';
    return { advice, pauseMs: 60_000 };
  }
  // Long enough for a burst to pass, and short enough for a client that retries.
  const pauseMs = 5_000;
  if (code !== undefined) return { advice: '', pauseMs };
  const advice =
    'too many requests in a short time, not the pull quota: wait; a longer tagTtl makes fewer requests';
  return { advice, pauseMs };
}

const LONGEST_RETRY_AFTER_MS = 24 * 3600 * 1000;

/** Reads `Retry-After`: seconds or a date (RFC 9110, section 10.2.3). @returns milliseconds from `now`, up to a day */
export function parseRetryAfter(header: string | string[] | undefined, now: number): number | undefined {
  const text = String(header ?? '').trim();
  const isDate = /^[A-Z][a-z]{2,8},? /.test(text); // because Date.parse also accepts -5 and 1.5
  const ms = /^\d{1,15}$/.test(text) ? Number(text) * 1000 : isDate ? Date.parse(text) - now : Number.NaN;
  return Number.isNaN(ms) ? undefined : Math.min(Math.max(ms, 0), LONGEST_RETRY_AFTER_MS);
}
