/**
 * The `Range` header: one range or none (RFC 9110, section 14). Pure.
 *
 * Not by the package `range-parser` (1.3.0 tried): it refuses a suffix that is longer than the content with 416, where
 * section 14.1.2 asks for all of it, and of `bytes=0-99,9000-` it gives one range where we send the whole.
 */

/** Byte positions; `end` is exclusive. */
export interface ByteRange {
  start: number;
  end: number;
}

const SINGLE_RANGE = /^bytes=[ \t]*(?:(\d{1,16})-(\d{0,16})|-(\d{1,16}))[ \t]*$/i;

/**
 * Finds which part of a blob of `size` bytes the header asks for.
 *
 * Several ranges give the whole blob: RFC 9110 allows it, and zstd:chunked clients accept it. Another unit gives the
 * whole blob, too. One range that makes no sense is unsatisfiable, as the conformance suite expects of `bytes=500-0`.
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
