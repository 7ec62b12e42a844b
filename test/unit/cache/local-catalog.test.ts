import assert from 'node:assert/strict';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Inventory } from '../../../src/cache/catalog/inventory.ts';
import { LocalCatalog } from '../../../src/cache/catalog/local-catalog.ts';
import type { ContentRecord, IndexChange, IndexStore, TagKey } from '../../../src/cache/index/index-store.ts';
import { LevelIndex } from '../../../src/cache/index/level-index.ts';
import { StorageFaults } from '../../../src/cache/store/storage-faults.ts';
import { type Digest, digestOf } from '../../../src/oci/digest.ts';
import { OCI_MANIFEST } from '../../../src/oci/manifest.ts';
import type { Repository, Tag } from '../../../src/oci/reference.ts';
import { Metrics } from '../../../src/telemetry/metrics.ts';
import { cleanUp } from '../../helpers/cleanup.ts';
import { FakeClock } from '../../helpers/fake-clock.ts';
import { MemoryStore } from '../../helpers/memory-store.ts';
import { tempDir } from '../../helpers/temp-dir.ts';
import { silentLogger } from '../../helpers/test-transport.ts';

const [layer, other, image, second, absent] = ['layer', 'other', 'image', 'second', 'absent'].map((name) =>
  digestOf(Buffer.from(name)),
) as [Digest, Digest, Digest, Digest, Digest];
const REPOSITORY = { upstream: 'docker.io', repository: 'a/b' as Repository };
const ELSEWHERE = { upstream: 'ghcr.io', repository: 'c/d' as Repository };

function blob(usedAt = 1): ContentRecord {
  return { size: 10, allocated: 4096, usedAt };
}

function manifest(children: Digest[], usedAt = 1): ContentRecord {
  return { ...blob(usedAt), mediaType: OCI_MANIFEST, children };
}

/** A store and an index that take their time, and tell what they do, in order. */
class Watched extends MemoryStore {
  readonly told: string[] = [];
  deleting = Promise.resolve();
  /** Only the next write waits for this. */
  writing = Promise.resolve();

  override async delete(digest: Digest): Promise<void> {
    this.told.push('file deleted');
    await this.deleting;
    await super.delete(digest);
  }

  /** An index in memory, which answers at once. */
  index(records: Map<Digest, ContentRecord>): IndexStore {
    async function* nothing(): AsyncIterable<never> {}
    return {
      tag: async () => undefined,
      permission: async () => undefined,
      object: async () => undefined,
      sums: async () => undefined,
      finding: async () => undefined,
      findings: async function* () {},
      contents: nothing,
      tags: nothing,
      permissions: nothing,
      close: async () => undefined,
      write: async (changes: readonly IndexChange[]) => {
        const gate = this.writing;
        this.writing = Promise.resolve();
        await gate;
        for (const change of changes) {
          if ('put' in change && change.put === 'content') records.set(change.digest, change.value);
          else if ('delete' in change && change.delete === 'content') records.delete(change.digest);
        }
        this.told.push('records written');
      },
    };
  }
}

function catalogOn(index: IndexStore, store = new MemoryStore()) {
  const metrics = new Metrics({ version: 'test', processMetrics: false });
  const clock = new FakeClock();
  const faults = new StorageFaults({ metrics, logger: silentLogger(), clock });
  const inventory = new Inventory(metrics);
  return { catalog: new LocalCatalog({ store, index, inventory, faults, clock }), clock };
}

async function setUp(t: TestContext) {
  const index = await LevelIndex.open(join(await tempDir(t), 'index'));
  cleanUp(t, () => index.close());
  return { index, ...catalogOn(index) };
}

async function recordsOf(index: IndexStore): Promise<Map<Digest, ContentRecord>> {
  const records = new Map<Digest, ContentRecord>();
  for await (const batch of index.contents())
    for (const [digest, record] of batch) records.set(digest, record);
  return records;
}

async function turns(): Promise<void> {
  for (let turn = 0; turn < 20; turn += 1) await new Promise((resolve) => setImmediate(resolve));
}

test('what several hold stays held until the last one lets go, however often the others do', async (t) => {
  const { catalog } = await setUp(t);
  const [first, last] = [catalog.hold(layer), catalog.hold(layer)];
  assert.deepEqual([catalog.isHeld(layer), catalog.isHeld(other)], [true, false]);
  first();
  assert.ok(catalog.isHeld(layer));
  first();
  assert.ok(catalog.isHeld(layer), 'releasing twice lets go of nobody else’s hold');
  last();
  assert.equal(catalog.isHeld(layer), false);
  const again = catalog.hold(layer);
  assert.ok(catalog.isHeld(layer));
  again();
  assert.equal(catalog.isHeld(layer), false);
});

test('what is removed takes its record, its sums, its permissions and its tags with it, and nothing of others', async (t) => {
  const { index, catalog } = await setUp(t);
  const tagged = (tag: string, digest: Digest): IndexChange => {
    const value = { digest, mediaType: OCI_MANIFEST, size: 10, confirmedAt: 1 };
    return { put: 'tag', key: { ...REPOSITORY, tag: tag as Tag, accept: '' }, value };
  };
  const permitted = (digest: Digest, key = REPOSITORY): IndexChange => {
    return { put: 'permission', key, digest, value: {} };
  };
  await catalog.add(layer, blob(), [{ put: 'sums', digest: layer, value: 'abc=' }, permitted(layer)]);
  await catalog.add(image, manifest([layer, absent]), [
    { put: 'sums', digest: image, value: 'def=' },
    ...[image, absent].map((digest) => permitted(digest)),
    permitted(image, ELSEWHERE),
    tagged('1', image),
  ]);
  await catalog.add(second, manifest([layer]), [permitted(second), tagged('2', second)]);

  assert.equal(await catalog.remove([image]), 4096);
  const mayServe = (digest: Digest, key = REPOSITORY) =>
    index.permission(key, digest).then((record) => record !== undefined);
  assert.deepEqual(new Set((await recordsOf(index)).keys()), new Set([layer, second]));
  assert.deepEqual([await mayServe(image), await mayServe(image, ELSEWHERE)], [false, false]);
  assert.equal(await mayServe(absent), false, 'only the manifest that has gone said that it may');
  assert.deepEqual([await mayServe(layer), await mayServe(second)], [true, true]);
  const tags: [TagKey, Digest][] = [];
  for await (const [key, { digest }] of index.tags()) tags.push([key, digest]);
  assert.deepEqual(tags, [[{ ...REPOSITORY, tag: '2', accept: '' }, second]]);
  assert.deepEqual([await index.sums(image), await index.sums(layer)], [undefined, 'abc=']);
});

test('a manifest that comes is recorded with the use of all that it lists: after a crash it goes before its blobs', async (t) => {
  const { index, catalog } = await setUp(t);
  await catalog.add(layer, blob(1), []);
  await catalog.add(other, blob(2), []);
  await catalog.add(image, manifest([layer], 3), []);
  // The process dies here: nothing was flushed.
  const recorded = [...(await recordsOf(index))].toSorted(([a], [b]) => (a < b ? -1 : 1));
  const restarted = new Inventory(new Metrics({ version: 'test', processMetrics: false }));
  restarted.load({
    digests: recorded.map(([digest]) => digest),
    records: recorded.map(([, record]) => record),
  });
  assert.deepEqual(
    [...restarted.oldestFirst()].map(([digest]) => digest),
    [other, image, layer],
  );
});

test('uses that are being recorded while content is removed do not bring its record back', async () => {
  const watched = new Watched();
  const records = new Map<Digest, ContentRecord>();
  const { catalog } = catalogOn(watched.index(records), watched);
  await catalog.add(layer, blob(), []);
  catalog.touch(layer);
  const gate = Promise.withResolvers<void>();
  watched.writing = gate.promise;
  const flushed = catalog.flush();
  await turns(); // it has begun to write
  const removed = catalog.remove([layer]);
  await turns();
  gate.resolve();
  await Promise.all([flushed, removed]);
  assert.deepEqual([...records.keys()], []);
});

test('records are removed before files, and a file counts until it is unlinked', async () => {
  const watched = new Watched();
  const { catalog } = catalogOn(watched.index(new Map()), watched);
  await catalog.add(layer, blob(), []);
  assert.equal(catalog.bytes, 4096);
  watched.told.length = 0;
  const gate = Promise.withResolvers<void>();
  watched.deleting = gate.promise;
  const removed = catalog.remove([layer]);
  await turns();
  assert.deepEqual(watched.told, ['records written', 'file deleted']);
  assert.deepEqual([await catalog.get(layer), catalog.bytes], [undefined, 4096]);
  gate.resolve();
  await removed;
  assert.equal(catalog.bytes, 0);
});

test('what has its origin already is not used by being told so again', async (t) => {
  const { catalog } = await setUp(t);
  await catalog.add(layer, { ...blob(), origin: 'imported' }, []);
  await catalog.add(other, blob(), []);
  await catalog.setOrigin([layer], 'imported');
  assert.deepEqual(
    [...catalog.oldestFirst()].map(([digest]) => digest),
    [layer, other],
  );
});
