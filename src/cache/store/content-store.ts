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
  /** Where it lies, below the store's own folder, if it may be sent from there as it is: all of it is known to be right. */
  readonly file?: string;
  /**
   * Reads into `target` from `position`, at most up to `end` (exclusive), and waits while nothing is there yet.
   * Readers that stream unverified bytes keep the last ones before `end` back until the digest has matched.
   *
   * @returns the number of bytes read: at least 1 while `position < end`
   * @throws {ContentError} the bytes turned out wrong: the reply must not be completed
   */
  read(target: Buffer, position: number, end: number): Promise<number>;
  /** Idempotent. */
  close(): Promise<void>;
}

/** Content that is read out of the store. */
export interface StoredReader extends ContentReader {
  /** Another one when somebody has written to it since. */
  readonly version: string;
  /** Where it lies, below the store's own folder. */
  readonly file?: string;
}

export interface StoredContent {
  /** Bytes. */
  size: number;
  /** Bytes that it takes in the store. */
  allocated: number;
  /** When it was stored; milliseconds since the epoch. */
  storedAt: number;
}

/** All methods throw {StorageError}. */
export interface ContentStore {
  open(digest: Digest): Promise<StoredReader | undefined>;
  stat(digest: Digest): Promise<StoredContent | undefined>;
  /** Takes over the verified file at `path`, which is gone from there afterwards. Committing twice is no error. */
  commit(digest: Digest, path: string): Promise<StoredContent>;
  /** Readers that are open go on reading. Deleting what is not there is no error. */
  delete(digest: Digest): Promise<void>;
  list(): AsyncIterable<Digest>;
}
