/** Opens the cache directory: the content, its index, and the space for more. */
import type { Catalog } from '../cache/catalog/catalog.ts';
import { ContentCache } from '../cache/catalog/content-cache.ts';
import { Evictor } from '../cache/catalog/evictor.ts';
import { Inventory } from '../cache/catalog/inventory.ts';
import { LocalCatalog } from '../cache/catalog/local-catalog.ts';
import { Pins } from '../cache/catalog/pins.ts';
import { openCacheDirectory } from '../cache/catalog/recovery.ts';
import { Scrubber } from '../cache/catalog/scrub.ts';
import { Space } from '../cache/catalog/space.ts';
import type { IndexStore } from '../cache/index/index-store.ts';
import { DiskBudget } from '../cache/ingest/disk-budget.ts';
import { Spool } from '../cache/ingest/spool.ts';
import { groupNumber } from '../cache/store/file-modes.ts';
import type { FileSystem } from '../cache/store/file-system.ts';
import { FsStore } from '../cache/store/fs-store.ts';
import { StorageFaults } from '../cache/store/storage-faults.ts';
import type { Clock } from '../clock.ts';
import type { Config } from '../config/schema.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';

/** A crash loses the order of the uses in the last milliseconds, this many at most. */
const FLUSH_INTERVAL_MS = 10_000;

/** Records; see {@link StorageOptions.collectGarbage}. */
const GARBAGE_WORTH_COLLECTING = 50_000;

export interface StorageOptions {
  config: Config['cache'];
  fileSystem: FileSystem;
  metrics: Metrics;
  logger: Logger;
  clock: Clock;
  /** Called once after a large index was read: that leaves more garbage than the records need memory. */
  collectGarbage: () => void;
  /** Nothing is evicted while the mirror is sealed. */
  sealed: () => boolean;
  /** Lets the index know what a fleet knows. Absent: the mirror is alone. */
  shareIndex?: ((own: IndexStore) => IndexStore) | undefined;
}

export interface Storage extends AsyncDisposable {
  catalog: Catalog;
  cache: ContentCache;
  index: IndexStore;
  space: Space;
  pins: Pins;
  spool: Spool;
  faults: StorageFaults;
  scrubber: Scrubber;
  /** See {@link CacheDirectory.manifestsWithoutOwner}. */
  manifestsWithoutOwner: boolean;
}

/** Opens the cache directory. Dispose of the result last. @throws {StorageError} @throws {CacheGroupError} */
export async function openStorage(options: StorageOptions): Promise<Storage> {
  const { config, fileSystem, metrics, logger, clock, sealed } = options;
  const { directory, maxSize, lowWatermark, keepFree, pin, scrubInterval, imported } = config;
  await using stack = new AsyncDisposableStack();
  const faults = new StorageFaults({ metrics, logger, clock });
  const group = config.group === null ? undefined : await groupNumber(config.group, fileSystem);
  const store = new FsStore(directory, fileSystem, group);
  const surroundings = { store, fileSystem, logger, clock, group };
  const opened = await openCacheDirectory(directory, surroundings);
  const { contents, manifestsWithoutOwner, close } = opened;
  stack.defer(close);
  const index = options.shareIndex?.(opened.index) ?? opened.index;
  const inventory = new Inventory(metrics);
  inventory.load(contents);
  if (inventory.objects >= GARBAGE_WORTH_COLLECTING) options.collectGarbage();

  const catalog = new LocalCatalog({ store, index, inventory, faults, clock });
  stack.defer(() => catalog.flush());
  stack.use(clock.every(FLUSH_INTERVAL_MS, () => void catalog.flush()));
  const cache = new ContentCache({ store, index, catalog, faults, logger, clock });

  const spool = new Spool(directory, fileSystem);
  await faults.tolerate(() => spool.sweep());
  const maxBytes =
    typeof maxSize === 'number' ? maxSize : await shareOf(directory, maxSize.share, fileSystem);
  metrics.storeCapacity.set(maxBytes);
  metrics.diskKeepFree.set(keepFree);
  const disk = new DiskBudget({ directory, keepFree }, { fileSystem, faults });
  const pins = await Pins.open(directory, pin, { catalog, index: opened.index, fileSystem });
  const evictor = new Evictor(
    { evictImported: imported === 'evict', evicts: () => !sealed() },
    { catalog, pins, metrics, clock },
  );
  const space = new Space({ maxBytes, lowWatermark }, { catalog, disk, evictor, spool, faults, logger });
  stack.defer(() => space.close());

  const scrubber = new Scrubber({ cache, store, catalog, clock, logger });
  stack.defer(() => scrubber.close());
  if (scrubInterval !== null) stack.use(clock.every(scrubInterval, () => scrubber.runInBackground()));

  const open = stack.move();
  return {
    ...{ catalog, cache, index, space, pins, spool, faults, scrubber, manifestsWithoutOwner },
    [Symbol.asyncDispose]: () => open.disposeAsync(),
  };
}

async function shareOf(directory: string, share: number, fileSystem: FileSystem): Promise<number> {
  const { blocks, bsize } = await fileSystem.statfs(directory);
  return Math.floor(blocks * bsize * share);
}
