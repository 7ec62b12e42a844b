/** The port through which the mirror asks a registry. */
import type { Readable } from 'node:stream';
import type { Digest } from '../oci/digest.ts';
import type { ListQuery, Reference, Repository } from '../oci/reference.ts';
import type { RequestContext } from '../request-context.ts';

export interface ManifestHead {
  /** Absent if upstream does not say. */
  digest?: Digest;
  mediaType?: string;
  /** Bytes. */
  size?: number;
}

export interface FetchedManifest {
  bytes: Buffer;
  /** As upstream sent it, in lower case and without parameters. Empty if it sent none. */
  mediaType: string;
  /** Computed from the bytes. */
  digest: Digest;
}

export interface FetchedBlob {
  /** Position of the first byte of `body`. 0 if upstream ignored the range. */
  start: number;
  /** Whether `body` is the requested range. Else it is the whole blob. */
  ranged: boolean;
  /** Bytes of the whole blob. Absent if upstream does not say. */
  size?: number;
  /** Not verified. Its errors are those of the HTTP client: map them with toUpstreamError. */
  body: Readable;
  /** Where the bytes come from instead of the upstream. */
  source?: OtherSource;
}

/** A place of the fleet that has content of an upstream. `relay`: another node that asks upstream for this one. */
export interface OtherSource {
  readonly name: 'store' | 'node' | 'relay';
  /** Called if the bytes were not those of the digest: that is not upstream's fault. */
  rejected(): void;
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

/** Every method throws {UpstreamError}, and ends early when the signal of its context aborts. */
export interface Upstream {
  readonly name: string;
  headManifest(
    context: RequestContext,
    repository: Repository,
    reference: Reference,
    options?: { accept?: string },
  ): Promise<ManifestHead>;
  /** @param options.canWait do not spend a reserved pull: the mirror can serve a cached manifest instead */
  fetchManifest(
    context: RequestContext,
    repository: Repository,
    reference: Reference,
    options?: { accept?: string; canWait?: boolean },
  ): Promise<FetchedManifest>;
  headBlob(context: RequestContext, repository: Repository, digest: Digest): Promise<{ size?: number }>;
  /** @param options.from,options.to the first byte, and the byte after the last. Upstream may ignore the range. */
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
