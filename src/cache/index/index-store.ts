/**
 * Records about content: what a tag means, what a repository may serve, what is in the content store.
 *
 * The content files are the truth: every record can be made again from them and from upstream.
 */
import type { Digest } from '../../oci/digest.ts';
import type { Repository, Tag } from '../../oci/reference.ts';

/** A repository of one upstream. Permissions are given to it. */
export interface RepositoryKey {
  /** The upstream's name, such as `docker.io`. */
  upstream: string;
  repository: Repository;
}

export interface TagKey extends RepositoryKey {
  tag: Tag;
  /** The manifest types that the client accepts, separated by commas. Empty: what upstream sends by default. */
  accept: string;
}

export interface TagRecord {
  /** What the tag meant when upstream was last asked. After a HEAD its manifest may not be stored yet. */
  digest: Digest;
  mediaType: string;
  /** Bytes of the manifest. */
  size: number;
  /** When upstream last confirmed it; milliseconds since the epoch. */
  confirmedAt: number;
  /** Another node of the fleet has seen it, and nobody knows when upstream last confirmed it. `confirmedAt` is when it moved. */
  isUnconfirmed?: true;
}

export interface ContentRecord {
  /** Bytes. */
  size: number;
  /** Bytes on the disk: whole blocks of the file system. */
  allocated: number;
  /** When it was last used; milliseconds since the epoch. */
  usedAt: number;
  /** Present if this is a manifest. */
  mediaType?: string;
  /** The digests that a manifest lists, without duplicates. */
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
  /** The digest is a manifest of the repository, and what it lists has permissions too. */
  expanded?: true;
}

/** What a policy has found about a manifest of a repository: it lets it in. */
export interface FindingRecord {
  /** Of the policy as it was, with the files that it names. */
  policyHash: string;
  /** Up to when it holds; milliseconds since the epoch. Absent: for as long as the policy stays the same. */
  until?: number;
}

/** Whose finding about which manifest. */
export interface FindingKey extends RepositoryKey {
  digest: Digest;
  /** The name of the policy. */
  policy: string;
}

export type IndexChange =
  | { put: 'tag'; key: TagKey; value: TagRecord }
  | { put: 'permission'; key: RepositoryKey; digest: Digest; value: PermissionRecord }
  | { put: 'content'; digest: Digest; value: ContentRecord }
  | { put: 'sums'; digest: Digest; value: string }
  | { put: 'finding'; key: FindingKey; value: FindingRecord }
  /** An object of this name is in the fleet's object store; see {@link IndexStore.object} for `value`. */
  | { put: 'object'; name: string; value: string }
  | { delete: 'tag'; key: TagKey }
  | { delete: 'permission'; key: RepositoryKey; digest: Digest }
  | { delete: 'finding'; key: FindingKey }
  | { delete: 'object'; name: string }
  | { delete: 'content' | 'sums'; digest: Digest };

/**
 * Asynchronous, so that several mirrors can share an index.
 *
 * All methods throw {StorageError}.
 */
export interface IndexStore {
  tag(key: TagKey): Promise<TagRecord | undefined>;
  permission(key: RepositoryKey, digest: Digest): Promise<PermissionRecord | undefined>;
  finding(key: FindingKey): Promise<FindingRecord | undefined>;
  /** Whose findings there are about `digest`, in every repository. */
  findings(digest: Digest): AsyncIterable<FindingKey>;
  /**
   * What this node knows of an object of the fleet's object store. Undefined: not that it is there. Of content: the ETag of
   * the version that this node has uploaded, or read whole and found right; empty if it knows of none. Of a tag: the digest.
   */
  object(name: string): Promise<string | undefined>;
  /** The checksums of a blob's blocks, as store/block-sums writes them. */
  sums(digest: Digest): Promise<string | undefined>;
  /** All of them, in batches. */
  contents(): AsyncIterable<[Digest, ContentRecord][]>;
  /** The tags of one repository, or all of them, in the order of their names; only those behind `after`. */
  tags(within?: RepositoryKey, after?: TagKey): AsyncIterable<[TagKey, TagRecord]>;
  /** The repositories that may serve `digest`. */
  permissions(digest: Digest): AsyncIterable<[RepositoryKey, PermissionRecord]>;
  /** Writes all changes, or none. */
  write(changes: readonly IndexChange[]): Promise<void>;
  /** Idempotent. */
  close(): Promise<void>;
}
