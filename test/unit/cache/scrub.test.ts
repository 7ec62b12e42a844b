import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { ContentCache } from '../../../src/cache/catalog/content-cache.ts';
import { Inventory } from '../../../src/cache/catalog/inventory.ts';
import { LocalCatalog } from '../../../src/cache/catalog/local-catalog.ts';
import { Scrubber } from '../../../src/cache/catalog/scrub.ts';
import { LevelIndex } from '../../../src/cache/index/level-index.ts';
import { StorageFaults } from '../../../src/cache/store/storage-faults.ts';
import { digestOf } from '../../../src/oci/digest.ts';
import { Metrics } from '../../../src/telemetry/metrics.ts';
import { cleanUp } from '../../helpers/cleanup.ts';
import { FakeClock } from '../../helpers/fake-clock.ts';
import { MemoryStore } from '../../helpers/memory-store.ts';
import { tempDir } from '../../helpers/temp-dir.ts';
import { silentLogger } from '../../helpers/test-transport.ts';

test('a scrub leaves a file alone that is being committed: its record comes with what only the commit knows', async (t) => {
  const directory = await tempDir(t);
  const index = await LevelIndex.open(join(directory, 'index'));
  cleanUp(t, () => index.close());
  const metrics = new Metrics({ version: 'test', processMetrics: false });
  const [clock, logger, store] = [new FakeClock(), silentLogger(), new MemoryStore()];
  const faults = new StorageFaults({ metrics, logger, clock });
  const catalog = new LocalCatalog({ store, index, inventory: new Inventory(metrics), faults, clock });
  const cache = new ContentCache({ store, index, catalog, faults, logger, clock });
  const scrubber = new Scrubber({ cache, store, catalog, clock, logger });
  const bytes = Buffer.from('content');
  const path = join(directory, 'verified');
  await writeFile(path, bytes);
  await store.commit(digestOf(bytes), path);
  const adopted = async () => {
    for await (const event of scrubber.begin(new AbortController().signal) ?? [])
      if (event.event === 'done') return event.adopted;
    return undefined;
  };
  const release = catalog.hold(digestOf(bytes));
  assert.equal(await adopted(), 0);
  assert.equal(await catalog.get(digestOf(bytes)), undefined);
  release();
  assert.equal(await adopted(), 1, 'a file that nobody commits is taken up');
});
