/**
 * Reads stored content and checks every block on the way: files rot, and a power cut can leave one whose bytes never
 * reached the disk.
 *
 * Invariant: whoever gets all the bytes that he asked for gets right ones. A block is checked when its end is reached,
 * and the last bytes of a range are handed out only after the block that they lie in.
 */
import { createHash } from 'node:crypto';
import { type Digest, digestAlgorithm, digestFrom } from '../../oci/digest.ts';
import { BLOCK_BYTES, BlockSum, BlockSums, blockSum } from './block-sums.ts';
import type { ContentReader, StoredReader } from './content-store.ts';
import { ContentError } from './errors.ts';

const SCRATCH_BYTES = 64 * 1024;
const HASH_BUFFER_BYTES = 1024 * 1024;

/**
 * Hashes all of the content, and sums it up for {@link CheckedReader}.
 *
 * @param onRead told how many bytes were read, and awaited
 * @throws {ContentError} it is not what its digest says
 */
export async function sumUp(
  reader: ContentReader,
  digest: Digest,
  onRead?: (bytes: number) => Promise<void>,
): Promise<string> {
  const hash = createHash(digestAlgorithm(digest));
  const sums = new BlockSums();
  const buffer = Buffer.allocUnsafe(Math.min(HASH_BUFFER_BYTES, Math.max(1, reader.size)));
  for (let at = 0; at < reader.size; ) {
    const bytes = buffer.subarray(0, await reader.read(buffer, at, reader.size));
    hash.update(bytes);
    sums.update(bytes);
    at += bytes.length;
    await onRead?.(bytes.length);
  }
  const actual = digestFrom(hash, digestAlgorithm(digest));
  if (actual !== digest) throw new ContentError('digest-mismatch', digest, digest, actual);
  return sums.value();
}

interface Listener {
  /** All of it has been read from front to back, and is what it was. */
  whole: () => void;
  /** A block is not what it was. */
  damaged: (error: ContentError) => Promise<void>;
  /** Called at least once. */
  closed: () => void;
}

export class CheckedReader implements ContentReader {
  readonly size: number;
  readonly #reader: ContentReader;
  readonly #digest: Digest;
  readonly #sums: Buffer;
  readonly #listener: Listener;
  #sum = new BlockSum();
  /** The block that {@link #sum} has begun, and how far it has come. */
  #block = 0;
  #summed = 0;
  /** No block has been left out so far. */
  #gapless = true;

  /** @param sums the value of {@link BlockSums} for this content */
  constructor(reader: ContentReader, digest: Digest, sums: string, listener: Listener) {
    this.size = reader.size;
    this.#reader = reader;
    this.#digest = digest;
    this.#sums = Buffer.from(sums, 'base64');
    this.#listener = listener;
  }

  async read(target: Buffer, position: number, end: number): Promise<number> {
    if (position >= end) return 0;
    if (position !== this.#summed) await this.#begin(position);
    const length = await this.#reader.read(target, position, end);
    await this.#take(target.subarray(0, length));
    if (position + length === end) await this.#finishBlock();
    return length;
  }

  close(): Promise<void> {
    this.#listener.closed();
    return this.#reader.close();
  }

  /** Sums what lies between the start of the block and `position`. */
  async #begin(position: number): Promise<void> {
    this.#gapless = false;
    this.#block = position - (position % BLOCK_BYTES);
    this.#summed = this.#block;
    this.#sum = new BlockSum();
    await this.#skipTo(position);
  }

  async #finishBlock(): Promise<void> {
    if (this.#summed === this.#block || this.#summed === this.size) return; // checked already
    await this.#skipTo(Math.min(this.#block + BLOCK_BYTES, this.size));
  }

  async #skipTo(position: number): Promise<void> {
    if (this.#summed === position) return;
    const scratch = Buffer.allocUnsafe(SCRATCH_BYTES);
    while (this.#summed < position) {
      await this.#take(scratch.subarray(0, await this.#reader.read(scratch, this.#summed, position)));
    }
  }

  async #take(bytes: Buffer): Promise<void> {
    for (let at = 0; at < bytes.length; ) {
      const end = Math.min(this.#block + BLOCK_BYTES, this.size);
      const part = bytes.subarray(at, at + end - this.#summed);
      this.#sum.update(part);
      at += part.length;
      this.#summed += part.length;
      if (this.#summed < end) continue;
      const [expected, actual] = [blockSum(this.#sums, this.#block), this.#sum.value()];
      if (!actual.equals(expected)) {
        const [want, got] = [expected.toString('hex'), actual.toString('hex')];
        const error = new ContentError('damaged', this.#digest, want, got);
        await this.#listener.damaged(error);
        throw error;
      }
      this.#block = end;
      this.#sum = new BlockSum();
      if (end === this.size && this.#gapless) this.#listener.whole();
    }
  }
}

/** Reads what was checked just now, and keeps it from being evicted meanwhile. */
export class HeldReader implements ContentReader {
  readonly size: number;
  readonly file?: string;
  readonly #reader: ContentReader;
  readonly #release: () => void;

  constructor(reader: StoredReader, release: () => void) {
    this.size = reader.size;
    if (reader.file !== undefined) this.file = reader.file;
    this.#reader = reader;
    this.#release = release;
  }

  read(target: Buffer, position: number, end: number): Promise<number> {
    return this.#reader.read(target, position, end);
  }

  close(): Promise<void> {
    this.#release();
    return this.#reader.close();
  }
}
