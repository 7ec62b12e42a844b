/**
 * Opens blobs from the content store, from a running fill, or from their origin.
 *
 * Invariant: for one digest and origin at most one fill runs in this process. Other requests follow it, so upstream
 * sees one download, however many clients ask by whatever route. A request does not follow a fill of another upstream:
 * its bytes may be wrong, or may never come.
 */

import type { FrontState } from '../../cache/ingest/hashed-front.ts';
import type { ContentReader } from '../../cache/store/content-store.ts';
import { StorageError } from '../../cache/store/errors.ts';
import type { Digest } from '../../oci/digest.ts';
import type { Repository } from '../../oci/reference.ts';
import { detached, type RequestContext } from '../../request-context.ts';
import { UpstreamError } from '../../upstream/errors.ts';
import type { OtherSource, Upstream } from '../../upstream/upstream.ts';
import { requireFetch } from '../cached-only.ts';
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
  /** Gives the origin of an upstream's blobs, for fills and for pulls that bypass the cache. */
  originOf: (upstream: Upstream) => BlobOrigin;
}

interface CachedBlob extends OpenBlob {
  /** The fill that its bytes come from. */
  fill?: Fill;
}

export class BlobMirror {
  readonly #context: BlobMirrorContext;
  readonly #fills = new Map<string, Fill>();

  constructor(context: BlobMirrorContext) {
    this.#context = context;
  }

  /**
   * @throws {UpstreamError | ContentError} no byte could be fetched. Later failures are thrown by `content.read`
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

  /** Answers a HEAD. Fetches headers only. @throws {UpstreamError} */
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

  /**
   * Opens what is here of a blob, stored or coming in, for another node of a fleet. Begins nothing. Whoever asks must have
   * permission.
   *
   * @param fromNodes also what itself comes in from another node
   * @throws {StorageError | UpstreamError | ContentError}
   */
  async openHere(
    key: { upstream: { name: string }; digest: Digest },
    fromNodes: boolean,
  ): Promise<ContentReader | undefined> {
    const stored = await this.#context.cache.open(key.digest);
    if (stored !== undefined) return stored;
    const fill = this.#fills.get(fillKey(key));
    if (fill === undefined || fill.failed || (fill.source === 'node' && !fromNodes)) return undefined;
    return fill.follow(undefined, { ...fill.request.context, background: true });
  }

  /** Resolves when no fill of the blob runs. The blob is then stored, unless the fill or the disk failed. */
  async settled(request: { upstream: Upstream; digest: Digest }): Promise<void> {
    await this.#fills.get(fillKey(request))?.ended;
  }

  /** Stops running fills. Idempotent. */
  async close(): Promise<void> {
    await Promise.all([...this.#fills.values()].map((fill) => fill.close()));
  }

  async #openCached(request: BlobRequest): Promise<CachedBlob> {
    const { catalog, cache, permissions } = this.#context;
    let granted: GrantedBy | undefined; // kept between rounds, so that upstream is asked once
    for (;;) {
      const content = await cache.open(request.digest);
      if (content !== undefined) return await this.#hit(content, request, granted);
      requireFetch(request.context, request.upstream);
      const expectedSize = (await permissions.recorded(request))?.size;
      let fill = this.#fills.get(fillKey(request));
      let outcome: CacheOutcome = 'miss';
      if (fill === undefined) {
        // Looks again: a fill may have ended meanwhile. Its blob enters the catalog before the fill leaves the map.
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
      if (reader !== undefined)
        return { content: reader, outcome: outcome === 'miss' ? (fill.source ?? outcome) : outcome, fill };
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

  /**
   * @returns undefined if the fill has ended, or has failed for a reason that need not affect this request. Look again
   *   then
   */
  async #follow(
    fill: Fill,
    request: BlobRequest,
    expectedSize: number | undefined,
  ): Promise<ContentReader | undefined> {
    if (fill.failed) {
      await fill.ended; // wait until its file is closed: the next fill may use the same file
      return undefined;
    }
    try {
      return await fill.follow(expectedSize, request.context);
    } catch (error) {
      // Ignores a refusal or outage of another repository: this one has permission, so it fetches the blob itself.
      if (fill.request.key.repository === request.repository || !(error instanceof UpstreamError))
        throw error;
      await fill.ended;
      return undefined;
    }
  }

  /** Begins a fill. This is the only place that does. */
  #begin(request: BlobRequest, expectedSize: number | undefined): Fill {
    const { context, upstream, digest, segments } = request;
    const origin = this.#context.originOf(upstream);
    const permit = () => this.#context.permissions.requireBlob(request);
    const wanted = { context, origin, key: keyOf(request), digest, expectedSize, segments, permit };
    const fill = new Fill(wanted, this.#context, () => this.#fills.delete(fillKey(request)));
    this.#fills.set(fillKey(request), fill);
    return fill;
  }

  /** Goes on after the disk has failed under an open blob, whose reader has read up to `position`. */
  #recover(
    request: BlobRequest,
    fill: Fill | undefined,
    error: StorageError,
    position: number,
  ): Promise<ContentReader> {
    if (error.operation === 'read') this.#context.faults.report(error); // a fill reports its own failures
    const front = fill?.frontState();
    // A reader behind the end of the front needs bytes that cannot be read any more, so it fetches all from the start.
    return this.#passthrough(request, front !== undefined && front.length <= position ? front : undefined);
  }

  async #passthrough(request: BlobRequest, front?: FrontState): Promise<ContentReader> {
    const { context, upstream, repository, digest } = request;
    requireFetch(context, upstream);
    const abort = new AbortController();
    const expectedSize = (await this.#context.permissions.recorded(request))?.size;
    const origin = this.#context.originOf(upstream);
    const share = origin.openShare?.();
    if (context.background !== true) share?.addClient();
    abort.signal.addEventListener('abort', () => share?.close()); // by the reader's close, too
    const sources = new Set<OtherSource | undefined>();
    const onWrong = () => sources.forEach((source) => source?.rejected());
    try {
      const bytes = await origin.open({
        context: detached(context, abort.signal),
        ...{ repository, digest, expectedSize, share, from: front?.length ?? 0 },
        onSource: (source) => sources.add(source),
      });
      const size = bytes.size ?? expectedSize;
      if (size !== undefined) return new Passthrough(digest, size, bytes, abort, onWrong, front);
      bytes.close();
      throw lengthUnknown(request);
    } catch (error) {
      abort.abort(error);
      throw error;
    }
  }
}

function fillKey({ upstream, digest }: { upstream: { name: string }; digest: Digest }): string {
  return `${upstream.name} ${digest}`;
}

function outcomeOf(granted: GrantedBy): CacheOutcome {
  return granted === 'upstream' ? 'revalidated' : 'hit';
}

function lengthUnknown({ upstream }: BlobRequest): UpstreamError {
  const what = 'the reply does not say how long the blob is';
  return new UpstreamError('invalid-response', upstream.name, what);
}
