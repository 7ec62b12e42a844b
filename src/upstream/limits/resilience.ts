/**
 * Keeps an upstream in trouble from failing or delaying pulls: retries, fallback URLs, a circuit breaker, and a hold
 * after a 429.
 *
 * | what happened | retry | counts for the breaker |
 * |---|---|---|
 * | no connection, or it broke | yes, with backoff | yes |
 * | a timeout | no: the client would not wait for another one | opens it at once |
 * | 5xx | yes, with backoff | no: an answer costs no time |
 * | 429 | no: send no requests of the same kind until Retry-After, or for some seconds | no |
 * | any other status | no | no |
 */
import type { Digest } from '../../oci/digest.ts';
import type { ListQuery, Reference, Repository } from '../../oci/reference.ts';
import type { RequestContext } from '../../request-context.ts';
import type { Metrics, RequestKind } from '../../telemetry/metrics.ts';
import { UpstreamError } from '../errors.ts';
import type {
  FetchedBlob,
  FetchedManifest,
  FetchedReferrers,
  FetchedTags,
  ManifestHead,
  Upstream,
} from '../upstream.ts';
import { Breaker, type BreakerContext, type Outage } from './breaker.ts';
import type { PullQuota, PullWindow } from './pull-quota.ts';
import type { SharedLimits } from './shared-limits.ts';

const RETRIES = 2;
const FIRST_BACKOFF_MS = 100;

export interface ResilienceContext extends BreakerContext {
  metrics: Metrics;
  /** Absent: the pulls of this upstream are not limited. */
  quota?: PullQuota;
  /** What other mirrors are told. Absent: none counts as one with this one. */
  sharedLimits?: SharedLimits | undefined;
}

/** Times are milliseconds since the epoch. */
export interface UpstreamCondition {
  /** Why none of its URLs gets requests now. */
  outage: Outage | undefined;
  /** Until then requests of some kind are not sent, because of a 429. */
  pausedUntil: number | undefined;
  /** Its pull limit; undefined: it has not told it, or the window is over. */
  pullWindow: PullWindow | undefined;
}

export class ResilientUpstream implements Upstream {
  readonly name: string;
  readonly #endpoints: readonly { upstream: Upstream; breaker: Breaker }[];
  readonly #context: ResilienceContext;
  readonly #heldByKind = new Map<RequestKind, number>();

  /** @param endpoints clients for the URLs of one registry, in the order in which to try them */
  constructor(name: string, endpoints: readonly Upstream[], context: ResilienceContext) {
    this.name = name;
    this.#context = context;
    this.#endpoints = endpoints.map((upstream) => ({ upstream, breaker: new Breaker(name, context) }));
    this.#publish();
  }

  headManifest(
    context: RequestContext,
    repository: Repository,
    reference: Reference,
    options: { accept?: string } = {},
  ): Promise<ManifestHead> {
    return this.#ask(context, 'manifest', (to) => to.headManifest(context, repository, reference, options));
  }

  fetchManifest(
    context: RequestContext,
    repository: Repository,
    reference: Reference,
    { canWait = false, ...options }: { accept?: string; canWait?: boolean } = {},
  ): Promise<FetchedManifest> {
    const ask = (to: Upstream) => to.fetchManifest(context, repository, reference, options);
    return this.#ask(context, 'manifest', ask, canWait);
  }

  headBlob(context: RequestContext, repository: Repository, digest: Digest): Promise<{ size?: number }> {
    return this.#ask(context, 'blob', (to) => to.headBlob(context, repository, digest));
  }

  fetchBlob(
    context: RequestContext,
    repository: Repository,
    digest: Digest,
    options: { from?: number; to?: number } = {},
  ): Promise<FetchedBlob> {
    return this.#ask(context, 'blob', (to) => to.fetchBlob(context, repository, digest, options));
  }

  fetchTags(context: RequestContext, repository: Repository, query: ListQuery): Promise<FetchedTags> {
    return this.#ask(context, 'tags', (to) => to.fetchTags(context, repository, query));
  }

  fetchReferrers(
    context: RequestContext,
    repository: Repository,
    digest: Digest,
    query: ListQuery,
  ): Promise<FetchedReferrers | undefined> {
    return this.#ask(context, 'referrers', (to) => to.fetchReferrers(context, repository, digest, query));
  }

  condition(): UpstreamCondition {
    const outages = this.#endpoints.map(({ breaker }) => breaker.outage);
    const pausedUntil = Math.max(0, ...this.#heldByKind.values());
    return {
      outage: outages.includes(undefined) ? undefined : outages[0],
      pausedUntil: pausedUntil > this.#context.clock.now() ? pausedUntil : undefined,
      pullWindow: this.#context.quota?.window,
    };
  }

  async close(): Promise<void> {
    await Promise.all(this.#endpoints.map(({ upstream }) => upstream.close()));
  }

  /** @param canWait do not spend a reserved pull */
  async #ask<T>(
    request: RequestContext,
    kind: RequestKind,
    ask: (to: Upstream) => Promise<T>,
    canWait = false,
  ): Promise<T> {
    const { clock, random, sharedLimits } = this.#context;
    const { signal } = request;
    if (sharedLimits !== undefined) await this.#learn(request, kind, sharedLimits);
    if (canWait) this.#keepReserve();
    this.#refuseIfHeld(kind);
    for (let round = 0; ; round += 1) {
      const outcome = await this.#tryEach(request, kind, ask);
      if ('answer' in outcome) return outcome.answer;
      if (round === RETRIES || !outcome.worthRetrying || signal?.aborted === true) throw outcome.failure;
      await clock.sleep(FIRST_BACKOFF_MS * 3 ** round * (0.5 + random()), signal);
    }
  }

  async #tryEach<T>(
    request: RequestContext,
    kind: RequestKind,
    ask: (to: Upstream) => Promise<T>,
  ): Promise<{ answer: T } | { failure: UpstreamError; worthRetrying: boolean }> {
    let failure: UpstreamError | undefined;
    let worthRetrying = false;
    for (const { upstream, breaker } of this.#endpoints) {
      const refusal = breaker.refusal();
      if (refusal !== undefined) {
        failure ??= refusal;
        continue;
      }
      try {
        const answer = await ask(upstream);
        breaker.answered(request);
        this.#publish();
        return { answer };
      } catch (error) {
        if (request.signal?.aborted === true) throw error; // the mirror aborted it: that says nothing about upstream
        if (!isOutage(error)) {
          breaker.answered(request);
          this.#publish();
          await this.#holdIfAsked(request, kind, error);
          throw error;
        }
        breaker.failed(request, error);
        this.#publish();
        failure = error;
        worthRetrying = error.code === 'unavailable';
      }
    }
    if (failure === undefined) throw new Error(`${this.name} has no URL`);
    return { failure, worthRetrying };
  }

  /** Takes over what upstream has told other mirrors. */
  async #learn(
    { id: requestId }: RequestContext,
    kind: RequestKind,
    sharedLimits: SharedLimits,
  ): Promise<void> {
    const { quota, clock, logger } = this.#context;
    const { pauses, count } = await sharedLimits.learn(kind, quota?.source);
    if (count !== undefined) quota?.learn(count);
    const now = clock.now();
    for (const [paused, until] of pauses) {
      const known = this.#heldByKind.get(paused) ?? 0;
      if (until <= known) continue;
      this.#heldByKind.set(paused, until);
      if (known > now) continue; // it is told of already
      const line = { requestId, upstream: this.name, kind: paused, retryAfterMs: until - now };
      logger.warn(line, 'upstream rate limit of another node: requests of this kind stop until it ends');
    }
  }

  #refuseIfHeld(kind: RequestKind): void {
    const left = (this.#heldByKind.get(kind) ?? 0) - this.#context.clock.now();
    if (left <= 0) return;
    const message = `answered 429, so the mirror sends it no requests of this kind for another ${Math.ceil(left / 1000)} s`;
    throw new UpstreamError('rate-limited', this.name, message, { status: 429, retryAfterMs: left });
  }

  #keepReserve(): void {
    const shortage = this.#context.quota?.shortage();
    if (shortage === undefined) return;
    const message = `says that ${shortage.remaining} pulls are left; rateLimit.reserve keeps them for content that is not cached`;
    throw new UpstreamError('rate-limited', this.name, message, { retryAfterMs: shortage.leftMs });
  }

  async #holdIfAsked({ id: requestId }: RequestContext, kind: RequestKind, error: unknown): Promise<void> {
    if (
      !(error instanceof UpstreamError) ||
      error.code !== 'rate-limited' ||
      error.retryAfterMs === undefined
    )
      return;
    const { clock, logger, quota, sharedLimits } = this.#context;
    this.#heldByKind.set(kind, clock.now() + error.retryAfterMs);
    const { retryAfterMs } = error;
    logger.warn(
      { requestId, err: error, upstream: this.name, kind, retryAfterMs },
      'upstream rate limit: requests of this kind stop until it ends',
    );
    await sharedLimits?.tellPause(kind, retryAfterMs, quota?.source);
  }

  #publish(): void {
    const isUp = this.#endpoints.some(({ breaker }) => !breaker.isOpen);
    this.#context.metrics.upstreamUp.set({ upstream: this.name }, isUp ? 1 : 0);
  }
}

function isOutage(error: unknown): error is UpstreamError {
  return error instanceof UpstreamError && (error.code === 'unavailable' || error.code === 'timeout');
}
