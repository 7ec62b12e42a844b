/**
 * Who may store how much: space is reserved before the first byte comes, and eviction makes room for it.
 *
 * Eviction begins above `maxBytes` and goes on in the background down to the low watermark. A little above `maxBytes`,
 * or when the disk that others share would run full, nothing is stored until it has made room: pulls go on uncached.
 */
import type { Digest } from '../../oci/digest.ts';
import type { Logger } from '../../telemetry/log.ts';
import type { Metrics } from '../../telemetry/metrics.ts';
import type { IndexStore } from '../index/index-store.ts';
import type { Spool } from '../ingest/spool.ts';
import { StorageError } from '../store/errors.ts';
import type { FileSystem } from '../store/file-system.ts';
import type { StorageFaults } from '../store/storage-faults.ts';
import type { ContentCache } from './content-cache.ts';
import type { Inventory } from './inventory.ts';

/** A file takes whole blocks, and nothing is known of them before it is there. */
const BLOCK_BYTES = 4096;
const HARD_LIMIT_SHARE = 1.05;
const VICTIMS_AT_A_TIME = 256;

export interface SpaceSettings {
  /** Where the content lies. */
  directory: string;
  maxBytes: number;
  /** A share of `maxBytes`. */
  lowWatermark: number;
  /** Bytes of its file system that are left to others. */
  keepFree: number;
  /** Images by name, `upstream/repository:tag`, that are never evicted. */
  pin: readonly RegExp[];
  /** While a mirror is sealed nothing is: what goes could not be had again. */
  evicts: () => boolean;
}

export interface SpaceContext {
  cache: ContentCache;
  inventory: Inventory;
  index: IndexStore;
  spool: Spool;
  fileSystem: FileSystem;
  metrics: Metrics;
  faults: StorageFaults;
  logger: Logger;
}

/** Space that somebody is filling; what is stored in it counts by itself from then on. */
export interface Reservation extends Disposable {
  /** Takes more when it turns out to be needed. @throws {StorageError} there is no room */
  grow(bytes: number): Promise<void>;
}

export class Space {
  readonly #settings: SpaceSettings;
  readonly #context: SpaceContext;
  #reserved = 0;
  /** One eviction after the other. Never rejects. */
  #evicting: Promise<void> = Promise.resolve();

  constructor(settings: SpaceSettings, context: SpaceContext) {
    this.#settings = settings;
    this.#context = context;
  }

  /** Bytes that are taken or spoken for. */
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

  /** Waits for an eviction under way. Idempotent. */
  async close(): Promise<void> {
    await this.#evicting;
  }

  get #stored(): number {
    return this.#context.cache.bytes + this.#context.spool.partialBytes;
  }

  async #take(wanted: number): Promise<number> {
    const bytes = Math.ceil(wanted / BLOCK_BYTES) * BLOCK_BYTES;
    let { hard } = await this.#limits();
    // What could not have all of the room anyway is refused before anything is evicted for it.
    if (this.used + bytes > hard && bytes <= hard) {
      await this.#evict(bytes);
      ({ hard } = await this.#limits());
    }
    if (this.used + bytes > hard) throw noRoom(bytes, hard);
    this.#reserved += bytes;
    if (this.used > this.#settings.maxBytes) void this.#evict(0);
    return bytes;
  }

  /** Above `soft` there is eviction, above `hard` nothing is stored. */
  async #limits(): Promise<{ soft: number; hard: number }> {
    const { maxBytes, keepFree, directory } = this.#settings;
    let forUs = Number.POSITIVE_INFINITY;
    try {
      const { bavail, bsize } = await this.#context.fileSystem.statfs(directory);
      forUs = Math.max(0, this.#stored + bavail * bsize - keepFree);
    } catch (error) {
      this.#context.faults.report(new StorageError('statfs', error));
    }
    return { soft: Math.min(maxBytes, forUs), hard: Math.min(maxBytes * HARD_LIMIT_SHARE, forUs) };
  }

  #evict(wanted: number): Promise<void> {
    this.#evicting = this.#evicting.then(async () => {
      await this.#context.faults.tolerate(() => this.#makeRoom(wanted));
    });
    return this.#evicting;
  }

  async #makeRoom(wanted: number): Promise<void> {
    const { cache, inventory, spool, metrics, logger } = this.#context;
    const { soft } = await this.#limits();
    if (!this.#settings.evicts() || this.used + wanted <= soft) return;
    const goal = Math.max(0, soft * this.#settings.lowWatermark - wanted);
    await spool.discardPartials(); // nobody waits for them, and they can be had again
    const pinned = await this.#pinned();
    let objects = 0;
    let bytes = 0;
    while (this.used > goal) {
      const victims: Digest[] = [];
      let excess = this.used - goal;
      for (const [digest, { allocated }] of inventory.oldestFirst()) {
        if (excess <= 0 || victims.length === VICTIMS_AT_A_TIME) break;
        if (cache.isHeld(digest) || pinned.has(digest)) continue;
        victims.push(digest);
        excess -= allocated;
      }
      if (victims.length === 0) break;
      const freed = await cache.remove(victims);
      objects += victims.length;
      bytes += freed;
      metrics.evictions.inc(victims.length);
      metrics.evictedBytes.inc(freed);
    }
    if (objects > 0) logger.info({ objects, bytes, used: this.used }, 'evicted');
  }

  /** What the pinned images need; looked up anew each time, for tags move. */
  async #pinned(): Promise<ReadonlySet<Digest>> {
    const { inventory, index } = this.#context;
    const pinned = new Set<Digest>();
    if (this.#settings.pin.length === 0) return pinned;
    for await (const [{ upstream, repository, tag }, { digest }] of index.tags()) {
      const name = `${upstream}/${repository}:${tag}`;
      if (!this.#settings.pin.some((pattern) => pattern.test(name))) continue;
      for (const needed of inventory.closure(digest)) pinned.add(needed);
    }
    return pinned;
  }
}

function noRoom(bytes: number, hard: number): StorageError {
  const cause = Object.assign(new Error('no room'), { code: 'ENOSPC' });
  const why = `${bytes} more bytes would pass the limit of ${hard}: raise cache.maxSize, pin less, or free disk space`;
  return new StorageError('reserve', cause, `: ${why}`);
}
