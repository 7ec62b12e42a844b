import assert from 'node:assert/strict';
import { chmod, mkdir, readdir, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Inventory } from '../../../src/cache/catalog/inventory.ts';
import { type CacheDirectory, openCacheDirectory } from '../../../src/cache/catalog/recovery.ts';
import { LevelIndex } from '../../../src/cache/index/level-index.ts';
import { type FileSystem, nodeFileSystem } from '../../../src/cache/store/file-system.ts';
import { FsStore } from '../../../src/cache/store/fs-store.ts';
import { type Digest, digestHex, digestOf } from '../../../src/oci/digest.ts';
import { Metrics } from '../../../src/telemetry/metrics.ts';
import { cleanUp } from '../../helpers/cleanup.ts';
import { FakeClock } from '../../helpers/fake-clock.ts';
import { buildImage, noise } from '../../helpers/images.ts';
import { tempDir } from '../../helpers/temp-dir.ts';
import { silentLogger } from '../../helpers/test-transport.ts';

const image = buildImage({ platforms: ['amd64', 'arm64'], layers: [2000, 3000, 4000] });
const CONTENT = [image.top, ...image.manifests].map(({ bytes }) => bytes).concat(image.blobs);
const STORED_AT = 1_700_000_000_000;

/** A cache directory that holds an image, all of it stored at one time, and no index. */
async function setUp(t: TestContext) {
  const directory = await tempDir(t);
  for (const bytes of CONTENT) await place(directory, digestOf(bytes), bytes);
  const looked: string[] = [];
  const fileSystem: FileSystem = {
    ...nodeFileSystem,
    opendir: (path, options) => {
      looked.push(String(path));
      return nodeFileSystem.opendir(path, options);
    },
  };
  const open = async () => {
    const store = new FsStore(directory, fileSystem);
    const opened = await openCacheDirectory(directory, {
      ...{ store, fileSystem, group: undefined, clock: new FakeClock() },
      logger: silentLogger(),
    });
    cleanUp(t, () => opened.close().catch(() => undefined)); // a test may have closed it
    return opened;
  };
  return { directory, looked, open };
}

async function place(directory: string, digest: Digest, bytes: Buffer): Promise<string> {
  const path = pathOf(directory, digest);
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, bytes);
  await utimes(path, STORED_AT / 1000, STORED_AT / 1000);
  return path;
}

function pathOf(directory: string, digest: Digest): string {
  const hex = digestHex(digest);
  return join(directory, 'blobs/sha256', hex.slice(0, 2), hex);
}

/** As after kill -9. */
function crashed(directory: string): Promise<void> {
  return writeFile(join(directory, 'pid'), '1');
}

const ALL = CONTENT.map((bytes) => digestOf(bytes)).toSorted();

test('files without records are adopted as what they are: manifests before what they list, used when they were stored', async (t) => {
  const { open } = await setUp(t);
  const { contents, manifestsWithoutOwner } = await open();
  assert.deepEqual(contents.digests, ALL, 'in order: what lists a digest finds it so');
  assert.ok(manifestsWithoutOwner);
  assert.deepEqual(new Set(contents.records.map(({ usedAt }) => usedAt)), new Set([STORED_AT]));
  const inventory = new Inventory(new Metrics({ version: 'test', processMetrics: false }));
  inventory.load(contents);
  const order = [...inventory.oldestFirst()].map(([digest]) => digest);
  assert.equal(order[0], image.top.digest);
  assert.deepEqual(new Set(order.slice(1, 3)), new Set(image.manifests.map(({ digest }) => digest)));
});

test('what is adopted later is found by what listed it before', async (t) => {
  const { directory, open } = await setUp(t);
  const missing = ALL.filter((_, at) => at % 2 === 1);
  for (const digest of missing) await rm(pathOf(directory, digest));
  await (await open()).close();
  for (const bytes of CONTENT) {
    const digest = digestOf(bytes);
    if (missing.includes(digest)) await place(directory, digest, bytes);
  }
  await crashed(directory);
  assert.deepEqual((await open()).contents.digests, ALL);
});

test('after an end in order no file is looked at; after a crash each is', async (t) => {
  const { directory, looked, open } = await setUp(t);
  await (await open()).close();
  looked.length = 0;
  const second = await open();
  assert.deepEqual([second.contents.digests, looked], [ALL, []]);
  assert.ok((await readdir(directory)).includes('pid'));
  await second.close();
  assert.ok(!(await readdir(directory)).includes('pid'));
  await crashed(directory);
  await open();
  assert.ok(looked.length > 0);
});

test('a file that a crash has lost is forgotten for good, and one that it left is here from then on', async (t) => {
  const { directory, open } = await setUp(t);
  await (await open()).close();
  const [lost] = ALL as [Digest];
  await rm(pathOf(directory, lost));
  const orphan = noise(5000, 'orphan');
  await place(directory, digestOf(orphan), orphan);
  await crashed(directory);
  const expected = [...ALL.slice(1), digestOf(orphan)].toSorted();
  for (const _start of ['after the crash', 'in order']) {
    const opened: CacheDirectory = await open();
    assert.deepEqual(opened.contents.digests, expected);
    await opened.close();
  }
});

test('a manifest that is not what its name says is neither adopted nor kept', async (t) => {
  const { directory, open } = await setUp(t);
  const wrong = digestOf(Buffer.from('another manifest'));
  const path = await place(directory, wrong, image.top.bytes);
  const { contents } = await open();
  assert.deepEqual(contents.digests, ALL);
  assert.ok(!(await readdir(dirname(path))).includes(digestHex(wrong)));
});

test('an index that had to be repaired is compared with the content, though the mirror had ended in order', async (t) => {
  const { directory, open } = await setUp(t);
  await (await open()).close();
  // A second start and end move the first records into a table of their own.
  const orphan = noise(5000, 'orphan');
  await place(directory, digestOf(orphan), orphan);
  await crashed(directory);
  await (await open()).close();
  const index = join(directory, 'index');
  for (const name of await readdir(index))
    if (/^MANIFEST|\.ldb$/.test(name)) await writeFile(join(index, name), noise(5000, name));
  const { contents } = await open();
  assert.deepEqual(contents.digests, [...ALL, digestOf(orphan)].toSorted());
});

test('an index without a format is older than all formats: it is set aside, and built again', async (t) => {
  const { directory, open } = await setUp(t);
  await (await open()).close();
  await rm(join(directory, 'format'));
  const { contents } = await open();
  assert.deepEqual(contents.digests, ALL);
  const names = await readdir(directory);
  assert.ok(names.includes('index.damaged') && names.includes('format'));
});

test('a cache of another format is refused, and nothing in it is touched', async (t) => {
  const { directory, open } = await setUp(t);
  for (const format of ['2\n', '0\n', 'x']) {
    await writeFile(join(directory, 'format'), format);
    await assert.rejects(open(), { name: 'StorageError', errno: 'FORMAT' });
    assert.deepEqual(new Set(await readdir(directory)), new Set(['blobs', 'format']));
  }
});

test('an index that another process has open is left alone, and the message names that process', async (t) => {
  const { directory, open } = await setUp(t);
  const index = await LevelIndex.open(join(directory, 'index'));
  cleanUp(t, () => index.close());
  await writeFile(join(directory, 'pid'), '4711');
  await assert.rejects(open(), { message: /is in use by another Millpond, process 4711/ });
  assert.ok(!(await readdir(directory)).includes('index.damaged'));
});

test('a folder with somebody’s files is refused before anything in it is changed, its mode included', async (t) => {
  const { directory, open } = await setUp(t);
  await writeFile(join(directory, 'thesis.txt'), 'words');
  await chmod(directory, 0o755);
  await assert.rejects(open(), {
    name: 'StorageError',
    errno: 'FOREIGN',
    message: `cannot open the cache directory ${directory}: it is neither empty nor a cache of Millpond, it holds thesis.txt: choose another folder (FOREIGN); cache.directory in the configuration names it`,
  });
  assert.deepEqual(await readdir(directory), ['blobs', 'thesis.txt']);
  assert.equal((await stat(directory)).mode & 0o777, 0o755);
});
