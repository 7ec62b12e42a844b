/**
 * Sends a blob from its origin directly to one client, because the disk failed or is full.
 *
 * As with the disk, the last bytes are held back until the digest of the whole blob has matched.
 */
import { createHash, type Hash } from 'node:crypto';
import { releasableEnd } from '../../cache/ingest/following-reader.ts';
import { assertDigest, type FrontState } from '../../cache/ingest/hashed-front.ts';
import type { ContentReader } from '../../cache/store/content-store.ts';
import { ContentError } from '../../cache/store/errors.ts';
import { type Digest, digestAlgorithm } from '../../oci/digest.ts';
import type { BlobBytes } from './blob-origin.ts';

/** Reads in order only: each read must begin where the last one ended. */
export class Passthrough implements ContentReader {
  readonly size: number;
  readonly #digest: Digest;
  readonly #chunks: AsyncGenerator<Buffer, void, undefined>;
  readonly #hash: Hash;
  /** End of what has been hashed. */
  #front: number;
  /** Bytes that are hashed and not read yet: at most the held-back bytes and one chunk. */
  #pending: Buffer[] = [];
  #verified = false;
  readonly #abort: AbortController;
  readonly #onWrong: () => void;

  /**
   * @param bytes begin where `front` ends
   * @param abort stops them
   * @param onWrong called if they are not those of the digest
   */
  constructor(
    digest: Digest,
    size: number,
    bytes: BlobBytes,
    abort: AbortController,
    onWrong: () => void,
    front?: FrontState,
  ) {
    this.size = size;
    this.#digest = digest;
    this.#abort = abort;
    this.#onWrong = onWrong;
    this.#chunks = bytes.chunks();
    this.#hash = front?.hash ?? createHash(digestAlgorithm(digest));
    this.#front = front?.length ?? 0;
  }

  async read(target: Buffer, position: number, end: number): Promise<number> {
    if (position >= end) return 0;
    for (;;) {
      const limit = releasableEnd(position, end, this.#front, this.#verified);
      if (limit > position) return this.#take(target, limit - position);
      try {
        await this.#advance(position, end);
      } catch (error) {
        if (error instanceof ContentError) this.#onWrong();
        throw error;
      }
    }
  }

  async close(): Promise<void> {
    this.#abort.abort(new Error('the reader is closed'));
    await this.#chunks.return();
  }

  async #advance(position: number, end: number): Promise<void> {
    const { value: chunk } = await this.#chunks.next();
    if (chunk === undefined) return this.#verify();
    this.#hash.update(chunk);
    const first = Math.max(0, position - this.#front);
    const last = Math.min(chunk.length, end - this.#front);
    if (last > first) this.#pending.push(chunk.subarray(first, last));
    this.#front += chunk.length;
    if (this.#front > this.size)
      throw new ContentError('size-mismatch', this.#digest, this.size, this.#front);
  }

  #verify(): void {
    if (this.#front < this.size) throw new ContentError('truncated', this.#digest, this.size, this.#front);
    assertDigest(this.#hash, this.#digest);
    this.#verified = true;
  }

  #take(target: Buffer, most: number): number {
    let taken = 0;
    const wanted = Math.min(target.length, most);
    while (taken < wanted) {
      const chunk = this.#pending[0];
      if (chunk === undefined) break;
      const part = chunk.subarray(0, wanted - taken);
      target.set(part, taken);
      taken += part.length;
      if (part.length === chunk.length) this.#pending.shift();
      else this.#pending[0] = chunk.subarray(part.length);
    }
    return taken;
  }
}
