/** Reads and hashes all that is stored, and looks for content that nobody knows. */
import type { Clock } from '../../clock.ts';
import type { Digest } from '../../oci/digest.ts';
import type { Logger } from '../../telemetry/log.ts';
import type { ContentStore } from '../store/content-store.ts';
import type { ContentCache } from './content-cache.ts';
import type { Inventory } from './inventory.ts';
import { recordOf } from './recovery.ts';

/** Hits come first: a disk of 150 MiB/s, the slowest that is still sold, has more than half left for them. */
const BYTES_PER_SECOND = 64 * 1024 * 1024;
const PROGRESS_EVERY_OBJECTS = 1000;

interface ScrubTotals {
  /** Objects that were read so far, and their bytes. */
  objects: number;
  bytes: number;
  /** Not what their digest says, or lost; all forgotten. */
  damaged: number;
  /** In the store without a record, and taken up. */
  adopted: number;
}

export type ScrubEvent =
  | ({ event: 'progress'; totalObjects: number; totalBytes: number } & ScrubTotals)
  | { event: 'damaged'; digest: Digest }
  | ({ event: 'done' } & ScrubTotals);

interface ScrubContext {
  cache: ContentCache;
  store: ContentStore;
  inventory: Inventory;
  clock: Clock;
}

/** The one scrub that may run at a time: for somebody who waits for it, or by itself. */
export class Scrubbing {
  readonly #context: ScrubContext & { logger: Logger };
  #abort: AbortController | undefined;
  #background: Promise<void> = Promise.resolve();

  constructor(context: ScrubContext & { logger: Logger }) {
    this.#context = context;
  }

  /** @returns undefined if one is running; else its events, which drive it */
  begin(signal: AbortSignal): AsyncGenerator<ScrubEvent> | undefined {
    if (this.#abort !== undefined) return undefined;
    this.#abort = new AbortController();
    return this.#run(AbortSignal.any([signal, this.#abort.signal]));
  }

  /** Nothing happens if one is running. */
  runInBackground(): void {
    const events = this.begin(new AbortController().signal);
    if (events === undefined) return;
    this.#background = this.#drain(events);
  }

  /** Breaks one off that runs. Idempotent. */
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
      this.#context.logger.warn({ err: error }, 'scrub broken off');
    }
  }
}

/** What is read is not evicted meanwhile; what comes meanwhile was hashed when it came. @throws {StorageError} */
async function* scrub(context: ScrubContext, signal: AbortSignal): AsyncGenerator<ScrubEvent> {
  const { cache, store, inventory, clock } = context;
  const known = [...inventory.oldestFirst()].map(([digest, { size }]) => ({ digest, size }));
  const totalBytes = known.reduce((sum, { size }) => sum + size, 0);
  const totals: ScrubTotals = { objects: 0, bytes: 0, damaged: 0, adopted: 0 };
  const progress = (): ScrubEvent => {
    return { event: 'progress', ...totals, totalObjects: known.length, totalBytes };
  };
  yield progress();
  let told = 0;
  for (const { digest } of known) {
    if (cache.get(digest) === undefined) continue; // evicted meanwhile
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
    if (cache.get(digest) !== undefined || cache.isHeld(digest)) continue; // known, or being committed
    const record = await recordOf(store, digest);
    if (record === undefined) continue;
    await cache.adopt(digest, record);
    totals.adopted += 1;
  }
  yield { event: 'done', ...totals };
}
