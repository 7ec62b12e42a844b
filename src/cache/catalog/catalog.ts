/**
 * What is held, who needs it now, and in which order it was used.
 *
 * Eviction stands behind this port: callers say what they use and what they hold, never what goes.
 */
import type { Digest } from '../../oci/digest.ts';
import type { ContentOrigin, ContentRecord } from '../index/index-store.ts';

/** Asynchronous, so that a catalog shared by several mirrors can stand behind it. The local one answers from memory. */
export interface Catalog {
  /** What is known of `digest` if it is here. Asking is not a use. */
  get(digest: Digest): Promise<Readonly<ContentRecord> | undefined>;
  /** Notes that it was asked for: that keeps it, and all that it lists. */
  touch(digest: Digest): void;
  /** Keeps `digest`, here or on its way, from being evicted until the function that it returns is called. Idempotent. */
  hold(digest: Digest): () => void;
  /** `digest` and all below it that is here. What lists others comes before them. */
  closure(digest: Digest): Promise<Digest[]>;
  /** The manifests that list one of `digests`, for each of them. Looks at every manifest: for rare cases only. */
  parentsOf(digests: Iterable<Digest>): Promise<Map<Digest, Digest[]>>;
  /** The manifests that are here, from the least recently used on. */
  manifests(): AsyncIterable<[Digest, Readonly<ContentRecord>]>;
  /** Notes where `digests` came from, if they are here. @throws {StorageError} */
  setOrigin(digests: Iterable<Digest>, origin: ContentOrigin): Promise<void>;
  /**
   * Removes content with everything that is known of it: tags that mean it, and who may serve it. What the disk refuses
   * to remove is reported, and left for the next scrub.
   *
   * @returns bytes that have become free
   */
  remove(digests: readonly Digest[]): Promise<number>;
}
