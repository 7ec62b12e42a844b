/**
 * Opens blobs: from the content store when they are there, from a running fill, or from upstream.
 *
 * Invariant: for one digest at most one fill runs in this process. Whoever asks meanwhile follows it, so upstream
 * sees one download however many clients ask on whatever route.
 */

import type { RepositoryKey } from '../../cache/index/index-store.ts';
import type { HashedPrefix } from '../../cache/ingest/ingest.ts';
import type { ContentReader } from '../../cache/store/content-store.ts';
import { StorageError } from '../../cache/store/errors.ts';
import type { Digest } from '../../oci/digest.ts';
import type { Repository } from '../../oci/reference.ts';
import { detached, type RequestContext } from '../../request-context.ts';
import { SingleFlight } from '../../single-flight.ts';
import { UpstreamError } from '../../upstream/errors.ts';
import type { Upstream } from '../../upstream/upstream.ts';
import type { CacheOutcome } from '../outcome.ts';
import { BlobFetch } from './blob-fetch.ts';
import { Fill, type FillContext } from './fill.ts';
import { Passthrough } from './passthrough.ts';

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

export class BlobMirror {
  readonly #context: FillContext;
  readonly #fillByDigest = new Map<Digest, Fill>();
  readonly #confirmations = new SingleFlight<{ size?: number }>();
  #endedFills = 0;

  constructor(context: FillContext) {
    this.#context = context;
  }

  /**
   * @throws {UpstreamError | ContentError} no byte could be had. What fails later, fails in `content.read`
   */
  async open(request: BlobRequest): Promise<OpenBlob> {
    try {
      const { content, outcome, fill } = await this.#openCached(request);
      const goOn: GoOn = (error, position) => this.#goOn(request, fill, error, position);
      return { content: new DiskFaultReader(content, goOn), outcome };
    } catch (error) {
      if (!(error instanceof StorageError)) throw error;
      this.#context.faults.report(error);
      return { content: await this.#passthrough(request), outcome: 'bypass' };
    }
  }

  /** Answers a HEAD: nothing is fetched but headers. @throws {UpstreamError} */
  async stat(request: BlobRequest): Promise<BlobStat> {
    const { cache } = this.#context;
    const stored = cache.get(request.digest);
    if (stored !== undefined) {
      const outcome = await this.#permit(request);
      cache.touch(request.digest);
      return { size: stored.size, outcome };
    }
    const expectedSize = await this.#expectedSize(request);
    const { size } = await this.#confirm(request);
    if (size === undefined && expectedSize === undefined) {
      throw new UpstreamError(
        'invalid-response',
        request.upstream.name,
        'the reply does not say how long the blob is',
      );
    }
    return { size: size ?? expectedSize ?? 0, outcome: 'miss' };
  }

  /** Resolves when no fill of `digest` runs: what it brought is stored, if it can be. */
  async settled(digest: Digest): Promise<void> {
    await this.#fillByDigest.get(digest)?.ended;
  }

  /** Breaks running fills off. Idempotent. */
  async close(): Promise<void> {
    await Promise.all([...this.#fillByDigest.values()].map((fill) => fill.close()));
  }

  async #openCached(request: BlobRequest): Promise<CachedBlob> {
    for (;;) {
      const endedBefore = this.#endedFills;
      const fill = this.#fillByDigest.get(request.digest);
      if (fill !== undefined) {
        const joined = await this.#join(fill, request);
        if (joined !== undefined) return joined;
        continue;
      }
      const content = await this.#context.cache.open(request.digest);
      if (content !== undefined) return await this.#hit(content, request);
      const expectedSize = await this.#expectedSize(request);
      // A fill that began or ended while we looked may have brought the blob: look again.
      if (this.#fillByDigest.has(request.digest) || this.#endedFills !== endedBefore) continue;
      const started = this.#start(request, expectedSize);
      return { content: await started.follow(), outcome: 'miss', fill: started };
    }
  }

  async #hit(content: ContentReader, request: BlobRequest): Promise<OpenBlob> {
    try {
      return { content, outcome: await this.#permit(request) };
    } catch (error) {
      await content.close();
      throw error;
    }
  }

  /** @returns undefined if the fill failed before we came, or for a reason that need not concern this request */
  async #join(fill: Fill, request: BlobRequest): Promise<CachedBlob | undefined> {
    if (fill.failed) {
      await fill.ended; // its file must be out of the way before another fill may have it
      return undefined;
    }
    const sameRepository = sameKey(fill.request.key, keyOf(request));
    const permitted = sameRepository ? 'hit' : await this.#permit(request);
    try {
      const outcome = fill.verified ? permitted : 'collapsed';
      return { content: await fill.follow(), outcome, fill };
    } catch (error) {
      // The other repository's refusal or outage is not ours; we have leave, so we fetch it ourselves.
      if (sameRepository || !(error instanceof UpstreamError)) throw error;
      await fill.ended;
      return undefined;
    }
  }

  #start(request: BlobRequest, expectedSize: number | undefined): Fill {
    const { context, upstream, digest, segments } = request;
    const fill = new Fill(
      { context, upstream, key: keyOf(request), digest, expectedSize, segments },
      this.#context,
      () => {
        this.#fillByDigest.delete(digest);
        this.#endedFills += 1;
      },
    );
    this.#fillByDigest.set(digest, fill);
    return fill;
  }

  /** Bytes are shared by digest, permission is not: see {@link LinkRecord}. @throws {UpstreamError} no leave */
  async #permit(request: BlobRequest): Promise<'hit' | 'revalidated'> {
    const { index, faults } = this.#context;
    const key = keyOf(request);
    if ((await faults.tolerate(() => index.link(key, request.digest))) !== undefined) return 'hit';
    const { size } = await this.#confirm(request);
    const value = size === undefined ? {} : { size };
    await faults.tolerate(() => index.write([{ put: 'link', key, digest: request.digest, value }]));
    return 'revalidated';
  }

  #confirm({ context, upstream, repository, digest }: BlobRequest): Promise<{ size?: number }> {
    const flight = `${upstream.name}/${repository}@${digest}`;
    return this.#confirmations.run(flight, () => upstream.headBlob(detached(context), repository, digest))
      .result;
  }

  async #expectedSize(request: BlobRequest): Promise<number | undefined> {
    const { index, faults } = this.#context;
    return (await faults.tolerate(() => index.link(keyOf(request), request.digest)))?.size;
  }

  /** After the disk failed under an open blob whose reader had come to `position`. */
  #goOn(
    request: BlobRequest,
    fill: Fill | undefined,
    error: StorageError,
    position: number,
  ): Promise<ContentReader> {
    if (error.operation === 'read') this.#context.faults.report(error); // a fill reports its own failures
    const prefix = fill?.hashedPrefix();
    // A reader that is not there yet needs bytes of the prefix that can no longer be had: then all from the start.
    return this.#passthrough(request, prefix !== undefined && prefix.length <= position ? prefix : undefined);
  }

  async #passthrough(request: BlobRequest, prefix?: HashedPrefix): Promise<ContentReader> {
    const { context, upstream, repository, digest } = request;
    const abort = new AbortController();
    const expectedSize = await this.#expectedSize(request);
    const from = prefix?.length ?? 0;
    const fetch = await BlobFetch.start(
      { context: detached(context, abort.signal), upstream, repository, digest, expectedSize, from },
      this.#context,
    );
    if (fetch.size === undefined) {
      fetch.close();
      throw new UpstreamError(
        'invalid-response',
        upstream.name,
        'the reply does not say how long the blob is',
      );
    }
    return new Passthrough(digest, fetch.size, fetch, abort, prefix);
  }
}

interface CachedBlob extends OpenBlob {
  /** The fill that feeds it. */
  fill?: Fill;
}

type GoOn = (error: StorageError, position: number) => Promise<ContentReader>;

/** Reads from the disk until the disk fails, then from wherever `goOn` leads. */
class DiskFaultReader implements ContentReader {
  readonly size: number;
  readonly file?: string;
  #reader: ContentReader;
  readonly #goOn: GoOn;
  #closed = false;

  constructor(reader: ContentReader, goOn: GoOn) {
    this.size = reader.size;
    if (reader.file !== undefined) this.file = reader.file;
    this.#reader = reader;
    this.#goOn = goOn;
  }

  async read(target: Buffer, position: number, end: number): Promise<number> {
    try {
      return await this.#reader.read(target, position, end);
    } catch (error) {
      // A file that was closed under a read, because the client left, is no fault of the disk.
      if (!(error instanceof StorageError) || this.#closed) throw error;
      const failed = this.#reader;
      this.#reader = await this.#goOn(error, position);
      await failed.close();
      if (this.#closed) await this.#reader.close(); // the client left meanwhile
      return this.#reader.read(target, position, end);
    }
  }

  close(): Promise<void> {
    this.#closed = true;
    return this.#reader.close();
  }
}

function keyOf({ upstream, repository }: BlobRequest): RepositoryKey {
  return { upstream: upstream.name, repository };
}

function sameKey(a: RepositoryKey, b: RepositoryKey): boolean {
  return a.upstream === b.upstream && a.repository === b.repository;
}
