/** The front of a blob: its bytes from the first one on, as far as they have been hashed. */
import { createHash, type Hash } from 'node:crypto';
import { type Digest, digestAlgorithm, digestFrom } from '../../oci/digest.ts';
import { BlockSums } from '../store/block-sums.ts';
import { ContentError } from '../store/errors.ts';

/** The state of a front, for a reader that gets the rest elsewhere. */
export interface FrontState {
  /** Bytes. */
  length: number;
  /** The hash of the front, which can go on. */
  hash: Hash;
}

export class HashedFront {
  readonly #digest: Digest;
  readonly #hash: Hash;
  readonly #sums = new BlockSums();
  #length = 0;

  constructor(digest: Digest) {
    this.#digest = digest;
    this.#hash = createHash(digestAlgorithm(digest));
  }

  /** Bytes. */
  get length(): number {
    return this.#length;
  }

  /** Adds the bytes that follow. */
  add(bytes: Buffer): void {
    this.#hash.update(bytes);
    this.#sums.update(bytes);
    this.#length += bytes.length;
  }

  /** Whether the front is the whole blob. */
  get isWhole(): boolean {
    return digestFrom(this.#hash.copy(), digestAlgorithm(this.#digest)) === this.#digest;
  }

  /** @throws {ContentError} the front is not the blob that its digest names */
  assertWhole(): void {
    assertDigest(this.#hash.copy(), this.#digest);
  }

  /** A copy, which does not change any more. */
  state(): FrontState {
    return { length: this.#length, hash: this.#hash.copy() };
  }

  /** The {@link BlockSums} of the front. Call it once, at the end. */
  sums(): string {
    return this.#sums.value();
  }
}

/** Ends `hash`. @throws {ContentError} its value is not `digest` */
export function assertDigest(hash: Hash, digest: Digest): void {
  const actual = digestFrom(hash, digestAlgorithm(digest));
  if (actual !== digest) throw new ContentError('digest-mismatch', digest, digest, actual);
}
