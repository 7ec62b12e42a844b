/**
 * Fetches a cold blob once: from its origin into an ingest, then verifies and commits it.
 *
 * A fill does not belong to a request. Clients come and go, and it runs to its end.
 */
import type { Catalog } from '../../cache/catalog/catalog.ts';
import type { ContentCache } from '../../cache/catalog/content-cache.ts';
import type { Reservation, Space } from '../../cache/catalog/space.ts';
import type { IndexStore, RepositoryKey } from '../../cache/index/index-store.ts';
import type { FrontState } from '../../cache/ingest/hashed-front.ts';
import type { Ingest } from '../../cache/ingest/ingest.ts';
import type { Spool } from '../../cache/ingest/spool.ts';
import type { ContentReader } from '../../cache/store/content-store.ts';
import { ContentError, StorageError } from '../../cache/store/errors.ts';
import type { StorageFaults } from '../../cache/store/storage-faults.ts';
import type { Clock } from '../../clock.ts';
import type { Digest } from '../../oci/digest.ts';
import { detached, type RequestContext } from '../../request-context.ts';
import type { Logger } from '../../telemetry/log.ts';
import type { Metrics } from '../../telemetry/metrics.ts';
import { UpstreamError } from '../../upstream/errors.ts';
import type { BandwidthShare } from '../../upstream/limits/bandwidth-share.ts';
import type { OtherSource } from '../../upstream/upstream.ts';
import type { BlobBytes, BlobOrigin } from './blob-origin.ts';
import { fetchInLanes, type Segment, segmentsOf, split } from './segments.ts';

export interface FillContext {
  catalog: Catalog;
  cache: ContentCache;
  space: Space;
  index: IndexStore;
  spool: Spool;
  faults: StorageFaults;
  metrics: Metrics;
  logger: Logger;
  clock: Clock;
  /** Bytes of the longest part of a large blob. */
  longestSegment: number;
}

export interface FillRequest {
  /** The context of the request that began the fill. */
  context: RequestContext;
  origin: BlobOrigin;
  /** The repository that it is fetched from. */
  key: RepositoryKey;
  digest: Digest;
  /** Bytes, if a manifest of the repository states them. */
  expectedSize: number | undefined;
  /** Ranges of a large blob that are fetched at one time. */
  segments: number;
  /** Checks that the repository may serve a blob that needs no fetch. @throws {UpstreamError} it may not */
  permit: () => Promise<unknown>;
}

/** A blob of unknown length reserves this much at a time. */
const UNKNOWN_LENGTH_STEP_BYTES = 16 * 1024 * 1024;

export class Fill {
  readonly request: FillRequest;
  readonly #context: FillContext;
  readonly #onEnding: () => void;
  readonly #abort = new AbortController();
  readonly #share: BandwidthShare | undefined;
  /** Resolves when the origin has begun to answer. */
  readonly #begun = Promise.withResolvers<Ingest>();
  readonly #ended: Promise<void>;
  #ingest: Ingest | undefined;
  #failed = false;
  #isClosing = false;
  /** Where bytes have come from, one after the other; undefined: the upstream. */
  readonly #sources: (OtherSource | undefined)[] = [];
  /** The largest size that a follower expects. Stops an origin that states no length and never ends. */
  #largestExpected: number;

  /** @param onEnding called when the fill cannot be followed any more: its content is in the store, or it has failed */
  constructor(request: FillRequest, context: FillContext, onEnding: () => void) {
    this.request = request;
    this.#context = context;
    this.#onEnding = onEnding;
    this.#share = request.origin.openShare?.();
    this.#largestExpected = request.expectedSize ?? Number.POSITIVE_INFINITY;
    // Handles the rejection here too: the failure of a fill that nobody waits for must not end the process.
    this.#begun.promise.catch(() => undefined);
    this.#ended = this.#run();
  }

  /** Resolves when the fill has succeeded or failed, and has cleaned up. Never rejects. */
  get ended(): Promise<void> {
    return this.#ended;
  }

  /**
   * Begins to follow the fill as soon as the size is known.
   *
   * @param expectedSize bytes that a manifest of the client's repository states. If they are wrong, only this client
   *   fails
   * @param context of the request. Until its reader is closed, the fill has the bandwidth that this request is due
   * @returns undefined if the fill has ended
   * @throws {UpstreamError | ContentError} no byte could be fetched, or the blob has another size than expected
   * @throws {StorageError} the disk failed
   */
  async follow(
    expectedSize: number | undefined,
    { background = false }: RequestContext,
  ): Promise<ContentReader | undefined> {
    if (background) return this.#follow(expectedSize, () => undefined);
    this.#share?.addClient();
    const leave = () => this.#share?.removeClient();
    let reader: ContentReader | undefined;
    try {
      reader = await this.#follow(expectedSize, leave);
      return reader;
    } finally {
      if (reader === undefined) leave();
    }
  }

  /** @param onClose called when the reader is closed */
  async #follow(expectedSize: number | undefined, onClose: () => void): Promise<ContentReader | undefined> {
    this.#largestExpected = Math.max(this.#largestExpected, expectedSize ?? Number.POSITIVE_INFINITY);
    const ingest = await this.#begun.promise;
    if (expectedSize === undefined) await ingest.sized();
    if (ingest.ended) return undefined;
    const { ingestFollowers, contentRejected } = this.#context.metrics;
    if (expectedSize !== undefined && ingest.size !== undefined && ingest.size !== expectedSize)
      contentRejected.inc({ upstream: this.request.origin.name, reason: 'size-mismatch' });
    const reader = ingest.follow(expectedSize, () => {
      ingestFollowers.dec();
      onClose();
    });
    ingestFollowers.inc();
    return reader;
  }

  /** The fill has failed. Wait for {@link ended}, because it may still use its file. */
  get failed(): boolean {
    return this.#failed;
  }

  /** Where the bytes come from now, if not from the upstream. */
  get source(): OtherSource['name'] | undefined {
    return this.#sources.at(-1)?.name;
  }

  /** The whole blob has come and its digest matches. It may not be in the store yet. */
  get verified(): boolean {
    return this.#ingest?.verified ?? false;
  }

  /** The front, for a reader that goes on by itself after the disk has failed. */
  frontState(): FrontState | undefined {
    return this.#ingest?.frontState();
  }

  /** Stops the fetch. Keeps the bytes that have come for the next one. */
  async close(): Promise<void> {
    this.#isClosing = true;
    this.#abort.abort(new Error('the mirror is shutting down'));
    await this.#ended;
  }

  async #run(): Promise<void> {
    const { metrics, space, spool } = this.#context;
    const { digest, origin, expectedSize } = this.request;
    metrics.ingestsInProgress.inc();
    let reservation: Reservation | undefined;
    try {
      reservation = await space.reserve(expectedSize ?? UNKNOWN_LENGTH_STEP_BYTES);
      this.#ingest = await spool.open(digest, origin.name);
      await this.#fill(this.#ingest, reservation);
      await this.#ingest.verify();
      await this.#commit(this.#ingest);
    } catch (error) {
      await this.#fail(error instanceof Error ? error : new Error(String(error)));
    } finally {
      reservation?.[Symbol.dispose]();
      this.#share?.close();
      metrics.ingestsInProgress.dec();
      this.#onEnding(); // first, so that no new follower finds its file closed
      await this.#ingest?.end();
    }
  }

  async #fail(failure: Error): Promise<void> {
    const { metrics, spool, faults, logger } = this.#context;
    const { context, digest, origin } = this.request;
    this.#failed = true;
    this.#begun.reject(failure);
    this.#ingest?.abort(failure);
    const line = { requestId: context.id, upstream: origin.name, digest };
    if (failure instanceof StorageError) faults.report(failure);
    else if (this.#isClosing) logger.info(line, 'fetch stopped: the mirror is shutting down');
    else logger.warn({ ...line, err: failure }, 'fetch failed');
    if (failure instanceof ContentError) {
      for (const source of this.#sources) source?.rejected();
      const other = this.#sources.find((source) => source !== undefined);
      const whose = other === undefined ? origin.name : `fleet ${other.name}`;
      metrics.contentRejected.inc({ upstream: whose, reason: failure.code });
    }
    // Wrong bytes cannot be resumed, nor more than the blob has: upstream would answer 416. A disk that fails needs the space.
    const isTooLong = failure instanceof UpstreamError && failure.status === 416;
    const resumable = !(failure instanceof ContentError || failure instanceof StorageError || isTooLong);
    if (this.#ingest !== undefined) await spool.retire(this.#ingest, { resumable });
  }

  async #fill(ingest: Ingest, reservation: Reservation): Promise<void> {
    const { expectedSize, segments, origin, permit } = this.request;
    const from = ingest.front;
    if (from > 0) this.#context.metrics.ingestResumes.inc({ upstream: origin.name });
    if (from > 0 && ingest.isWhole) {
      await permit(); // these bytes may have come for another repository
      this.#begun.resolve(ingest);
      return;
    }
    const [first] = segmentsOf(from, expectedSize, segments, this.#context.longestSegment);
    const bytes = await this.#open(from, first?.to);
    try {
      if (bytes.size !== undefined) {
        await reservation.grow(bytes.size);
        ingest.setSize(bytes.size);
      }
      this.#begun.resolve(ingest);
      // An origin that ignores ranges sends the whole blob. This one reply is then read to its end.
      if (first === undefined || bytes.end === undefined || bytes.end === bytes.size)
        await this.#write(ingest, bytes, from, reservation);
      else await this.#fillInSegments(ingest, bytes, { from, to: bytes.end });
    } finally {
      bytes.close();
    }
  }

  async #fillInSegments(ingest: Ingest, begun: BlobBytes, first: Segment): Promise<void> {
    const { spool, clock, longestSegment } = this.#context;
    // Another node has nothing behind the byte that it is at: parts of what comes from it would wait for each other.
    const lanes = this.source === 'node' ? 1 : this.request.segments;
    const rest = split(first.to, begun.size ?? first.to, lanes, longestSegment);
    await spool.noteFront(ingest);
    await fetchInLanes({ segment: first, fetched: this.#write(ingest, begun, first.from) }, rest, {
      lanes,
      clock,
      waitedMs: () => this.#share?.waitedMs ?? 0,
      fetch: (segment) => this.#fillSegment(ingest, segment),
      abort: (error) => this.#abort.abort(error),
    });
  }

  async #fillSegment(ingest: Ingest, { from, to }: Segment): Promise<void> {
    const bytes = await this.#open(from, to);
    try {
      await this.#write(ingest, bytes, from);
      await this.#context.spool.noteFront(ingest);
    } finally {
      bytes.close();
    }
  }

  #open(from: number, to: number | undefined): Promise<BlobBytes> {
    const { origin, key, digest, expectedSize } = this.request;
    const context = detached(this.request.context, this.#abort.signal);
    return origin.open({
      ...{ context, repository: key.repository, digest, expectedSize, share: this.#share },
      onSource: (source) => this.#sources.push(source),
      ...(to === undefined ? { from } : { from, to }),
    });
  }

  /** @param reservation grows with the blob if its length is not known */
  async #write(ingest: Ingest, bytes: BlobBytes, from: number, reservation?: Reservation): Promise<void> {
    const writer = ingest.writer(from);
    let end = from;
    for await (const chunk of bytes.chunks()) {
      end += chunk.length;
      if (bytes.size === undefined) {
        if (end > this.#largestExpected)
          throw new ContentError('size-mismatch', ingest.digest, this.#largestExpected, end);
        await reservation?.grow(end + UNKNOWN_LENGTH_STEP_BYTES);
      }
      await writer.append(chunk);
    }
  }

  /** Stores the blob. The followers have their bytes by now, so a disk failure costs only the caching. */
  async #commit(ingest: Ingest): Promise<void> {
    const { catalog, cache, index, spool, faults } = this.#context;
    const { digest, key } = this.request;
    const { path, front: size } = ingest;
    await faults.tolerate(async () => {
      const permission = { put: 'permission', key, digest, value: { size } } as const;
      // The fill of another origin may have stored it first.
      if ((await catalog.get(digest)) !== undefined) return index.write([permission]);
      await ingest.sync();
      return cache.commit({ digest, path, sums: ingest.sums() }, [permission]);
    });
    await spool.discard(path); // a failed commit leaves the file, and segments leave a note
  }
}
