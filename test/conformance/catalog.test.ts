import { join } from 'node:path';
import { Inventory } from '../../src/cache/catalog/inventory.ts';
import { LocalCatalog } from '../../src/cache/catalog/local-catalog.ts';
import { LevelIndex } from '../../src/cache/index/level-index.ts';
import { StorageFaults } from '../../src/cache/store/storage-faults.ts';
import { Metrics } from '../../src/telemetry/metrics.ts';
import { cleanUp } from '../helpers/cleanup.ts';
import { FakeClock } from '../helpers/fake-clock.ts';
import { MapCatalog } from '../helpers/map-catalog.ts';
import { MemoryStore } from '../helpers/memory-store.ts';
import { tempDir } from '../helpers/temp-dir.ts';
import { silentLogger } from '../helpers/test-transport.ts';
import { catalogSuite } from './catalog.suite.ts';

catalogSuite('LocalCatalog', async (t, records) => {
  const index = await LevelIndex.open(join(await tempDir(t), 'index'));
  cleanUp(t, () => index.close());
  const metrics = new Metrics({ version: 'test', processMetrics: false });
  const clock = new FakeClock();
  const inventory = new Inventory(metrics);
  const faults = new StorageFaults({ metrics, logger: silentLogger(), clock });
  const catalog = new LocalCatalog({ store: new MemoryStore(), index, inventory, faults, clock });
  for (const [digest, record] of records) await catalog.add(digest, { ...record }, []);
  return catalog;
});

catalogSuite('MapCatalog', async (_t, records) => {
  const catalog = new MapCatalog();
  for (const [digest, record] of records) catalog.records.set(digest, { ...record });
  return catalog;
});
