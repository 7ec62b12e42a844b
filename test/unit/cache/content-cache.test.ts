import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { ContentCache } from '../../../src/cache/catalog/content-cache.ts';
import { Inventory } from '../../../src/cache/catalog/inventory.ts';
import { LocalCatalog } from '../../../src/cache/catalog/local-catalog.ts';
import { LevelIndex } from '../../../src/cache/index/level-index.ts';
import { BlockSums } from '../../../src/cache/store/block-sums.ts';
import type { StoredReader } from '../../../src/cache/store/content-store.ts';
import { StorageFaults } from '../../../src/cache/store/storage-faults.ts';
import { type Digest, digestOf } from '../../../src/oci/digest.ts';
import { Metrics } from '../../../src/telemetry/metrics.ts';
import { cleanUp } from '../../helpers/cleanup.ts';
import { FakeClock } from '../../helpers/fake-clock.ts';
import { MemoryStore } from '../../helpers/memory-store.ts';
import { tempDir } from '../../helpers/temp-dir.ts';
import { silentLogger } from '../../helpers/test-transport.ts';

const BYTES = Buffer.from('content');
const DIGEST = digestOf(BYTES);

/** A store that takes its time to delete, tells when it commits, and rots on command. */
class SlowStore extends MemoryStore {
  gate = Promise.resolve();
  onCommit = (): void => undefined;
  #opened = (reader: StoredReader): StoredReader => reader;

  /** Flips a bit of what is stored. */
  rot(): void {
    this.#opened = (reader) => ({
      ...reader,
      read: async (target, position, end) => {
        const length = await reader.read(target, position, end);
        target[0] = (target[0] ?? 0) ^ 1;
        return length;
      },
    });
  }

  override async open(digest: Digest): Promise<StoredReader | undefined> {
    const reader = await super.open(digest);
    return reader && this.#opened(reader);
  }

  override commit(digest: Digest, path: string) {
    this.onCommit();
    return super.commit(digest, path);
  }

  override async delete(digest: Digest): Promise<void> {
    await this.gate;
    await super.delete(digest);
  }
}

/** Tells when somebody waits for a removal. */
class WatchedCatalog extends LocalCatalog {
  onWait = (): void => undefined;

  override settled(digest: Digest): Promise<void> {
    this.onWait();
    return super.settled(digest);
  }
}

async function setUp(t: TestContext) {
  const directory = await tempDir(t);
  const index = await LevelIndex.open(join(directory, 'index'));
  cleanUp(t, () => index.close());
  const metrics = new Metrics({ version: 'test', processMetrics: false });
  const [clock, logger, store] = [new FakeClock(), silentLogger(), new SlowStore()];
  const faults = new StorageFaults({ metrics, logger, clock });
  const catalog = new WatchedCatalog({ store, index, inventory: new Inventory(metrics), faults, clock });
  const cache = new ContentCache({ store, index, catalog, faults, logger, clock });
  const commit = async () => {
    const path = join(directory, 'verified');
    await writeFile(path, BYTES);
    await cache.commit({ digest: DIGEST, path }, []);
  };
  return { store, index, catalog, cache, commit };
}

test('content that comes back while it is being removed is here afterwards, file and record', async (t) => {
  const { store, index, catalog, cache, commit } = await setUp(t);
  await commit();
  const gate = Promise.withResolvers<void>();
  store.gate = gate.promise;
  const removed = catalog.remove([DIGEST]);
  const come = Promise.withResolvers<string>();
  catalog.onWait = () => come.resolve('waits for the removal');
  store.onCommit = () => come.resolve('puts its file where the removal unlinks it');
  const back = commit();
  assert.equal(await come.promise, 'waits for the removal');
  gate.resolve();
  await Promise.all([removed, back]);
  assert.deepEqual(await cache.read(DIGEST), BYTES);
  for await (const batch of index.contents())
    assert.deepEqual(
      batch.map(([digest]) => digest),
      [DIGEST],
    );
  assert.ok(await catalog.get(DIGEST));
});

test('what was imported stays imported when a pull brings it once more', async (t) => {
  const { catalog, commit } = await setUp(t);
  await commit();
  await catalog.setOrigin([DIGEST], 'imported');
  await commit();
  assert.equal((await catalog.get(DIGEST))?.origin, 'imported');
});

test('content whose file is gone is forgotten when it is opened', async (t) => {
  const { store, catalog, cache, commit } = await setUp(t);
  await commit();
  await store.delete(DIGEST);
  assert.equal(await cache.open(DIGEST), undefined);
  assert.equal(await catalog.get(DIGEST), undefined);
});

test('what is being read is held, until its last reader is done', async (t) => {
  const { catalog, cache, commit } = await setUp(t);
  await commit();
  const [first, second] = [await cache.open(DIGEST), await cache.open(DIGEST)];
  assert.ok(first !== undefined && second !== undefined);
  await first.close();
  assert.ok(catalog.isHeld(DIGEST));
  await second.close();
  assert.equal(catalog.isHeld(DIGEST), false);
});

for (const [how, look] of [
  ['opened', async (cache: ContentCache) => (await cache.open(DIGEST))?.close()],
  ['scrubbed', (cache: ContentCache) => cache.verify(DIGEST, async () => undefined)],
] as const) {
  test(`content without sums has them once it was ${how}: it is hashed as a whole only once`, async (t) => {
    const { index, cache, commit } = await setUp(t);
    await commit();
    assert.equal(await index.sums(DIGEST), undefined);
    await look(cache);
    const sums = new BlockSums();
    sums.update(BYTES);
    assert.equal(await index.sums(DIGEST), sums.value());
  });

  test(`content without sums that is not what its digest says is forgotten when it is ${how}`, async (t) => {
    const { store, catalog, cache, index, commit } = await setUp(t);
    await commit();
    store.rot();
    await look(cache);
    assert.deepEqual([await catalog.get(DIGEST), await index.sums(DIGEST)], [undefined, undefined]);
    assert.equal(catalog.isHeld(DIGEST), false);
  });
}
