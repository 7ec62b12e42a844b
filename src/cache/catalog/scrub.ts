/** Reads and hashes all that is stored, and looks for files without a record. */
import type { Clock } from '../../clock.ts';
import type { Digest } from '../../oci/digest.ts';
import type { Logger } from '../../telemetry/log.ts';
import type { ContentStore } from '../store/content-store.ts';
import type { ContentCache } from './content-cache.ts';
import type { LocalCatalog } from './local-catalog.ts';
import { recordOf } from './recovery.ts';

/** Leaves more than half of a disk of 150 MiB/s to pulls. That is the slowest disk that is still sold. */
const BYTES_PER_SECOND = 64 * 1024 * 1024;
const PROGRESS_EVERY_OBJECTS = 1000;

interface ScrubTotals {
  /** Objects that were read so far, and their bytes. */
  objects: number;
  bytes: number;
  /** Objects that were damaged or lost. All were removed. */
  damaged: number;
  /** Files that had no record, and have one now. */
  adopted: number;
}

export type ScrubEvent =
  | ({ event: 'progress'; totalObjects: number; totalBytes: number } & ScrubTotals)
  | { event: 'damaged'; digest: Digest }
  | ({ event: 'done' } & ScrubTotals);

interface ScrubContext {
  cache: ContentCache;
  store: ContentStore;
  catalog: LocalCatalog;
  clock: Clock;
}

/** Runs one scrub at a time, for an operator who waits for it or on schedule. */
export class Scrubber {
  readonly #context: ScrubContext & { logger: Logger };
  #abort: AbortController | undefined;
  #background: Promise<void> = Promise.resolve();

  constructor(context: ScrubContext & { logger: Logger }) {
    this.#context = context;
  }

  /** @returns the events of a new scrub, which runs only while they are read; undefined while another one runs */
  begin(signal: AbortSignal): AsyncGenerator<ScrubEvent> | undefined {
    if (this.#abort !== undefined) return undefined;
    this.#abort = new AbortController();
    return this.#run(AbortSignal.any([signal, this.#abort.signal]));
  }

  /** Does nothing while one is running. */
  runInBackground(): void {
    const events = this.begin(new AbortController().signal);
    if (events === undefined) return;
    this.#background = this.#drain(events);
  }

  /** Stops a running scrub. Idempotent. */
  async close(): Promise<void> {
    this.#abort?.abort(new Error('the mirror is shutting down'));
    await this.#background;
  }

  async *#run(signal: AbortSignal): AsyncGenerator<ScrubEvent> {
    try {
      for await (const event of scrub(this.#context, signal)) {
        if (event.event === 'done') this.#context.logger.info(event, 'scrubbed');
        yield event;
      }
    } finally {
      this.#abort = undefined;
    }
  }

  async #drain(events: AsyncIterable<ScrubEvent>): Promise<void> {
    try {
      for await (const _event of events);
    } catch (error) {
      this.#context.logger.warn({ err: error }, 'scrub stopped early');
    }
  }
}

/**
 * Reads all content that is stored now. It is not evicted while it is read. Later content was hashed when it came.
 *
 * @throws {StorageError}
 */
async function* scrub(context: ScrubContext, signal: AbortSignal): AsyncGenerator<ScrubEvent> {
  const { cache, store, catalog, clock } = context;
  const known = [...catalog.oldestFirst()].map(([digest, { size }]) => ({ digest, size }));
  const totalBytes = known.reduce((sum, { size }) => sum + size, 0);
  const totals: ScrubTotals = { objects: 0, bytes: 0, damaged: 0, adopted: 0 };
  const progress = (): ScrubEvent => {
    return { event: 'progress', ...totals, totalObjects: known.length, totalBytes };
  };
  yield progress();
  let told = 0;
  for (const { digest } of known) {
    if ((await catalog.get(digest)) === undefined) continue; // evicted meanwhile
    const whole = await cache.verify(digest, async (bytes) => {
      totals.bytes += bytes;
      await clock.sleep((bytes / BYTES_PER_SECOND) * 1000, signal);
    });
    totals.objects += 1;
    if (!whole) {
      totals.damaged += 1;
      yield { event: 'damaged', digest };
    }
    if (totals.bytes - told < BYTES_PER_SECOND && totals.objects % PROGRESS_EVERY_OBJECTS !== 0) continue;
    told = totals.bytes;
    yield progress();
  }
  for await (const digest of store.list()) {
    signal.throwIfAborted();
    if ((await catalog.get(digest)) !== undefined || catalog.isHeld(digest)) continue; // known, or being committed
    const record = await recordOf(store, digest);
    if (record === undefined) continue;
    await cache.adopt(digest, record);
    totals.adopted += 1;
  }
  yield { event: 'done', ...totals };
}
