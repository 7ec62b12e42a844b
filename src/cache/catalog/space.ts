/**
 * Reserves space for content before its first byte comes. Eviction makes room for it.
 *
 * There are two budgets: one for stored content (`maxBytes`) and one for the disk, which others use too. Eviction
 * begins above either of them and goes on in the background down to the low watermark. A little above `maxBytes`, or
 * when the disk would run full, nothing is stored until eviction has made room. Pulls then go on uncached.
 */
import type { Logger } from '../../telemetry/log.ts';
import type { DiskBudget } from '../ingest/disk-budget.ts';
import type { Spool } from '../ingest/spool.ts';
import { StorageError } from '../store/errors.ts';
import type { StorageFaults } from '../store/storage-faults.ts';
import type { Evictor } from './evictor.ts';
import type { LocalCatalog } from './local-catalog.ts';

/** A file takes whole blocks. */
const BLOCK_BYTES = 4096;
const HARD_LIMIT_SHARE = 1.05;

export interface SpaceSettings {
  /** The budget of the stored content. */
  maxBytes: number;
  /** A share of `maxBytes`. */
  lowWatermark: number;
}

export interface SpaceContext {
  catalog: LocalCatalog;
  disk: DiskBudget;
  evictor: Evictor;
  spool: Spool;
  faults: StorageFaults;
  logger: Logger;
}

/**
 * Space for content that is on its way. Dispose of it when the content is stored, because that then counts by itself.
 */
export interface Reservation extends Disposable {
  /** Reserves up to `bytes` in all. @throws {StorageError} there is no room */
  grow(bytes: number): Promise<void>;
}

export class Space {
  readonly #settings: SpaceSettings;
  readonly #context: SpaceContext;
  #reserved = 0;
  /** Runs one eviction after another. Never rejects. */
  #evicting: Promise<void> = Promise.resolve();

  constructor(settings: SpaceSettings, context: SpaceContext) {
    this.#settings = settings;
    this.#context = context;
  }

  /** The budget of the stored content. */
  get maxBytes(): number {
    return this.#settings.maxBytes;
  }

  /** Bytes that are stored or reserved. */
  get used(): number {
    return this.#stored + this.#reserved;
  }

  /** @throws {StorageError} there is no room, and none can be made */
  async reserve(bytes: number): Promise<Reservation> {
    let taken = await this.#take(bytes);
    return {
      grow: async (wanted) => {
        if (wanted > taken) taken += await this.#take(wanted - taken);
      },
      [Symbol.dispose]: () => {
        this.#reserved -= taken;
        taken = 0;
      },
    };
  }

  /** Waits for a running eviction. Idempotent. */
  async close(): Promise<void> {
    await this.#evicting;
  }

  get #stored(): number {
    return this.#context.catalog.bytes + this.#context.spool.partialBytes;
  }

  async #take(wanted: number): Promise<number> {
    const bytes = Math.ceil(wanted / BLOCK_BYTES) * BLOCK_BYTES;
    let { hard } = await this.#limits();
    // Evicts nothing for content that is larger than the whole limit.
    if (this.used + bytes > hard && bytes <= hard) {
      await this.#evict(bytes);
      ({ hard } = await this.#limits());
    }
    if (this.used + bytes > hard) throw noRoom(bytes, hard);
    this.#reserved += bytes;
    if (this.used > this.#settings.maxBytes) void this.#evict(0);
    return bytes;
  }

  /** Eviction begins above `soft`, and nothing is stored above `hard`. The smaller budget counts. */
  async #limits(): Promise<{ soft: number; hard: number }> {
    const { maxBytes } = this.#settings;
    const onDisk = Math.max(0, this.#stored + (await this.#context.disk.left()));
    return { soft: Math.min(maxBytes, onDisk), hard: Math.min(maxBytes * HARD_LIMIT_SHARE, onDisk) };
  }

  #evict(wanted: number): Promise<void> {
    this.#evicting = this.#evicting.then(async () => {
      await this.#context.faults.tolerate(() => this.#makeRoom(wanted));
    });
    return this.#evicting;
  }

  async #makeRoom(wanted: number): Promise<void> {
    const { evictor, spool, logger } = this.#context;
    const { soft } = await this.#limits();
    if (!evictor.evicts || this.used + wanted <= soft) return;
    const goal = Math.max(0, soft * this.#settings.lowWatermark - wanted);
    await spool.discardPartials(); // nobody waits for them, and they can be fetched again
    const { objects, bytes } = await evictor.evict(() => this.used - goal);
    if (objects > 0) logger.info({ objects, bytes, used: this.used }, 'evicted');
  }
}

function noRoom(bytes: number, hard: number): StorageError {
  const cause = Object.assign(new Error('no room'), { code: 'ENOSPC' });
  const why = `${bytes} more bytes would pass the limit of ${hard}`;
  const advice = 'raise cache.maxSize, pin less, remove imported images, or free disk space';
  return new StorageError('reserve', cause, `: ${why}: ${advice}`);
}
