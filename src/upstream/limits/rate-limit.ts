/** What upstreams say about their limits, in headers. Pure. */
import type { IncomingHttpHeaders } from 'undici/types/header.js';

export interface RateLimit {
  /** Pulls in a window. */
  limit?: number;
  /** Pulls left. */
  remaining?: number;
  /** After this many milliseconds there are surely more. */
  windowMs?: number;
}

/**
 * Docker Hub sends `ratelimit-limit: 100;w=21600` and `ratelimit-remaining: 76 ; w=3600`, and the same numbers bare in
 * `x-ratelimit-*`; paid plans send nothing. Others send `RateLimit` and `RateLimit-Policy` of the IETF's
 * draft-ietf-httpapi-ratelimit-headers, in which names and syntax have changed: `"default";r=76;t=30`, before that
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
  return {
    ...(limit === undefined ? {} : { limit }),
    ...(remaining === undefined ? {} : { remaining }),
    ...(windowMs === undefined ? {} : { windowMs: Math.min(windowMs, LONGEST_WINDOW_MS) }),
  };
}

const LONGEST_WINDOW_MS = 24 * 3600 * 1000;
/** A reset above this is a time, in seconds since the epoch, and no span of thirty years. */
const EARLIEST_RESET_TIME = 1_000_000_000;

function msUntil(reset: number | undefined, now: number): number | undefined {
  if (reset === undefined) return undefined;
  return reset < EARLIEST_RESET_TIME ? reset * 1000 : Math.max(0, reset * 1000 - now);
}

/** Of several limits in one `RateLimit` header, that with the fewest left. */
function scarcestItem(header: string): string {
  if (parameter(header, 'remaining') !== undefined) return header; // an older draft: one limit, with commas in it
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

/** What is meant by a 429. */
export interface Refusal {
  /** What to do about it; empty where nothing is known. */
  advice: string;
  /** How long to leave upstream alone if it does not say. */
  pauseMs: number;
}

/**
 * Tells the two limits of Docker Hub apart: that of pulls, and that of requests of any kind from one address, which has
 * no JSON and no regard for who is logged in.
 *
 * @param code the OCI error code, if there was one
 */
export function explainRefusal(code: string | undefined, text: string): Refusal {
  if (/pull rate limit|increase-rate-limit/i.test(text)) {
    const advice =
      'the pull quota is used up: it comes back with time, and an account that is allowed more can be given as credentials';
    return { advice, pauseMs: 60_000 };
  }
  // Long enough for a burst to pass, short enough for a client that tries again.
  const pauseMs = 5_000;
  if (code !== undefined) return { advice: '', pauseMs };
  const advice =
    'too many requests at a time, not the pull quota: it passes by itself, and a longer tagTtl makes fewer of them';
  return { advice, pauseMs };
}

const LONGEST_RETRY_AFTER_MS = 24 * 3600 * 1000;

/** `Retry-After` in milliseconds from `now`: seconds or a date (RFC 9110, section 10.2.3), a day at most. */
export function parseRetryAfter(header: string | string[] | undefined, now: number): number | undefined {
  const text = String(header ?? '').trim();
  const isDate = /^[A-Z][a-z]{2,8},? /.test(text); // Date.parse takes -5 and 1.5 for dates, too
  const ms = /^\d{1,15}$/.test(text) ? Number(text) * 1000 : isDate ? Date.parse(text) - now : Number.NaN;
  return Number.isNaN(ms) ? undefined : Math.min(Math.max(ms, 0), LONGEST_RETRY_AFTER_MS);
}
