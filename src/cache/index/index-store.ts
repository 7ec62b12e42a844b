/**
 * Records about content: what a tag means, what a repository holds, what lies in the content store.
 *
 * The content files are the truth: every record can be made again from them and from upstream.
 */
import type { Digest } from '../../oci/digest.ts';
import type { Repository, Tag } from '../../oci/reference.ts';

/** A repository of one upstream: permission is given to it. */
export interface RepositoryKey {
  /** The upstream's name, such as `docker.io`. */
  upstream: string;
  repository: Repository;
}

export interface TagKey extends RepositoryKey {
  tag: Tag;
  /** Manifest types that the client insists on, with commas between them. Empty: whatever upstream gives to everybody. */
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
  /** Bytes as the store keeps it: whole blocks of its file system. */
  allocated: number;
  /** When it was last asked for; milliseconds since the epoch. */
  usedAt: number;
  /** Present if this is a manifest. */
  mediaType?: string;
  /** What a manifest lists, each once. */
  children?: readonly Digest[];
  /** Absent: it was mirrored. */
  origin?: Exclude<ContentOrigin, 'mirrored'>;
}

/** How content came here: from an upstream, out of an archive, or by a client's push. */
export type ContentOrigin = 'mirrored' | 'imported' | 'pushed';

/**
 * A repository may serve this digest: a manifest of the repository that we held listed it, or upstream confirmed it.
 * Bytes are shared by digest, permission is not.
 */
export interface PermissionRecord {
  /** Bytes, as the listing manifest says; absent when only upstream confirmed it. */
  size?: number;
  /** This is a manifest of the repository, and what it lists has permissions of its own. */
  expanded?: true;
}

export type IndexChange =
  | { put: 'tag'; key: TagKey; value: TagRecord }
  | { put: 'permission'; key: RepositoryKey; digest: Digest; value: PermissionRecord }
  | { put: 'content'; digest: Digest; value: ContentRecord }
  | { put: 'sums'; digest: Digest; value: string }
  | { delete: 'tag'; key: TagKey }
  | { delete: 'permission'; key: RepositoryKey; digest: Digest }
  | { delete: 'content' | 'sums'; digest: Digest };

/**
 * Asynchronous, so that an index shared by several mirrors can stand behind it.
 *
 * All methods throw {StorageError}.
 */
export interface IndexStore {
  tag(key: TagKey): Promise<TagRecord | undefined>;
  permission(key: RepositoryKey, digest: Digest): Promise<PermissionRecord | undefined>;
  /** The checksums of a blob's blocks, as store/block-sums writes them. */
  sums(digest: Digest): Promise<string | undefined>;
  /** All of them, in batches. */
  contents(): AsyncIterable<[Digest, ContentRecord][]>;
  /** The tags of one repository, or all of them, in the order of their names; only those behind `after`. */
  tags(within?: RepositoryKey, after?: TagKey): AsyncIterable<[TagKey, TagRecord]>;
  /** The repositories that may serve `digest`. */
  permissions(digest: Digest): AsyncIterable<[RepositoryKey, PermissionRecord]>;
  /** All or nothing. */
  write(changes: readonly IndexChange[]): Promise<void>;
  /** Idempotent. */
  close(): Promise<void>;
}
