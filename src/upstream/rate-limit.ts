/** What upstreams say about their limits, in headers. Pure. */
import type { IncomingHttpHeaders } from 'undici/types/header.js';

export interface RateLimit {
  /** Pulls in a window. */
  limit?: number;
  /** Pulls left. */
  remaining?: number;
}

/** Docker Hub sends `100;w=21600` and `200 ; w=3600`; paid plans send nothing. */
export function parseRateLimit(headers: IncomingHttpHeaders): RateLimit {
  const limit = leadingNumber(headers['ratelimit-limit']);
  const remaining = leadingNumber(headers['ratelimit-remaining']);
  return { ...(limit === undefined ? {} : { limit }), ...(remaining === undefined ? {} : { remaining }) };
}

function leadingNumber(header: string | string[] | undefined): number | undefined {
  const match = /^\s*(\d{1,9})\s*(?:;|$)/.exec(String(header ?? ''));
  return match === null ? undefined : Number(match[1]);
}

const LONGEST_RETRY_AFTER_MS = 24 * 3600 * 1000;

/** `Retry-After` in milliseconds from `now`: seconds or a date (RFC 9110, section 10.2.3), a day at most. */
export function parseRetryAfter(header: string | string[] | undefined, now: number): number | undefined {
  const text = String(header ?? '').trim();
  const isDate = /^[A-Z][a-z]{2,8},? /.test(text); // Date.parse takes -5 and 1.5 for dates, too
  const ms = /^\d{1,15}$/.test(text) ? Number(text) * 1000 : isDate ? Date.parse(text) - now : Number.NaN;
  return Number.isNaN(ms) ? undefined : Math.min(Math.max(ms, 0), LONGEST_RETRY_AFTER_MS);
}
