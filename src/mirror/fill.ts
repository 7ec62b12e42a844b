/**
 * The one fetch of a cold blob: from upstream into an ingest, verified, then committed.
 *
 * It belongs to no request: clients come and go, it runs to its end.
 */
import type { ContentReader, ContentStore } from '../cache/content-store.ts';
import { ContentError, StorageError } from '../cache/errors.ts';
import type { IndexStore, RepositoryKey } from '../cache/index-store.ts';
import type { HashedPrefix, Ingest } from '../cache/ingest.ts';
import type { Inventory } from '../cache/inventory.ts';
import type { Spool } from '../cache/spool.ts';
import type { StorageFaults } from '../cache/storage-faults.ts';
import type { Clock } from '../clock.ts';
import type { Digest } from '../oci/digest.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import type { Upstream } from '../upstream/client.ts';
import { BlobFetch } from './blob-fetch.ts';

export interface FillContext {
  store: ContentStore;
  index: IndexStore;
  inventory: Inventory;
  spool: Spool;
  faults: StorageFaults;
  metrics: Metrics;
  logger: Logger;
  clock: Clock;
}

export interface FillRequest {
  upstream: Upstream;
  key: RepositoryKey;
  digest: Digest;
  /** Bytes, where a manifest says so. */
  expectedSize: number | undefined;
}

export class Fill {
  readonly request: FillRequest;
  readonly #context: FillContext;
  readonly #onDone: () => void;
  readonly #abort = new AbortController();
  readonly #opened = Promise.withResolvers<Ingest>();
  readonly #ended: Promise<void>;
  #ingest: Ingest | undefined;

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
    const { metrics, spool, faults, logger } = this.#context;
    metrics.ingestsInProgress.inc();
    try {
      const ingest = await spool.open(this.request.digest);
      this.#ingest = ingest;
      this.#opened.resolve(ingest);
      await this.#fill(ingest);
    } catch (error) {
      const failure = error instanceof Error ? error : new Error(String(error));
      this.#opened.reject(failure);
      this.#ingest?.abort(failure);
      if (failure instanceof StorageError) faults.report(failure);
      else
        logger.warn(
          { err: failure, upstream: this.request.upstream.name, digest: this.request.digest },
          'fetch failed',
        );
      if (failure instanceof ContentError) {
        metrics.contentRejected.inc({ upstream: this.request.upstream.name, reason: failure.code });
      }
      // Wrong bytes are no start for a resumed fetch, and a disk in trouble wants its space back.
      const resumable = !(failure instanceof ContentError || failure instanceof StorageError);
      if (this.#ingest !== undefined) await spool.retire(this.#ingest, { resumable });
    } finally {
      metrics.ingestsInProgress.dec();
      this.#onDone(); // before the file may be closed under a new follower
      await this.#ingest?.end();
    }
  }

  async #fill(ingest: Ingest): Promise<void> {
    const { upstream, key, digest, expectedSize } = this.request;
    const fetch = await BlobFetch.start(
      {
        upstream,
        repository: key.repository,
        digest,
        expectedSize,
        from: ingest.received,
        signal: this.#abort.signal,
      },
      this.#context,
    );
    try {
      if (fetch.size !== undefined) ingest.setSize(fetch.size);
      for await (const chunk of fetch.chunks()) await ingest.append(chunk);
    } finally {
      fetch.close();
    }
    await ingest.verify();
    await this.#commit(ingest);
  }

  /** The followers have their bytes by now, so a disk that refuses costs only the caching. */
  async #commit(ingest: Ingest): Promise<void> {
    const { store, index, inventory, spool, faults } = this.#context;
    const { digest, key } = this.request;
    const path = spool.path(digest);
    const committed = await faults.tolerate(async () => {
      await ingest.sync();
      await store.commit(digest, path);
      return true;
    });
    if (committed === undefined) return spool.discard(path);
    // Content first, record second: a record without content would promise what is not there.
    const size = ingest.received;
    inventory.add(digest, size);
    await faults.tolerate(() =>
      index.write([
        { put: 'content', digest, value: { size } },
        { put: 'link', key, digest, value: { size } },
      ]),
    );
  }
}
