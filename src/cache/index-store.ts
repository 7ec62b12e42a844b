/**
 * Records about content: what a tag means, what a repository holds, what kind of manifest a digest is.
 *
 * The content files are the truth; every record can be had again from them and from upstream.
 */
import type { Digest } from '../oci/digest.ts';
import type { Repository, Tag } from '../oci/reference.ts';

/** A repository of one upstream: the unit of permission. */
export interface RepositoryKey {
  /** The upstream's name, such as `docker.io`. */
  upstream: string;
  repository: Repository;
}

export interface TagKey extends RepositoryKey {
  tag: Tag;
  /** Manifest types that the client insists on, comma-separated; empty for what upstream gives to everybody. */
  accept: string;
}

export interface TagRecord {
  /** What upstream last said the tag means. After a mere HEAD its manifest need not be stored yet. */
  digest: Digest;
  mediaType: string;
  /** Bytes of the manifest. */
  size: number;
  /** When upstream last said so; milliseconds since the epoch. */
  confirmedAt: number;
}

export interface ContentRecord {
  /** Bytes. */
  size: number;
  /** Present if this is a manifest. */
  mediaType?: string;
}

/**
 * A repository may serve this digest: a manifest of the repository that we held listed it, or upstream confirmed it.
 */
export interface LinkRecord {
  /** Bytes, as the listing manifest says; absent when only upstream confirmed it. */
  size?: number;
}

export type IndexChange =
  | { put: 'tag'; key: TagKey; value: TagRecord }
  | { put: 'link'; key: RepositoryKey; digest: Digest; value: LinkRecord }
  | { put: 'content'; digest: Digest; value: ContentRecord }
  | { delete: 'tag'; key: TagKey }
  | { delete: 'content'; digest: Digest };

/**
 * Asynchronous, so that a shared remote index can stand behind it.
 *
 * All methods throw {StorageError}.
 */
export interface IndexStore {
  tag(key: TagKey): Promise<TagRecord | undefined>;
  link(key: RepositoryKey, digest: Digest): Promise<LinkRecord | undefined>;
  content(digest: Digest): Promise<ContentRecord | undefined>;
  contents(): AsyncIterable<[Digest, ContentRecord]>;
  /** All or nothing. */
  write(changes: readonly IndexChange[]): Promise<void>;
  /** Idempotent. */
  close(): Promise<void>;
}
