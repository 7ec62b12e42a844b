/** Reads content the way a reply does. */
import type { ContentReader } from '../../src/cache/store/content-store.ts';

/** All bytes from `start` to `end`, in pieces of at most `step`. */
export async function readRange(
  reader: ContentReader,
  start: number,
  end: number,
  step = 64 * 1024,
): Promise<Buffer> {
  const pieces: Buffer[] = [];
  let position = start;
  while (position < end) {
    const piece = Buffer.alloc(Math.min(step, end - position));
    const length = await reader.read(piece, position, end);
    pieces.push(piece.subarray(0, length));
    position += length;
  }
  return Buffer.concat(pieces);
}
