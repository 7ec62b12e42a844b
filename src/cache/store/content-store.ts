/**
 * Bytes by digest.
 *
 * Invariant: content is visible here only after its bytes were hashed and matched their digest.
 */
import type { Digest } from '../../oci/digest.ts';

/** Content that one reader holds open. It stays readable until closed, even if it is deleted meanwhile. */
export interface ContentReader {
  /** Bytes of the whole content. */
  readonly size: number;
  /**
   * Its file, below the store's own folder. Only present if all of it is known to be right, so that a front server may
   * send it.
   */
  readonly file?: string;
  /**
   * Reads into `target` from `position`, at most up to `end` (exclusive), and waits while nothing is there yet.
   * A reader that streams unverified bytes keeps the last ones before `end` back until the digest has matched.
   *
   * @returns the number of bytes read: at least 1 while `position < end`
   * @throws {ContentError} the bytes turned out wrong: the reply must not be completed
   */
  read(target: Buffer, position: number, end: number): Promise<number>;
  /** Idempotent. */
  close(): Promise<void>;
}

/** Content that is read out of the store. Nothing has checked it. */
export interface StoredReader extends ContentReader {
  /** Differs after the file was written to. */
  readonly version: string;
  /** Its file, below the store's own folder. */
  readonly file?: string;
}

export interface StoredContent {
  /** Bytes. */
  size: number;
  /** Bytes that it takes on the disk. */
  allocated: number;
  /** When it was stored; milliseconds since the epoch. */
  storedAt: number;
}

/** All methods throw {StorageError}. */
export interface ContentStore {
  open(digest: Digest): Promise<StoredReader | undefined>;
  stat(digest: Digest): Promise<StoredContent | undefined>;
  /** Moves the verified file at `path` into the store. Committing twice is not an error. */
  commit(digest: Digest, path: string): Promise<StoredContent>;
  /** Open readers go on reading. Deleting what is not there is not an error. */
  delete(digest: Digest): Promise<void>;
  list(): AsyncIterable<Digest>;
}
