/**
 * Fetches manifests from upstream and stores them. Clients that ask for the same manifest at the same time share one
 * request. A manifest that upstream does not have is not asked for again for some time.
 */

import { LRUCache } from 'lru-cache';
import type { RepositoryKey, TagKey } from '../../cache/index/index-store.ts';
import type { StorageFaults } from '../../cache/store/storage-faults.ts';
import type { Clock } from '../../clock.ts';
import type { Digest } from '../../oci/digest.ts';
import { parseManifest } from '../../oci/manifest.ts';
import { isDigest, type Reference, type Repository } from '../../oci/reference.ts';
import { detached, type RequestContext } from '../../request-context.ts';
import { SingleFlight } from '../../single-flight.ts';
import type { Metrics } from '../../telemetry/metrics.ts';
import { UpstreamError } from '../../upstream/errors.ts';
import type { Upstream } from '../../upstream/upstream.ts';
import { requireFetch } from '../cached-only.ts';
import type { FreshnessPolicy } from '../freshness.ts';
import { keyOf } from '../permissions.ts';
import type { Manifest, ManifestStore, TagChange } from './manifest-store.ts';

/** The repository to ask, the request it is asked for, and how long its answers are valid. */
export interface ManifestOrigin {
  context: RequestContext;
  upstream: Upstream;
  repository: Repository;
  freshness: FreshnessPolicy;
}

export interface ManifestHeaders {
  digest: Digest;
  mediaType: string;
  /** Bytes of the manifest. */
  size: number;
}

export interface FetchedManifest {
  manifest: Manifest;
  /** False if the disk failed. */
  stored: boolean;
  /** The fetch was already running for another request. */
  joined: boolean;
}

export interface ManifestFetchContext {
  manifests: ManifestStore;
  faults: StorageFaults;
  metrics: Metrics;
  clock: Clock;
}

const REMEMBERED_MISSING = 10_000;

export class ManifestFetches {
  readonly #context: ManifestFetchContext;
  readonly #fetches = new SingleFlight<{ manifest: Manifest; stored: boolean }>();
  readonly #heads = new SingleFlight<ManifestHeaders | undefined>();
  readonly #storing = new Set<Promise<unknown>>();
  readonly #missing = new LRUCache<string, { error: UpstreamError; until: number }>({
    max: REMEMBERED_MISSING,
  });

  constructor(context: ManifestFetchContext) {
    this.#context = context;
  }

  /** Waits for what has come and is being stored, not for upstream. */
  async close(): Promise<void> {
    await Promise.allSettled(this.#storing);
  }

  /**
   * @param accept the media types to accept; empty: upstream chooses
   * @returns undefined if upstream's reply to HEAD lacks a header that ours needs. Use GET then
   * @throws {UpstreamError}
   */
  async head(
    origin: ManifestOrigin,
    reference: Reference,
    accept: string,
  ): Promise<ManifestHeaders | undefined> {
    const { context, upstream, repository } = origin;
    requireFetch(context, upstream);
    return this.#heads.run(flightKey(keyOf(origin), reference, accept), () =>
      this.#rememberingMissing(origin, reference, accept, async () => {
        const head = await upstream.headManifest(
          detached(context),
          repository,
          reference,
          acceptOption(accept),
        );
        const digest = isDigest(reference) ? reference : head.digest;
        const { mediaType, size } = head;
        if (digest === undefined || mediaType === undefined || size === undefined) return undefined;
        return { digest, mediaType, size };
      }),
    ).result;
  }

  /**
   * @param tag recorded together with the manifest
   * @param options as {@link Upstream.fetchManifest} takes them
   * @throws {UpstreamError}
   */
  async fetch(
    origin: ManifestOrigin,
    reference: Reference,
    tag?: TagKey,
    options: { canWait?: boolean } = {},
  ): Promise<FetchedManifest> {
    requireFetch(origin.context, origin.upstream);
    const accept = tag?.accept ?? '';
    const { result, joined } = this.#fetches.run(flightKey(keyOf(origin), reference, accept), () =>
      this.#rememberingMissing(origin, reference, accept, () =>
        this.#fetchAndStore(origin, reference, tag, options),
      ),
    );
    return { ...(await result), joined };
  }

  async #fetchAndStore(
    origin: ManifestOrigin,
    reference: Reference,
    tag: TagKey | undefined,
    options: { canWait?: boolean },
  ): Promise<{ manifest: Manifest; stored: boolean }> {
    const { manifests, faults, clock, metrics } = this.#context;
    const { context, upstream, repository } = origin;
    const confirmedAt = clock.now();
    const fetched = await upstream.fetchManifest(detached(context), repository, reference, {
      ...acceptOption(tag?.accept ?? ''),
      ...options,
    });
    const parsed = parseManifest(fetched.bytes, fetched.mediaType);
    if (parsed === undefined) {
      metrics.contentRejected.inc({ upstream: upstream.name, reason: 'not-a-manifest' });
      const what = `${repository}:${reference} is not a manifest of a known type (${fetched.mediaType})`;
      throw new UpstreamError('invalid-response', upstream.name, what);
    }
    const manifest = { digest: fetched.digest, mediaType: parsed.mediaType, bytes: fetched.bytes };
    const change: TagChange | undefined = tag === undefined ? undefined : { key: tag, confirmedAt };
    const storing = faults.tolerate(async () => {
      await manifests.put(keyOf(origin), manifest, parsed, change);
      return true;
    });
    this.#storing.add(storing);
    const stored = await storing.finally(() => this.#storing.delete(storing));
    return { manifest, stored: stored === true };
  }

  async #rememberingMissing<T>(
    origin: ManifestOrigin,
    reference: Reference,
    accept: string,
    ask: () => Promise<T>,
  ): Promise<T> {
    const { clock } = this.#context;
    // Includes `accept`: a manifest that is missing for one client may exist for clients that accept more types.
    const key = flightKey(keyOf(origin), reference, accept);
    const missing = this.#missing.get(key);
    const believes = origin.freshness.negativeTtlMs > 0;
    if (believes && missing !== undefined && clock.now() < missing.until) throw missing.error;
    try {
      return await ask();
    } catch (error) {
      if (error instanceof UpstreamError && error.code === 'not-found') {
        this.#missing.set(key, { error, until: clock.now() + origin.freshness.negativeTtlMs });
      }
      throw error;
    }
  }
}

/** The key by which equal requests to upstream are one. */
export function flightKey(key: RepositoryKey, reference: Reference, accept: string): string {
  return `${key.upstream}/${key.repository} ${reference} ${accept}`;
}

/** The option of a request to upstream; empty if any type is accepted. */
export function acceptOption(accept: string): { accept?: string } {
  return accept === '' ? {} : { accept };
}
