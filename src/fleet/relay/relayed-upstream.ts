/**
 * An upstream that another node is asked for when it cannot be reached from here. What upstream answers counts, whatever it
 * is: only if it cannot be reached at all is anybody else asked. A sealed node asks nobody.
 */
import type { Digest } from '../../oci/digest.ts';
import { isDigest, type ListQuery, type Reference, type Repository } from '../../oci/reference.ts';
import type { RequestContext } from '../../request-context.ts';
import { isUnreachable, UpstreamError } from '../../upstream/errors.ts';
import type {
  FetchedBlob,
  FetchedManifest,
  FetchedReferrers,
  FetchedTags,
  ManifestHead,
  Upstream,
} from '../../upstream/upstream.ts';
import type { RelayRequest } from './relay-messages.ts';
import type { Relayed, Relays } from './relays.ts';

export class RelayedUpstream implements Upstream {
  readonly name: string;
  readonly #upstream: Upstream;
  readonly #relays: Pick<Relays, 'ask'>;

  constructor(upstream: Upstream, relays: Pick<Relays, 'ask'>) {
    this.name = upstream.name;
    this.#upstream = upstream;
    this.#relays = relays;
  }

  headManifest(
    context: RequestContext,
    repository: Repository,
    reference: Reference,
    options: { accept?: string } = {},
  ): Promise<ManifestHead> {
    return this.#ask(
      context,
      () => this.#upstream.headManifest(context, repository, reference, options),
      { ask: 'headManifest', requestId: context.id, repository, reference, ...options },
      (relayed) => (relayed.kind === 'head' ? headOf(relayed) : undefined),
    );
  }

  fetchManifest(
    context: RequestContext,
    repository: Repository,
    reference: Reference,
    options: { accept?: string; canWait?: boolean } = {},
  ): Promise<FetchedManifest> {
    return this.#ask(
      context,
      () => this.#upstream.fetchManifest(context, repository, reference, options),
      { ask: 'fetchManifest', requestId: context.id, repository, reference, ...options },
      (relayed) => {
        if (relayed.kind !== 'whole' || (isDigest(reference) && relayed.digest !== reference))
          return undefined;
        const { bytes, digest, mediaType = '' } = relayed;
        return { bytes, digest, mediaType };
      },
    );
  }

  headBlob(context: RequestContext, repository: Repository, digest: Digest): Promise<{ size?: number }> {
    return this.#ask(
      context,
      () => this.#upstream.headBlob(context, repository, digest),
      { ask: 'headBlob', requestId: context.id, repository, digest },
      (relayed) => (relayed.kind === 'head' ? headOf(relayed) : undefined),
    );
  }

  fetchBlob(
    context: RequestContext,
    repository: Repository,
    digest: Digest,
    options: { from?: number; to?: number } = {},
  ): Promise<FetchedBlob> {
    return this.#ask(
      context,
      () => this.#upstream.fetchBlob(context, repository, digest, options),
      { ask: 'fetchBlob', requestId: context.id, repository, digest, ...options },
      (relayed) => {
        if (relayed.kind !== 'blob') return undefined;
        const { start, ranged, size, body, rejected } = relayed;
        const source = { name: 'relay', rejected } as const;
        return { start, ranged, body, source, ...(size === undefined ? {} : { size }) };
      },
    );
  }

  fetchTags(context: RequestContext, repository: Repository, query: ListQuery): Promise<FetchedTags> {
    return this.#ask(
      context,
      () => this.#upstream.fetchTags(context, repository, query),
      { ask: 'fetchTags', requestId: context.id, repository, query },
      (relayed) => (relayed.kind === 'whole' ? listOf(relayed) : undefined),
    );
  }

  fetchReferrers(
    context: RequestContext,
    repository: Repository,
    digest: Digest,
    query: ListQuery,
  ): Promise<FetchedReferrers | undefined> {
    return this.#ask<FetchedReferrers | 'unsupported' | undefined>(
      context,
      () => this.#upstream.fetchReferrers(context, repository, digest, query),
      { ask: 'fetchReferrers', requestId: context.id, repository, digest, query },
      (relayed) =>
        relayed.kind === 'whole'
          ? listOf(relayed)
          : relayed.kind === 'unsupported'
            ? relayed.kind
            : undefined,
    ).then((found) => (found === 'unsupported' ? undefined : found));
  }

  close(): Promise<void> {
    return this.#upstream.close();
  }

  /** @param read reads the answer of another node; undefined: it is none to what was asked */
  async #ask<T>(
    { signal }: RequestContext,
    ask: () => Promise<T>,
    request: RelayRequest,
    read: (relayed: Relayed) => T | undefined,
  ): Promise<T> {
    try {
      return await ask();
    } catch (error) {
      if (!isUnreachable(error) || signal?.aborted === true) throw error;
      const relayed = await this.#relays.ask(this.name, request, signal);
      if (relayed?.kind === 'refused') {
        const { code, message, status, retryAfterMs, upstreamCode } = relayed;
        throw new UpstreamError(code, this.name, message, {
          ...(status === undefined ? {} : { status }),
          ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
          ...(upstreamCode === undefined ? {} : { upstreamCode }),
        });
      }
      const answer = relayed && read(relayed);
      if (answer === undefined) throw error;
      return answer;
    }
  }
}

function headOf({ digest, mediaType, size }: Extract<Relayed, { kind: 'head' }>): ManifestHead {
  return {
    ...(digest === undefined ? {} : { digest }),
    ...(mediaType === undefined ? {} : { mediaType }),
    ...(size === undefined ? {} : { size }),
  };
}

function listOf({ bytes, next, filtersApplied }: Extract<Relayed, { kind: 'whole' }>): FetchedReferrers {
  return {
    body: bytes,
    ...(next === undefined ? {} : { next }),
    ...(filtersApplied === undefined ? {} : { filtersApplied }),
  };
}
