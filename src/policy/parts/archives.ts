/** Tells what a client could unpack as a layer. podman and Docker look at the content, and not at its media type. */

const COMPRESSED: readonly Buffer[] = ['1f8b', '425a68', 'fd377a585a00', '28b52ffd'].map((start) =>
  Buffer.from(start, 'hex'),
);
/** Of zstd: frames that are skipped may come before the content (RFC 8878, 3.1.2). */
const SKIPPED = Buffer.from('2a4d18', 'hex');
const BLOCK = 512;
/** Where a header has the sum of its bytes. The sum counts these eight as spaces (POSIX pax, "ustar Interchange Format"). */
const [SUM_FROM, SUM_TO] = [148, 156];

/** Whether it is a tar, or compressed with gzip, bzip2, xz or zstd. */
export function isArchive(content: Buffer): boolean {
  return isCompressed(content) || isTar(content);
}

function isCompressed(content: Buffer): boolean {
  const isSkipped = (content[0] ?? 0) >> 4 === 5 && content.subarray(1, 4).equals(SKIPPED);
  return isSkipped || COMPRESSED.some((start) => content.subarray(0, start.length).equals(start));
}

/** Goes by the sum: text may stand where the first file has its name, and old tars have no other mark. */
function isTar(content: Buffer): boolean {
  if (content.length < BLOCK) return false;
  const field = content.toString('latin1', SUM_FROM, SUM_TO).replace(/^[\0 ]+/, '');
  const stated = Number.parseInt(field, 8);
  const header = content.subarray(0, BLOCK);
  // Some old programs added the bytes with their signs, and clients accept that.
  return [header, new Int8Array(header)].some((bytes) => sumOf(bytes) === stated);
}

function sumOf(header: Iterable<number>): number {
  let [sum, at] = [0, 0];
  for (const byte of header) {
    sum += at >= SUM_FROM && at < SUM_TO ? 0x20 : byte;
    at += 1;
  }
  return sum;
}
