/** Reads a blob while it comes in, at the reader's own pace. */
import type { Digest } from '../../oci/digest.ts';
import type { ContentReader } from '../store/content-store.ts';
import { ContentError } from '../store/errors.ts';

/** What a reader needs of the ingest that it follows. */
interface Followed {
  readonly digest: Digest;
  readonly size: number | undefined;
  /** Bytes that are in the file and hashed. */
  readonly front: number;
  readonly verified: boolean;
  readonly failure: Error | undefined;
  copy(target: Buffer, position: number, end: number): Promise<number>;
  leave(reader: FollowingReader): Promise<void>;
}

/**
 * Bytes that are held back from every reader until the digest has matched. A shorter request gets nothing before that.
 */
const HOLD_BACK_BYTES = 64 * 1024;

/**
 * How far a client that reads `position` to `end` may be served when the front has `front` bytes. The last bytes are
 * held back until the whole blob is `verified`, so that a reply with wrong bytes is never complete.
 */
export function releasableEnd(position: number, end: number, front: number, verified: boolean): number {
  return verified ? end : Math.min(front, Math.max(position, end - HOLD_BACK_BYTES));
}

export class FollowingReader implements ContentReader {
  readonly size: number;
  readonly #ingest: Followed;
  readonly #onClose: () => void;
  #closed = false;
  #progress: PromiseWithResolvers<void> | undefined;

  /**
   * @param size bytes of the blob that this client expects. Every read fails when the blob has another size
   * @param onClose called once
   */
  constructor(ingest: Followed, size: number, onClose: () => void) {
    this.size = size;
    this.#ingest = ingest;
    this.#onClose = onClose;
  }

  /**
   * @throws {ContentError} the blob has another size than this client was told
   * @throws what the ingest was aborted with, or {StorageError}
   */
  async read(target: Buffer, position: number, end: number): Promise<number> {
    for (;;) {
      if (this.#closed) throw new Error('the reader is closed');
      const { size, front, verified, failure } = this.#ingest;
      if (size !== undefined && size !== this.size)
        throw new ContentError('size-mismatch', this.#ingest.digest, this.size, size);
      const limit = releasableEnd(position, end, front, verified);
      if (limit > position || position >= end) return this.#ingest.copy(target, position, limit);
      if (failure !== undefined) throw failure;
      this.#progress = Promise.withResolvers();
      await this.#progress.promise;
    }
  }

  /** Makes a waiting read look again, because the ingest has made progress or has ended. */
  wake(): void {
    this.#progress?.resolve();
    this.#progress = undefined;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.wake();
    this.#onClose();
    await this.#ingest.leave(this);
  }
}
