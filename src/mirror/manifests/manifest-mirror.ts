/**
 * Opens manifests by tag and by digest: from the cache if that is allowed, otherwise from upstream.
 *
 * Invariants: a tag moves only after its new manifest is stored; a digest that is stored is never fetched again;
 * upstream is asked once, however many clients ask at the same time.
 */
import { LRUCache } from 'lru-cache';
import type { Catalog } from '../../cache/catalog/catalog.ts';
import type { IndexStore, TagKey, TagRecord } from '../../cache/index/index-store.ts';
import { StorageError } from '../../cache/store/errors.ts';
import type { Digest } from '../../oci/digest.ts';
import { acceptedManifestTypes } from '../../oci/manifest.ts';
import { isDigest, type Reference, type Tag } from '../../oci/reference.ts';
import { detached } from '../../request-context.ts';
import { SingleFlight } from '../../single-flight.ts';
import type { Logger } from '../../telemetry/log.ts';
import { UpstreamError } from '../../upstream/errors.ts';
import { afterFailedRevalidation, type Freshness, freshnessOf } from '../freshness.ts';
import type { CacheOutcome } from '../outcome.ts';
import { keyOf } from '../permissions.ts';
import {
  acceptOption,
  flightKey,
  type ManifestFetchContext,
  ManifestFetches,
  type ManifestHeaders,
  type ManifestOrigin,
} from './manifest-fetches.ts';
import type { Manifest } from './manifest-store.ts';

export interface ManifestRequest extends ManifestOrigin {
  reference: Reference;
  /** The client's `Accept` header. */
  accept?: string | undefined;
  /** The client wants headers only. */
  head: boolean;
}

export interface OpenManifest extends ManifestHeaders {
  /** Absent if a HEAD was answered without them. */
  bytes?: Buffer;
  outcome: CacheOutcome;
  /** Why a stale manifest is served. */
  warning?: string;
}

interface TagMeaning {
  record: TagRecord;
  outcome: CacheOutcome;
  warning?: string;
}

const REMEMBERED_POSTPONED = 10_000;

export interface ManifestMirrorContext extends ManifestFetchContext {
  catalog: Catalog;
  /** Some stored manifests have lost their tags. An unknown tag may mean one of them. */
  manifestsWithoutOwner: boolean;
  index: IndexStore;
  logger: Logger;
}

export class ManifestMirror {
  readonly #context: ManifestMirrorContext;
  readonly #fetches: ManifestFetches;
  readonly #revalidations = new SingleFlight<TagMeaning>();
  /** Stale tags that are served without asking upstream, because it limits us. */
  readonly #postponed = new LRUCache<string, { meaning: TagMeaning; until: number }>({
    max: REMEMBERED_POSTPONED,
  });

  /** Revalidations that nobody waits for. */
  readonly #background = new Set<Promise<unknown>>();

  constructor(context: ManifestMirrorContext) {
    this.#context = context;
    this.#fetches = new ManifestFetches(context);
  }

  /** Waits for background revalidations, and for what is being stored. Idempotent. */
  async close(): Promise<void> {
    await Promise.all(this.#background);
    await this.#fetches.close();
  }

  /** @throws {UpstreamError} the manifest is not cached or must not be served, and upstream did not send it */
  async open(request: ManifestRequest): Promise<OpenManifest> {
    try {
      return await this.#openCached(request);
    } catch (error) {
      if (!(error instanceof StorageError)) throw error;
      this.#context.faults.report(error);
      const { manifest } = await this.#fetches.fetch(request, request.reference);
      return { ...describe(manifest), outcome: 'bypass' };
    }
  }

  async #openCached(request: ManifestRequest): Promise<OpenManifest> {
    const { reference } = request;
    if (isDigest(reference)) return this.#byDigest(request, reference);
    const found = await this.#byTag(request, reference, '');
    const insistedOn = acceptedManifestTypes(request.accept);
    if (insistedOn.length === 0 || insistedOn.includes(found.mediaType)) return found;
    // Keeps a separate record for such a client: upstream may send it another manifest, which others must not get.
    return this.#byTag(request, reference, insistedOn.join(', '));
  }

  async #byDigest(request: ManifestRequest, digest: Digest): Promise<OpenManifest> {
    const { manifests, index } = this.#context;
    const key = keyOf(request);
    const held = await manifests.get(digest);
    if (held === undefined) {
      const head = request.head ? await this.#fetches.head(request, digest, '') : undefined;
      return head === undefined ? this.#miss(request, digest) : { ...head, outcome: 'miss' };
    }
    const permission = await index.permission(key, digest);
    // Bytes are shared by digest, permission is not: upstream must confirm it for this repository.
    if (permission === undefined) await this.#fetches.head(request, digest, '');
    if (permission?.expanded !== true) await manifests.permit(key, held);
    return { ...describe(held), outcome: permission === undefined ? 'revalidated' : 'hit' };
  }

  async #byTag(request: ManifestRequest, tag: Tag, accept: string): Promise<OpenManifest> {
    const key: TagKey = { ...keyOf(request), tag, accept };
    const record = await this.#context.index.tag(key);
    if (record === undefined) return this.#firstByTag(request, key);
    const freshness = freshnessOf(record, tag, this.#context.clock.now(), request.freshness);
    if (freshness === 'fresh') return this.#serve(request, { record, outcome: 'hit' });
    if (request.context.cachedOnly === true) {
      const warning = `past its TTL; served as it was ${since(record)}`;
      return this.#serve(request, { record, outcome: 'stale', warning });
    }
    const flight = flightKey(key, tag, accept);
    const revalidate = () => this.#revalidate(request, key, record, freshness);
    if (freshness === 'stale-while-revalidate') {
      this.#inBackground(request, this.#revalidations.run(flight, revalidate));
      const warning = `past its TTL and being revalidated; served as it was ${since(record)}`;
      return this.#serve(request, { record, outcome: 'stale', warning });
    }
    const postponed = this.#postponed.get(flight);
    const wait = (postponed?.until ?? 0) - this.#context.clock.now();
    // A wait longer than the TTL does not count: the clock was turned back.
    if (postponed !== undefined && freshness === 'stale' && wait > 0 && wait <= request.freshness.tagTtlMs)
      return this.#serve(request, postponed.meaning);
    const meaning = await this.#revalidations.run(flight, revalidate).result;
    return this.#serve(request, meaning);
  }

  async #firstByTag(request: ManifestRequest, key: TagKey): Promise<OpenManifest> {
    const { manifests, index, clock, manifestsWithoutOwner } = this.#context;
    if (!request.head && !manifestsWithoutOwner) return this.#miss(request, key.tag, key);
    const head = await this.#fetches.head(request, key.tag, key.accept);
    if (head === undefined) return this.#miss(request, key.tag, key);
    const { digest, mediaType, size } = head;
    const held = request.head ? undefined : await manifests.get(digest);
    if (!request.head && held === undefined) return this.#miss(request, key.tag, key);
    await this.#tolerate(async () => {
      if (held !== undefined) await manifests.permit(key, held);
      // May be recorded before its manifest is stored, because there is no older record that could be lost.
      const value = { digest, mediaType, size, confirmedAt: clock.now() };
      await index.write([{ put: 'tag', key, value }]);
    });
    return held === undefined ? { ...head, outcome: 'miss' } : { ...describe(held), outcome: 'revalidated' };
  }

  async #serve(request: ManifestRequest, meaning: TagMeaning): Promise<OpenManifest> {
    const { record, ...how } = meaning;
    const { digest, mediaType, size } = record;
    if (request.head) {
      this.#context.catalog.touch(digest);
      return { digest, mediaType, size, ...how };
    }
    const held = await this.#context.manifests.get(digest);
    if (held !== undefined) return { ...describe(held), ...how };
    return this.#miss(request, digest); // a HEAD recorded the tag without its manifest
  }

  async #revalidate(
    request: ManifestRequest,
    key: TagKey,
    record: TagRecord,
    freshness: Exclude<Freshness, 'fresh'>,
  ): Promise<TagMeaning> {
    const { clock, index } = this.#context;
    try {
      const confirmedAt = clock.now();
      const { digest } = await request.upstream.headManifest(
        detached(request.context),
        request.repository,
        key.tag,
        acceptOption(key.accept),
      );
      if (digest === record.digest) {
        const { isUnconfirmed: _, ...known } = record;
        const confirmed = { ...known, confirmedAt };
        await this.#tolerate(() => index.write([{ put: 'tag', key, value: confirmed }]));
        return { record: confirmed, outcome: 'revalidated' };
      }
      const { manifest } = await this.#fetches.fetch(request, key.tag, key, {
        canWait: freshness !== 'expired',
      });
      const current = { ...describe(manifest), confirmedAt };
      return { record: current, outcome: manifest.digest === record.digest ? 'revalidated' : 'updated' };
    } catch (error) {
      if (!(error instanceof UpstreamError)) throw error;
      return this.#afterFailure(request, key, record, freshness, error);
    }
  }

  async #afterFailure(
    request: ManifestRequest,
    key: TagKey,
    record: TagRecord,
    freshness: Exclude<Freshness, 'fresh'>,
    error: UpstreamError,
  ): Promise<TagMeaning> {
    switch (afterFailedRevalidation(freshness, error.code, request.freshness)) {
      case 'serve-stale': {
        this.#context.logger.warn(
          { requestId: request.context.id, err: error, ...key },
          'serving a stale tag',
        );
        const warning = `${error.message}; served as it was ${since(record)}`;
        const meaning: TagMeaning = { record, outcome: 'stale', warning };
        if (error.code === 'rate-limited') this.#postpone(request, key, meaning, error.retryAfterMs ?? 0);
        return meaning;
      }
      case 'forget':
        await this.#tolerate(() => this.#context.index.write([{ delete: 'tag', key }]));
        throw error;
      case 'fail':
        throw error;
    }
  }

  /** Only logs a failure, because nobody waits for the result. The next request sees a success. */
  #inBackground(
    { context: { id: requestId } }: ManifestRequest,
    { result, joined }: { result: Promise<TagMeaning>; joined: boolean },
  ): void {
    if (joined) return;
    const ended = result.then(
      () => undefined,
      (error: unknown) =>
        this.#context.logger.warn({ requestId, err: error }, 'a tag could not be revalidated'),
    );
    this.#background.add(ended);
    void ended.then(() => this.#background.delete(ended));
  }

  /** Asks an upstream that limits us at most once a TTL, and not for each pull of a stale tag. */
  #postpone({ freshness }: ManifestRequest, key: TagKey, meaning: TagMeaning, retryAfterMs: number): void {
    const until = this.#context.clock.now() + Math.min(freshness.tagTtlMs, retryAfterMs);
    this.#postponed.set(flightKey(key, key.tag, key.accept), { meaning, until });
  }

  async #miss(request: ManifestRequest, reference: Reference, tag?: TagKey): Promise<OpenManifest> {
    const { manifest, stored, joined } = await this.#fetches.fetch(request, reference, tag);
    return { ...describe(manifest), outcome: !stored ? 'bypass' : joined ? 'collapsed' : 'miss' };
  }

  #tolerate<T>(step: () => Promise<T>): Promise<T | undefined> {
    return this.#context.faults.tolerate(step);
  }
}

function since({ confirmedAt }: TagRecord): string {
  return `at ${new Date(confirmedAt).toISOString()}`;
}

function describe(manifest: Manifest): ManifestHeaders & { bytes: Buffer } {
  const { digest, mediaType, bytes } = manifest;
  return { digest, mediaType, bytes, size: bytes.length };
}
