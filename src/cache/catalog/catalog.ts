/**
 * Knows what is stored, what is in use, and in which order it was used.
 *
 * Eviction is behind this port: callers say what they use and hold, and never what is evicted.
 */
import type { Digest } from '../../oci/digest.ts';
import type { ContentOrigin, ContentRecord } from '../index/index-store.ts';

/** Asynchronous, so that several mirrors can share a catalog. The local one answers from memory. */
export interface Catalog {
  /** The record of `digest`; undefined if it is not stored. Does not count as a use. */
  get(digest: Digest): Promise<Readonly<ContentRecord> | undefined>;
  /** Notes a use of `digest` and of all that it lists, so that they are evicted later. */
  touch(digest: Digest): void;
  /**
   * Protects `digest`, stored or on its way, from eviction until the returned function is called. That is idempotent.
   */
  hold(digest: Digest): () => void;
  /** `digest` and all stored content below it. A manifest comes before what it lists. */
  closure(digest: Digest): Promise<Digest[]>;
  /** For each of `digests`, the manifests that list it. Looks at every manifest, so it is for rare cases only. */
  parentsOf(digests: Iterable<Digest>): Promise<Map<Digest, Digest[]>>;
  /** All stored manifests, the least recently used first. */
  manifests(): AsyncIterable<[Digest, Readonly<ContentRecord>]>;
  /** Records where those of `digests` that are stored came from. @throws {StorageError} */
  setOrigin(digests: Iterable<Digest>, origin: ContentOrigin): Promise<void>;
  /**
   * Removes content with its record, tags and permissions. A file that the disk fails to remove is reported, and left
   * for the next scrub.
   *
   * @returns bytes that were freed
   */
  remove(digests: readonly Digest[]): Promise<number>;
}
