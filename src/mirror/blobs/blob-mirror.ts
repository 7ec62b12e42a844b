/**
 * Opens blobs: from the content store when they are there, from a running fill, or from their origin.
 *
 * Invariant: for one digest and origin at most one fill runs in this process. Whoever asks meanwhile follows it, so an
 * upstream sees one download however many clients ask on whatever route. Another upstream's running fill is not
 * followed, because nobody knows yet whether its bytes are right, or will come.
 */
import type { FrontState } from '../../cache/ingest/hashed-front.ts';
import type { ContentReader } from '../../cache/store/content-store.ts';
import { StorageError } from '../../cache/store/errors.ts';
import type { Digest } from '../../oci/digest.ts';
import type { Repository } from '../../oci/reference.ts';
import { detached, type RequestContext } from '../../request-context.ts';
import { UpstreamError } from '../../upstream/errors.ts';
import type { Upstream } from '../../upstream/upstream.ts';
import type { CacheOutcome } from '../outcome.ts';
import { type GrantedBy, keyOf, type Permissions } from '../permissions.ts';
import type { BlobOrigin } from './blob-origin.ts';
import { Fill, type FillContext } from './fill.ts';
import { Passthrough } from './passthrough.ts';
import { RecoveringReader } from './recovering-reader.ts';

export interface BlobRequest {
  context: RequestContext;
  upstream: Upstream;
  /** Ranges of a large cold blob that are fetched at one time. */
  segments: number;
  repository: Repository;
  digest: Digest;
}

export interface OpenBlob {
  /** The caller must close it. */
  content: ContentReader;
  outcome: CacheOutcome;
}

export interface BlobStat {
  /** Bytes. */
  size: number;
  outcome: CacheOutcome;
}

export interface BlobMirrorContext extends FillContext {
  permissions: Permissions;
  /** Where the bytes of an upstream's blobs come from: for fills, and past the cache. */
  originOf: (upstream: Upstream) => BlobOrigin;
}

interface CachedBlob extends OpenBlob {
  /** The fill that feeds it. */
  fill?: Fill;
}

export class BlobMirror {
  readonly #context: BlobMirrorContext;
  readonly #fills = new Map<string, Fill>();

  constructor(context: BlobMirrorContext) {
    this.#context = context;
  }

  /**
   * @throws {UpstreamError | ContentError} no byte could be had. What fails later, fails in `content.read`
   */
  async open(request: BlobRequest): Promise<OpenBlob> {
    try {
      const { content, outcome, fill } = await this.#openCached(request);
      const recover = (error: StorageError, position: number) =>
        this.#recover(request, fill, error, position);
      return { content: new RecoveringReader(content, recover), outcome };
    } catch (error) {
      if (!(error instanceof StorageError)) throw error;
      this.#context.faults.report(error);
      return { content: await this.#passthrough(request), outcome: 'bypass' };
    }
  }

  /** Answers a HEAD: nothing is fetched but headers. @throws {UpstreamError} */
  async stat(request: BlobRequest): Promise<BlobStat> {
    const { catalog, permissions } = this.#context;
    const stored = await catalog.get(request.digest);
    if (stored !== undefined) {
      const outcome = outcomeOf(await permissions.requireBlob(request));
      catalog.touch(request.digest);
      return { size: stored.size, outcome };
    }
    const expectedSize = (await permissions.recorded(request))?.size;
    const { size = expectedSize } = await permissions.confirmBlob(request);
    if (size === undefined) throw lengthUnknown(request);
    return { size, outcome: 'miss' };
  }

  /** Resolves when no fill of the blob runs: what it brought is stored, if it can be. */
  async settled(request: { upstream: Upstream; digest: Digest }): Promise<void> {
    await this.#fills.get(fillKey(request))?.ended;
  }

  /** Breaks running fills off. Idempotent. */
  async close(): Promise<void> {
    await Promise.all([...this.#fills.values()].map((fill) => fill.close()));
  }

  async #openCached(request: BlobRequest): Promise<CachedBlob> {
    const { catalog, cache, permissions } = this.#context;
    let granted: GrantedBy | undefined; // asked for once, however often we have to look again
    for (;;) {
      const content = await cache.open(request.digest);
      if (content !== undefined) return await this.#hit(content, request, granted);
      const expectedSize = (await permissions.recorded(request))?.size;
      let fill = this.#fills.get(fillKey(request));
      let outcome: CacheOutcome = 'miss';
      if (fill === undefined) {
        // A fill that ended while we looked has brought it. It is in the catalog before the fill is out of the map.
        if ((await catalog.get(request.digest)) !== undefined) continue;
        fill = this.#fills.get(fillKey(request));
      }
      if (fill === undefined) fill = this.#begin(request, expectedSize);
      else {
        if (fill.request.key.repository !== request.repository)
          granted ??= await permissions.requireBlob(request);
        outcome = fill.verified ? outcomeOf(granted ?? 'record') : 'collapsed';
      }
      const reader = await this.#follow(fill, request, expectedSize);
      if (reader !== undefined) return { content: reader, outcome, fill };
    }
  }

  async #hit(content: ContentReader, request: BlobRequest, granted?: GrantedBy): Promise<OpenBlob> {
    try {
      return {
        content,
        outcome: outcomeOf(granted ?? (await this.#context.permissions.requireBlob(request))),
      };
    } catch (error) {
      await content.close();
      throw error;
    }
  }

  /** @returns undefined if the fill is over, or failed for a reason that need not concern this request: then look again */
  async #follow(
    fill: Fill,
    request: BlobRequest,
    expectedSize: number | undefined,
  ): Promise<ContentReader | undefined> {
    if (fill.failed) {
      await fill.ended; // its file must be out of the way before another fill may have it
      return undefined;
    }
    try {
      return await fill.follow(expectedSize);
    } catch (error) {
      // Another repository's refusal or outage is not ours: we have permission, so we fetch it ourselves.
      if (fill.request.key.repository === request.repository || !(error instanceof UpstreamError))
        throw error;
      await fill.ended;
      return undefined;
    }
  }

  /** The only place where a fill begins. */
  #begin(request: BlobRequest, expectedSize: number | undefined): Fill {
    const { context, upstream, digest, segments } = request;
    const origin = this.#context.originOf(upstream);
    const permit = () => this.#context.permissions.requireBlob(request);
    const wanted = { context, origin, key: keyOf(request), digest, expectedSize, segments, permit };
    const fill = new Fill(wanted, this.#context, () => this.#fills.delete(fillKey(request)));
    this.#fills.set(fillKey(request), fill);
    return fill;
  }

  /** After the disk failed under an open blob whose reader had come to `position`. */
  #recover(
    request: BlobRequest,
    fill: Fill | undefined,
    error: StorageError,
    position: number,
  ): Promise<ContentReader> {
    if (error.operation === 'read') this.#context.faults.report(error); // a fill reports its own failures
    const front = fill?.frontState();
    // A reader that is not there yet needs bytes of the front that can no longer be had: then all from the start.
    return this.#passthrough(request, front !== undefined && front.length <= position ? front : undefined);
  }

  async #passthrough(request: BlobRequest, front?: FrontState): Promise<ContentReader> {
    const { context, upstream, repository, digest } = request;
    const abort = new AbortController();
    const expectedSize = (await this.#context.permissions.recorded(request))?.size;
    const bytes = await this.#context.originOf(upstream).open({
      context: detached(context, abort.signal),
      repository,
      digest,
      expectedSize,
      from: front?.length ?? 0,
    });
    const size = bytes.size ?? expectedSize;
    if (size !== undefined) return new Passthrough(digest, size, bytes, abort, front);
    bytes.close();
    throw lengthUnknown(request);
  }
}

function fillKey({ upstream, digest }: { upstream: Upstream; digest: Digest }): string {
  return `${upstream.name} ${digest}`;
}

function outcomeOf(granted: GrantedBy): CacheOutcome {
  return granted === 'upstream' ? 'revalidated' : 'hit';
}

function lengthUnknown({ upstream }: BlobRequest): UpstreamError {
  const what = 'the reply does not say how long the blob is';
  return new UpstreamError('invalid-response', upstream.name, what);
}
