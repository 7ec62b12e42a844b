/**
 * The one fetch of a cold blob: from upstream into an ingest, verified, then committed.
 *
 * It belongs to no request: clients come and go, it runs to its end.
 */
import type { ContentCache } from '../../cache/catalog/content-cache.ts';
import type { Reservation, Space } from '../../cache/catalog/space.ts';
import type { IndexStore, RepositoryKey } from '../../cache/index/index-store.ts';
import type { HashedPrefix, Ingest } from '../../cache/ingest/ingest.ts';
import type { Spool } from '../../cache/ingest/spool.ts';
import type { ContentReader } from '../../cache/store/content-store.ts';
import { ContentError, StorageError } from '../../cache/store/errors.ts';
import type { StorageFaults } from '../../cache/store/storage-faults.ts';
import type { Clock } from '../../clock.ts';
import type { Digest } from '../../oci/digest.ts';
import { detached, type RequestContext } from '../../request-context.ts';
import type { Logger } from '../../telemetry/log.ts';
import type { Metrics } from '../../telemetry/metrics.ts';
import type { Upstream } from '../../upstream/upstream.ts';
import { BlobFetch } from './blob-fetch.ts';

export interface FillContext {
  cache: ContentCache;
  space: Space;
  index: IndexStore;
  spool: Spool;
  faults: StorageFaults;
  metrics: Metrics;
  logger: Logger;
  clock: Clock;
}

export interface FillRequest {
  /** Of the request that began it. */
  context: RequestContext;
  upstream: Upstream;
  key: RepositoryKey;
  digest: Digest;
  /** Bytes, where a manifest says so. */
  expectedSize: number | undefined;
  /** Ranges of a large blob that are fetched at one time. */
  segments: number;
}

/** Reserved at a time for a blob that nobody says the length of. */
const UNKNOWN_LENGTH_STEP_BYTES = 16 * 1024 * 1024;

/** A part of a blob; `to` is exclusive. */
interface Segment {
  from: number;
  to: number;
}

/** A smaller blob comes in one piece. */
const SEGMENTED_MIN_BYTES = 64 * 1024 * 1024;
const SEGMENT_MIN_BYTES = 16 * 1024 * 1024;
const SEGMENT_MAX_BYTES = 256 * 1024 * 1024;
/**
 * A connection that is as fast as this fetches alone. Parallel ranges do not come in their order, so they are read back
 * from the file to be hashed; that is worth it where a connection is slower than the line, as on content networks.
 */
const FAST_BYTES_PER_MS = (200 * 1024 * 1024) / 1000;

/**
 * The parts in which the rest of a blob is fetched: several for each of `lanes`, so that the front grows steadily, and
 * not so many that upstream is flooded with requests. None if it comes in one piece.
 */
function segmentsOf(from: number, size: number | undefined, lanes: number): Segment[] {
  if (size === undefined || lanes < 2 || size - from < SEGMENTED_MIN_BYTES) return [];
  const share = Math.ceil((size - from) / (lanes * 4));
  const length = Math.min(Math.max(share, SEGMENT_MIN_BYTES), SEGMENT_MAX_BYTES);
  const count = Math.ceil((size - from) / length);
  return Array.from({ length: count }, (_, at) => ({
    from: from + at * length,
    to: Math.min(from + (at + 1) * length, size),
  }));
}

export class Fill {
  readonly request: FillRequest;
  readonly #context: FillContext;
  readonly #onDone: () => void;
  readonly #abort = new AbortController();
  readonly #opened = Promise.withResolvers<Ingest>();
  readonly #ended: Promise<void>;
  #ingest: Ingest | undefined;
  #failed = false;

  /** @param onDone called when the fill can be followed no more: its content is in the store, or it has failed */
  constructor(request: FillRequest, context: FillContext, onDone: () => void) {
    this.request = request;
    this.#context = context;
    this.#onDone = onDone;
    // Those who wait for it get the error; a fill that nobody waits for must not end the process.
    this.#opened.promise.catch(() => undefined);
    this.#ended = this.#run();
  }

  /** Resolves when the fill has succeeded or failed and its traces are removed. Never rejects. */
  get ended(): Promise<void> {
    return this.#ended;
  }

  /**
   * Begins to read along as soon as the size is known.
   *
   * @throws {UpstreamError | ContentError} the fetch failed before that
   * @throws {StorageError} the disk refused it
   */
  async follow(): Promise<ContentReader> {
    const ingest = await this.#opened.promise;
    await ingest.sized();
    const { ingestFollowers } = this.#context.metrics;
    const reader = ingest.follow();
    ingestFollowers.inc();
    let closed = false;
    return {
      size: reader.size,
      read: (target, position, end) => reader.read(target, position, end),
      close: async () => {
        if (!closed) ingestFollowers.dec();
        closed = true;
        await reader.close();
      },
    };
  }

  /** It cannot be followed any more, only waited for: its file is being dealt with. */
  get failed(): boolean {
    return this.#failed;
  }

  /** The whole blob is here, only not yet where it belongs. */
  get verified(): boolean {
    return this.#ingest?.verified ?? false;
  }

  /** Where a reader goes on by itself after the disk has failed under the ingest. */
  hashedPrefix(): HashedPrefix | undefined {
    return this.#ingest?.hashedPrefix();
  }

  /** Breaks the fetch off; what has come is kept for the next one. */
  async close(): Promise<void> {
    this.#abort.abort(new Error('the mirror is shutting down'));
    await this.#ended;
  }

  async #run(): Promise<void> {
    const { metrics, space, spool, faults, logger } = this.#context;
    metrics.ingestsInProgress.inc();
    let reservation: Reservation | undefined;
    try {
      reservation = await space.reserve(this.request.expectedSize ?? UNKNOWN_LENGTH_STEP_BYTES);
      const ingest = await spool.open(this.request.digest);
      this.#ingest = ingest;
      this.#opened.resolve(ingest);
      await this.#fill(ingest, reservation);
    } catch (error) {
      const failure = error instanceof Error ? error : new Error(String(error));
      this.#failed = true;
      this.#opened.reject(failure);
      this.#ingest?.abort(failure);
      if (failure instanceof StorageError) faults.report(failure);
      else
        logger.warn(
          {
            requestId: this.request.context.id,
            err: failure,
            upstream: this.request.upstream.name,
            digest: this.request.digest,
          },
          'fetch failed',
        );
      if (failure instanceof ContentError) {
        metrics.contentRejected.inc({ upstream: this.request.upstream.name, reason: failure.code });
      }
      // Wrong bytes are no start for a resumed fetch, and a disk in trouble wants its space back.
      const resumable = !(failure instanceof ContentError || failure instanceof StorageError);
      if (this.#ingest !== undefined) await spool.retire(this.#ingest, { resumable });
    } finally {
      reservation?.[Symbol.dispose]();
      metrics.ingestsInProgress.dec();
      this.#onDone(); // before the file may be closed under a new follower
      await this.#ingest?.end();
    }
  }

  async #fill(ingest: Ingest, reservation: Reservation): Promise<void> {
    const { expectedSize, segments, upstream } = this.request;
    const from = ingest.written;
    if (from > 0) this.#context.metrics.ingestResumes.inc({ upstream: upstream.name });
    const [first, ...rest] = segmentsOf(from, expectedSize, segments);
    const fetch = await this.#startFetch(from, first?.to);
    try {
      if (fetch.size !== undefined) {
        await reservation.grow(fetch.size);
        ingest.setSize(fetch.size);
      }
      // An upstream that ignores ranges has begun to send the whole; then that one reply is taken to its end.
      if (first === undefined || fetch.end === fetch.size)
        await this.#write(ingest, fetch, from, reservation);
      else await this.#fillInSegments(ingest, fetch, first, rest);
    } finally {
      fetch.close();
    }
    await ingest.verify();
    await this.#commit(ingest);
  }

  /** In their order, so that followers get on while the later ones come; several at a time once one has been slow. */
  async #fillInSegments(ingest: Ingest, fetch: BlobFetch, first: Segment, rest: Segment[]): Promise<void> {
    const { spool } = this.#context;
    const { digest } = this.request;
    await spool.noteFrontier(digest, ingest.written);
    const slow = Promise.withResolvers<void>();
    const left = rest.values();
    const lane = async (begun?: BlobFetch) => {
      if (begun !== undefined)
        await this.#watched(first, slow.resolve, this.#write(ingest, begun, first.from));
      for (const segment of left) {
        await this.#watched(segment, slow.resolve, this.#fillSegment(ingest, segment));
        await spool.noteFrontier(digest, ingest.written);
      }
    };
    const alone = lane(fetch);
    alone.then(slow.resolve, slow.reject);
    const others = Array.from({ length: this.request.segments - 1 }, () => slow.promise.then(() => lane()));
    const lanes = [alone, ...others];
    try {
      await Promise.all(lanes);
    } catch (error) {
      this.#abort.abort(error); // one lane's failure is the end of all
      await Promise.allSettled(lanes);
      throw error;
    }
  }

  async #fillSegment(ingest: Ingest, { from, to }: Segment): Promise<void> {
    const fetch = await this.#startFetch(from, to);
    try {
      await this.#write(ingest, fetch, from);
    } finally {
      fetch.close();
    }
  }

  /** Waits for `filled`; calls `onSlow` when that takes longer than it would on a fast connection. */
  async #watched({ from, to }: Segment, onSlow: () => void, filled: Promise<void>): Promise<void> {
    const timer = new AbortController();
    this.#context.clock.sleep((to - from) / FAST_BYTES_PER_MS, timer.signal).then(onSlow, () => undefined); // it was fast
    try {
      await filled;
    } finally {
      timer.abort();
    }
  }

  #startFetch(from: number, to: number | undefined): Promise<BlobFetch> {
    const { upstream, key, digest, expectedSize } = this.request;
    const context = detached(this.request.context, this.#abort.signal);
    const range = to === undefined ? { from } : { from, to };
    const { repository } = key;
    return BlobFetch.start({ context, upstream, repository, digest, expectedSize, ...range }, this.#context);
  }

  /** @param reservation to be watched if the length is not known */
  async #write(ingest: Ingest, fetch: BlobFetch, from: number, reservation?: Reservation): Promise<void> {
    const writer = ingest.writer(from);
    const watched = fetch.size === undefined ? reservation : undefined;
    for await (const chunk of fetch.chunks()) {
      await watched?.grow(ingest.written + UNKNOWN_LENGTH_STEP_BYTES);
      await writer.append(chunk);
    }
  }

  /** The followers have their bytes by now, so a disk that refuses costs only the caching. */
  async #commit(ingest: Ingest): Promise<void> {
    const { cache, spool, faults } = this.#context;
    const { digest, key } = this.request;
    const path = spool.path(digest);
    const size = ingest.written;
    await faults.tolerate(async () => {
      await ingest.sync();
      await cache.commit({ digest, path, sums: ingest.sums() }, [
        { put: 'link', key, digest, value: { size } },
      ]);
    });
    await spool.discard(path); // what a refused commit, or the segments, have left there
  }
}
