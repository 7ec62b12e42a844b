/** The `Range` header: one range or none (RFC 9110, section 14). Pure. */

/** Byte positions; `end` is exclusive. */
export interface ByteRange {
  start: number;
  end: number;
}

const SINGLE_RANGE = /^bytes=[ \t]*(?:(\d{1,16})-(\d{0,16})|-(\d{1,16}))[ \t]*$/i;

/**
 * What of a blob of `size` bytes the header asks for.
 *
 * Several ranges give the whole blob: RFC 9110 allows it and zstd:chunked clients take it. So does another unit. What
 * begins like one range and makes no sense is unsatisfiable, as the conformance suite expects of `bytes=500-0`.
 */
export function parseRange(header: string | undefined, size: number): ByteRange | 'whole' | 'unsatisfiable' {
  if (header === undefined || !/^bytes=/i.test(header) || header.includes(',')) return 'whole';
  const match = SINGLE_RANGE.exec(header);
  if (match === null) return 'unsatisfiable';
  const [, first, last, suffix] = match;
  if (suffix !== undefined) {
    const length = Math.min(Number(suffix), size);
    return length === 0 ? 'unsatisfiable' : { start: size - length, end: size };
  }
  const start = Number(first);
  const end = last === undefined || last === '' ? size : Math.min(Number(last) + 1, size);
  return start < end ? { start, end } : 'unsatisfiable';
}

export function formatContentRange(range: ByteRange, size: number): string {
  return `bytes ${range.start}-${range.end - 1}/${size}`;
}
