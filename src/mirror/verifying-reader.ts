/**
 * Reads stored content for the first time since the start and checks that it is still what its digest says.
 *
 * Files rot, and a power cut can leave one whose bytes never reached the disk. Hashing every read would double what a
 * hit costs (0.55 CPU seconds a GB on top of about 0.4), so a blob is checked once in the life of a process, when it is
 * first read from end to end.
 */
import { createHash, type Hash } from 'node:crypto';
import type { ContentReader } from '../cache/content-store.ts';
import { assertDigest, releasableEnd } from '../cache/ingest.ts';
import { type Digest, digestAlgorithm } from '../oci/digest.ts';

export class VerifyingReader implements ContentReader {
  readonly size: number;
  readonly #reader: ContentReader;
  readonly #digest: Digest;
  readonly #onVerdict: (damaged: Error | undefined) => Promise<void>;
  /** Undefined once the bytes were not read in their order: a range says nothing about the whole. */
  #hash: Hash | undefined;
  #hashed = 0;
  #verified = false;

  /** @param onVerdict told once, if the content is read from end to end */
  constructor(
    reader: ContentReader,
    digest: Digest,
    onVerdict: (damaged: Error | undefined) => Promise<void>,
  ) {
    this.size = reader.size;
    this.#reader = reader;
    this.#digest = digest;
    this.#onVerdict = onVerdict;
    this.#hash = createHash(digestAlgorithm(digest));
  }

  async read(target: Buffer, position: number, end: number): Promise<number> {
    if (position !== this.#hashed || end !== this.size) this.#hash = undefined;
    if (this.#hash === undefined || this.#verified) return this.#reader.read(target, position, end);
    const limit = releasableEnd(position, end, end, false);
    if (limit === position) {
      await this.#verifyRest(position);
      return this.#reader.read(target, position, end);
    }
    const length = await this.#reader.read(target, position, limit);
    this.#hash.update(target.subarray(0, length));
    this.#hashed += length;
    return length;
  }

  close(): Promise<void> {
    return this.#reader.close();
  }

  /** The last bytes are read twice: once to know that they may be sent. */
  async #verifyRest(position: number): Promise<void> {
    const rest = Buffer.allocUnsafe(this.size - position);
    for (let at = position; at < this.size; ) {
      const length = await this.#reader.read(rest, at, this.size);
      this.#hash?.update(rest.subarray(0, length));
      at += length;
    }
    if (this.#hash === undefined) return;
    try {
      assertDigest(this.#hash, this.#digest);
    } catch (error) {
      await this.#onVerdict(error instanceof Error ? error : new Error(String(error)));
      throw error;
    }
    this.#verified = true;
    await this.#onVerdict(undefined);
  }
}
