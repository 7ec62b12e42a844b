/** Serves tag lists and referrers. These lists change, and only upstream has them. */

import { LRUCache } from 'lru-cache';
import type { Clock } from '../../clock.ts';
import type { Digest } from '../../oci/digest.ts';
import type { ListQuery, Repository } from '../../oci/reference.ts';
import { detached, type RequestContext } from '../../request-context.ts';
import { SingleFlight } from '../../single-flight.ts';
import type { Logger } from '../../telemetry/log.ts';
import { UpstreamError } from '../../upstream/errors.ts';
import type { FetchedReferrers, FetchedTags, Upstream } from '../../upstream/upstream.ts';
import { requireFetch } from '../cached-only.ts';
import type { FreshnessPolicy } from '../freshness.ts';
import type { CacheOutcome } from '../outcome.ts';

const REFERRERS_MEMORY_BYTES = 16 * 1024 * 1024;

export interface TagsRequest {
  context: RequestContext;
  upstream: Upstream;
  repository: Repository;
  query: ListQuery;
}

export interface ReferrersRequest {
  context: RequestContext;
  upstream: Upstream;
  freshness: FreshnessPolicy;
  repository: Repository;
  digest: Digest;
  query: ListQuery;
}

export interface OpenReferrers {
  /** Undefined: this upstream has no referrers API. */
  referrers: FetchedReferrers | undefined;
  outcome: CacheOutcome;
  warning?: string;
}

interface KnownReferrers {
  referrers: FetchedReferrers | undefined;
  confirmedAt: number;
}

export class DiscoveryMirror {
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #tagFetches = new SingleFlight<FetchedTags>();
  readonly #referrersFetches = new SingleFlight<KnownReferrers>();
  readonly #referrers = new LRUCache<string, KnownReferrers>({
    maxSize: REFERRERS_MEMORY_BYTES,
    sizeCalculation: ({ referrers }, key) => key.length + (referrers?.body.length ?? 0) + 1,
  });

  constructor(context: { clock: Clock; logger: Logger }) {
    this.#clock = context.clock;
    this.#logger = context.logger;
  }

  /**
   * Always asks upstream: a client that lists tags wants to see the one that was pushed just now.
   *
   * @throws {UpstreamError}
   */
  async tags({ context, upstream, repository, query }: TagsRequest): Promise<FetchedTags> {
    requireFetch(context, upstream);
    const key = `${upstream.name}/${repository}?${query}`;
    return this.#tagFetches.run(key, () => upstream.fetchTags(detached(context), repository, query)).result;
  }

  /**
   * Answers from memory for as long as a tag would be fresh: Docker 29 asks for referrers on every pull, and a warm
   * pull must not need upstream.
   *
   * @throws {UpstreamError}
   */
  async referrers(request: ReferrersRequest): Promise<OpenReferrers> {
    const { context, upstream, repository, digest, query, freshness } = request;
    const key = `${upstream.name}/${repository}@${digest}?${query}`;
    const known = this.#referrers.get(key);
    const age = known === undefined ? Number.POSITIVE_INFINITY : this.#clock.now() - known.confirmedAt;
    if (known !== undefined && age >= 0 && age < freshness.tagTtlMs) {
      return { referrers: known.referrers, outcome: 'hit' };
    }
    try {
      requireFetch(context, upstream);
      const { result, joined } = this.#referrersFetches.run(key, async () => {
        const confirmedAt = this.#clock.now();
        const referrers = await upstream.fetchReferrers(detached(context), repository, digest, query);
        const current = { referrers, confirmedAt };
        this.#referrers.set(key, current);
        return current;
      });
      return { referrers: (await result).referrers, outcome: joined ? 'collapsed' : 'miss' };
    } catch (error) {
      const passing = error instanceof UpstreamError && error.code !== 'not-found' && error.code !== 'denied';
      if (!passing || known === undefined || age >= freshness.tagTtlMs + freshness.staleIfErrorMs)
        throw error;
      this.#logger.warn(
        { requestId: context.id, err: error, upstream: upstream.name, repository, digest },
        'serving stale referrers',
      );
      return { referrers: known.referrers, outcome: 'stale', warning: error.message };
    }
  }
}
