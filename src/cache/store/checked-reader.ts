/**
 * Reads stored content and checks every block on the way: disks lose bits, and after a power cut a file may lack bytes
 * that never reached the disk.
 *
 * Invariant: a reader that gets all the bytes it asked for gets the right ones. A block is checked when its end is
 * reached. The last bytes of a range are released only after their block was checked.
 */
import type { Digest } from '../../oci/digest.ts';
import { BLOCK_BYTES, BlockSum, blockSum } from './block-sums.ts';
import type { ContentReader, StoredReader } from './content-store.ts';
import { ContentError } from './errors.ts';

const SCRATCH_BYTES = 64 * 1024;

interface Listener {
  /** All of it has been read from front to back, and is right. */
  whole: () => void;
  /** A block does not match its sum. */
  damaged: (error: ContentError) => Promise<void>;
  /** Called at least once. */
  closed: () => void;
}

export class CheckedReader implements ContentReader {
  readonly size: number;
  readonly file?: string;
  readonly #reader: ContentReader;
  readonly #digest: Digest;
  /** Absent: the content was checked just now, and is not checked again. */
  readonly #sums: Buffer | undefined;
  readonly #listener: Listener;
  #sum = new BlockSum();
  /** The start of the block that {@link #sum} is for, and the end of the bytes that it covers. */
  #block = 0;
  #summed = 0;
  /** No bytes were skipped so far. */
  #gapless = true;

  /** @param sums the block sums of this content. Without them it is known to be right, so a front server may send it */
  constructor(reader: StoredReader, digest: Digest, sums: string | undefined, listener: Listener) {
    this.size = reader.size;
    if (sums === undefined && reader.file !== undefined) this.file = reader.file;
    this.#reader = reader;
    this.#digest = digest;
    this.#sums = sums === undefined ? undefined : Buffer.from(sums, 'base64');
    this.#listener = listener;
  }

  async read(target: Buffer, position: number, end: number): Promise<number> {
    if (this.#sums === undefined) return this.#reader.read(target, position, end);
    if (position >= end) return 0;
    if (position !== this.#summed) await this.#begin(position, this.#sums);
    const length = await this.#reader.read(target, position, end);
    await this.#take(target.subarray(0, length), this.#sums);
    if (position + length === end) await this.#finishBlock(this.#sums);
    return length;
  }

  close(): Promise<void> {
    this.#listener.closed();
    return this.#reader.close();
  }

  /** Sums what lies between the start of the block and `position`. */
  async #begin(position: number, sums: Buffer): Promise<void> {
    this.#gapless = false;
    this.#block = position - (position % BLOCK_BYTES);
    this.#summed = this.#block;
    this.#sum = new BlockSum();
    await this.#skipTo(position, sums);
  }

  async #finishBlock(sums: Buffer): Promise<void> {
    if (this.#summed === this.#block || this.#summed === this.size) return; // checked already
    await this.#skipTo(Math.min(this.#block + BLOCK_BYTES, this.size), sums);
  }

  async #skipTo(position: number, sums: Buffer): Promise<void> {
    if (this.#summed === position) return;
    const scratch = Buffer.allocUnsafe(SCRATCH_BYTES);
    while (this.#summed < position) {
      await this.#take(scratch.subarray(0, await this.#reader.read(scratch, this.#summed, position)), sums);
    }
  }

  async #take(bytes: Buffer, sums: Buffer): Promise<void> {
    for (let at = 0; at < bytes.length; ) {
      const end = Math.min(this.#block + BLOCK_BYTES, this.size);
      const part = bytes.subarray(at, at + end - this.#summed);
      this.#sum.update(part);
      at += part.length;
      this.#summed += part.length;
      if (this.#summed < end) continue;
      const [expected, actual] = [blockSum(sums, this.#block), this.#sum.value()];
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
