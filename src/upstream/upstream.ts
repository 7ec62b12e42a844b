/** What the mirror can ask of a registry. Two stand behind it: one that asks, and one that is sealed. */
import type { Readable } from 'node:stream';
import type { Digest } from '../oci/digest.ts';
import type { ListQuery, Reference, Repository } from '../oci/reference.ts';
import type { RequestContext } from '../request-context.ts';

export interface ManifestHead {
  /** Absent where upstream does not say. */
  digest?: Digest;
  mediaType?: string;
  /** Bytes. */
  size?: number;
}

export interface FetchedManifest {
  bytes: Buffer;
  /** As upstream sent it, without parameters. */
  mediaType: string;
  /** Computed from the bytes. */
  digest: Digest;
}

export interface FetchedBlob {
  /** Position of the first byte of `body`: 0 if upstream ignored the range. */
  start: number;
  /** Whether upstream kept to the range that was asked for; else `body` is the whole blob. */
  ranged: boolean;
  /** Bytes of the whole blob; absent where upstream does not say. */
  size?: number;
  /** Not verified. Its errors are raw: see toUpstreamError. */
  body: Readable;
}

export interface FetchedTags {
  body: Buffer;
  next?: ListQuery;
}

export interface FetchedReferrers {
  body: Buffer;
  filtersApplied?: string;
  next?: ListQuery;
}

/** All methods throw {UpstreamError}, and end early when the signal of their context aborts. */
export interface Upstream {
  readonly name: string;
  headManifest(
    context: RequestContext,
    repository: Repository,
    reference: Reference,
    options?: { accept?: string },
  ): Promise<ManifestHead>;
  /** @param options.canWait something else can be served: then the pulls that are kept in reserve are not spent on it */
  fetchManifest(
    context: RequestContext,
    repository: Repository,
    reference: Reference,
    options?: { accept?: string; canWait?: boolean },
  ): Promise<FetchedManifest>;
  headBlob(context: RequestContext, repository: Repository, digest: Digest): Promise<{ size?: number }>;
  /** @param options.from,options.to begin here, end before there; upstream may ignore it */
  fetchBlob(
    context: RequestContext,
    repository: Repository,
    digest: Digest,
    options?: { from?: number; to?: number },
  ): Promise<FetchedBlob>;
  fetchTags(context: RequestContext, repository: Repository, query: ListQuery): Promise<FetchedTags>;
  /** @returns undefined if this upstream has no referrers API */
  fetchReferrers(
    context: RequestContext,
    repository: Repository,
    digest: Digest,
    query: ListQuery,
  ): Promise<FetchedReferrers | undefined>;
  /** Idempotent. */
  close(): Promise<void>;
}
