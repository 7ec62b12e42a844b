/** Reads the headers of replies. Pure. A header that cannot be read counts as absent. */
import type { IncomingHttpHeaders } from 'undici/types/header.js';

/** The value of a header that is meant to occur once: its first line. */
export function firstValue(header: string | string[] | undefined): string | undefined {
  return Array.isArray(header) ? header[0] : header;
}

/** The media type in lower case, without parameters. */
export function mediaTypeOf(headers: IncomingHttpHeaders): string | undefined {
  return firstValue(headers['content-type'])?.split(';', 1)[0]?.trim().toLowerCase();
}

/** Whether the body is encoded. If so, `Content-Length` is not the length of the content. */
export function isEncoded(headers: IncomingHttpHeaders): boolean {
  return !/^(identity)?$/i.test(String(headers['content-encoding'] ?? ''));
}

/** Bytes of the content. */
export function contentLength(headers: IncomingHttpHeaders): number | undefined {
  const text = isEncoded(headers) ? undefined : firstValue(headers['content-length']);
  return text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : undefined;
}

/**
 * `Content-Range` (RFC 9110, section 14.4).
 *
 * @returns `end` is exclusive; both ends are -1 for an unsatisfied range, which has only a size
 */
export function contentRange(
  headers: IncomingHttpHeaders,
): { start: number; end: number; size?: number } | undefined {
  const match = /^bytes (?:(\d{1,15})-(\d{1,15})|\*)\/(\d{1,15}|\*)$/.exec(
    firstValue(headers['content-range']) ?? '',
  );
  if (match === null) return undefined;
  const size = match[3] === '*' ? undefined : Number(match[3]);
  const [start, last] = [Number(match[1] ?? -1), Number(match[2] ?? -2)];
  return { start, end: last + 1, ...(size === undefined ? {} : { size }) };
}
