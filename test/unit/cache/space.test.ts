import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Evictor, type EvictorSettings } from '../../../src/cache/catalog/evictor.ts';
import { Inventory } from '../../../src/cache/catalog/inventory.ts';
import { LocalCatalog } from '../../../src/cache/catalog/local-catalog.ts';
import { Space } from '../../../src/cache/catalog/space.ts';
import type { ContentOrigin } from '../../../src/cache/index/index-store.ts';
import { LevelIndex } from '../../../src/cache/index/level-index.ts';
import { DiskBudget } from '../../../src/cache/ingest/disk-budget.ts';
import { Spool } from '../../../src/cache/ingest/spool.ts';
import { type FileSystem, nodeFileSystem } from '../../../src/cache/store/file-system.ts';
import { StorageFaults } from '../../../src/cache/store/storage-faults.ts';
import { type Digest, digestOf } from '../../../src/oci/digest.ts';
import { Metrics } from '../../../src/telemetry/metrics.ts';
import { cleanUp } from '../../helpers/cleanup.ts';
import { FakeClock } from '../../helpers/fake-clock.ts';
import { noise } from '../../helpers/images.ts';
import { MemoryStore } from '../../helpers/memory-store.ts';
import { tempDir } from '../../helpers/temp-dir.ts';
import { silentLogger } from '../../helpers/test-transport.ts';

const MIB = 1024 * 1024;
const BLOCK = 4096;
const MOST_REMOVALS = 100;

/** Counts removals, and refuses to go on for ever. */
class CountingCatalog extends LocalCatalog {
  removals = 0;

  override remove(digests: readonly Digest[]): Promise<number> {
    this.removals += 1;
    assert.ok(this.removals <= MOST_REMOVALS, 'an eviction without end');
    return super.remove(digests);
  }
}

interface Options extends Partial<EvictorSettings> {
  lowWatermark?: number;
  keepFree?: number;
  statfs?: () => Promise<{ bavail: number; bsize: number }>;
}

/** Space for 10 MiB. */
async function setUp(t: TestContext, options: Options = {}) {
  const directory = await tempDir(t);
  const index = await LevelIndex.open(join(directory, 'index'));
  cleanUp(t, () => index.close());
  const metrics = new Metrics({ version: 'test', processMetrics: false });
  const [clock, logger] = [new FakeClock(), silentLogger()];
  const faults = new StorageFaults({ metrics, logger, clock });
  const store = new MemoryStore();
  const catalog = new CountingCatalog({ store, index, inventory: new Inventory(metrics), faults, clock });
  const evictor = new Evictor(
    { evictImported: false, evicts: () => true, ...options },
    { catalog, pins: { content: async () => new Set() }, metrics, clock },
  );
  const roomy = async () => ({ bavail: 2 ** 30, bsize: BLOCK });
  const fileSystem: FileSystem = { ...nodeFileSystem, statfs: (options.statfs ?? roomy) as never };
  const spool = new Spool(directory, fileSystem);
  await spool.sweep();
  const disk = new DiskBudget({ directory, keepFree: options.keepFree ?? 0 }, { fileSystem, faults });
  const space = new Space(
    { maxBytes: 10 * MIB, lowWatermark: options.lowWatermark ?? 0.5 },
    { catalog, disk, evictor, spool, faults, logger },
  );
  const add = async (name: string, mib: number, origin?: Exclude<ContentOrigin, 'mirrored'>) => {
    const digest = digestOf(Buffer.from(name));
    const size = mib * MIB;
    const record = { size, allocated: size, usedAt: 1, ...(origin === undefined ? {} : { origin }) };
    await catalog.add(digest, record, []);
    return digest;
  };
  const isHere = async (digest: Digest) => (await catalog.get(digest)) !== undefined;
  return { directory, catalog, spool, space, add, isHere };
}

test('a reservation takes whole blocks, grows when more is needed, and is given back once', async (t) => {
  const { space } = await setUp(t);
  const other = await space.reserve(BLOCK);
  const reservation = await space.reserve(1);
  assert.equal(space.used, 2 * BLOCK);
  await reservation.grow(BLOCK + 1);
  assert.equal(space.used, 3 * BLOCK);
  await reservation.grow(BLOCK);
  assert.equal(space.used, 3 * BLOCK, 'it does not shrink');
  reservation[Symbol.dispose]();
  assert.equal(space.used, BLOCK);
  reservation[Symbol.dispose]();
  assert.equal(space.used, BLOCK, 'not what others have reserved');
  other[Symbol.dispose]();
  assert.equal(space.used, 0);
});

test('what is held is not evicted, though it was used first', async (t) => {
  const { catalog, space, add, isHere } = await setUp(t);
  const held = await add('held', 4);
  const loose = await add('loose', 4);
  const release = catalog.hold(held);
  await space.reserve(3 * MIB);
  assert.deepEqual([await isHere(held), await isHere(loose)], [true, false]);
  release();
  await space.reserve(5 * MIB);
  assert.equal(await isHere(held), false, 'it may go when nobody holds it');
});

for (const evictImported of [false, true]) {
  test(`imported and pushed content ${evictImported ? 'may go where the configuration says so' : 'stays'}`, async (t) => {
    const { space, add, isHere } = await setUp(t, { evictImported });
    const imported = await add('imported', 2, 'imported');
    const pushed = await add('pushed', 2, 'pushed');
    const mirrored = await add('mirrored', 4);
    const before = await space.reserve(3 * MIB);
    assert.deepEqual(
      [await isHere(imported), await isHere(pushed), await isHere(mirrored)],
      evictImported ? [false, false, false] : [true, true, false],
    );
    before[Symbol.dispose]();
  });
}

test('no more is evicted than the low watermark asks for, the least recently used first', async (t) => {
  const { catalog, space, add, isHere } = await setUp(t);
  const digests: Digest[] = [];
  for (let at = 0; at < 10; at += 1) digests.push(await add(String(at), 1));
  await space.reserve(MIB); // 11 MiB are above the hard limit: 4 MiB stay beside it
  assert.equal(catalog.bytes, 4 * MIB);
  const here = await Promise.all(digests.map(isHere));
  assert.deepEqual(here.indexOf(true), 6);
});

test('above maxSize eviction goes on in the background, down to the low watermark', async (t) => {
  const { catalog, space, add } = await setUp(t);
  for (let at = 0; at < 9; at += 1) await add(String(at), 1);
  await space.reserve(MIB + BLOCK); // within the hard limit: it need not wait
  await space.close();
  assert.equal(catalog.bytes, 3 * MIB);
});

test('an eviction ends when nothing may go any more, and says what would help', async (t) => {
  const { catalog, space, add, isHere } = await setUp(t);
  const held = await add('held', 9);
  catalog.hold(held);
  await assert.rejects(space.reserve(2 * MIB), {
    errno: 'ENOSPC',
    message: /raise cache\.maxSize, pin less/,
  });
  assert.equal(await isHere(held), true);
  assert.equal(catalog.removals, 0);
  assert.equal(space.used, 9 * MIB, 'what was refused is not reserved');
});

test('a sealed mirror evicts nothing: it refuses to store more', async (t) => {
  const { space, add, isHere } = await setUp(t, { evicts: () => false });
  const digest = await add('content', 9);
  await assert.rejects(space.reserve(2 * MIB), { errno: 'ENOSPC' });
  assert.ok(await isHere(digest));
});

test('nothing is evicted for what can never fit', async (t) => {
  const { space, add, isHere } = await setUp(t);
  const digest = await add('content', 5);
  await assert.rejects(space.reserve(11 * MIB), { errno: 'ENOSPC' });
  assert.ok(await isHere(digest));
});

test('partial blobs count, and go before any content does', async (t) => {
  const { directory, catalog, spool, space, add } = await setUp(t, { lowWatermark: 0.8 });
  for (let at = 0; at < 5; at += 1) await add(String(at), 1);
  const name = `${digestOf(Buffer.from('partial')).replace(':', '-')}.0123456789abcdef`;
  await writeFile(join(directory, 'ingest', name), noise(4 * MIB, 'partial'));
  await spool.sweep();
  assert.equal(space.used, 9 * MIB);
  await space.reserve(2 * MIB);
  assert.deepEqual([spool.partialBytes, catalog.bytes], [0, 5 * MIB]);
});

test('keepFree is left to others', async (t) => {
  const statfs = async () => ({ bavail: 256, bsize: BLOCK }); // 1 MiB
  const { space } = await setUp(t, { keepFree: MIB / 2, statfs });
  await assert.rejects(space.reserve(MIB), { errno: 'ENOSPC' });
  await space.reserve(MIB / 2);
});

test('a disk that cannot be asked how full it is sets no limit', async (t) => {
  const statfs = async () => {
    throw Object.assign(new Error('no such call'), { code: 'ENOSYS' });
  };
  const { space } = await setUp(t, { statfs });
  await space.reserve(MIB);
  assert.equal(space.used, MIB);
});
