import assert from 'node:assert/strict';
import { chmod, mkdir, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { suite, type TestContext, test } from 'node:test';
import { openCacheDirectory } from '../../../src/cache/catalog/recovery.ts';
import { Spool } from '../../../src/cache/ingest/spool.ts';
import { groupNumber } from '../../../src/cache/store/file-modes.ts';
import { type FileSystem, nodeFileSystem } from '../../../src/cache/store/file-system.ts';
import { FsStore } from '../../../src/cache/store/fs-store.ts';
import { digestHex, digestOf } from '../../../src/oci/digest.ts';
import { createLogger } from '../../../src/telemetry/log.ts';
import { cleanUp } from '../../helpers/cleanup.ts';
import { FakeClock } from '../../helpers/fake-clock.ts';
import { tempDir } from '../../helpers/temp-dir.ts';

const BYTES = Buffer.from('a private layer');
const DIGEST = digestOf(BYTES);
const HEX = digestHex(DIGEST);
const BLOB = `blobs/sha256/${HEX.slice(0, 2)}/${HEX}`;
const BLOB_FOLDERS = ['blobs', 'blobs/sha256', dirname(BLOB)];
/** Root may give files to any group, anybody else to their own. */
const GROUP = process.getuid?.() === 0 ? 12_345 : Number(process.getgid?.());

interface Start {
  group?: number;
  fileSystem?: FileSystem;
}

/** A cache directory, and starts on it. */
async function setUp(t: TestContext, { umask = 0o022 } = {}) {
  const before = process.umask(umask);
  cleanUp(t, () => process.umask(before));
  const parent = await tempDir(t);
  const directory = join(parent, 'data');
  /** What it says of the directory's mode. */
  const log: Record<string, unknown>[] = [];
  const write = (line: string) => {
    const { time: _, ...entry } = JSON.parse(line) as Record<string, unknown>;
    if ('mode' in entry) log.push(entry);
  };
  const logger = createLogger({ level: 'info', destination: { write }, now: () => 0 });
  const start = async ({ group, fileSystem = nodeFileSystem }: Start = {}) => {
    const store = new FsStore(directory, fileSystem, group);
    const opened = await openCacheDirectory(directory, {
      store,
      fileSystem,
      logger,
      clock: new FakeClock(),
      group,
    });
    cleanUp(t, () => opened.close().catch(() => undefined)); // a test may have closed it
    const spool = new Spool(directory, fileSystem);
    await spool.sweep();
    return { store, spool, stop: opened.close };
  };
  /** One start that stores the blob. */
  const store = async (options?: Start) => {
    const running = await start(options);
    await running.store.commit(DIGEST, await running.spool.put(BYTES));
    await running.stop();
  };
  const modes = async (...names: string[]) => {
    const found: Record<string, string> = {};
    for (const name of names) {
      const { mode, gid } = await stat(join(directory, name));
      found[name] = `${(mode & 0o777).toString(8)}${gid === GROUP ? ' group' : ''}`;
    }
    return found;
  };
  return { parent, directory, log, start, store, modes };
}

/** As an older version left it. */
async function makeOld(directory: string): Promise<void> {
  for (const folder of ['ingest', 'index', dirname(BLOB)])
    await mkdir(join(directory, folder), { recursive: true });
  await writeFile(join(directory, BLOB), BYTES);
  await chmod(join(directory, BLOB), 0o444);
  for (const folder of ['', 'ingest', 'index', ...BLOB_FOLDERS]) await chmod(join(directory, folder), 0o755);
}

/** The mode of each, with the group where it is that of the front server. */
function each(names: readonly string[], mode: string): Record<string, string> {
  return Object.fromEntries(names.map((name) => [name, mode]));
}

/** Fails as the system does for a process that may not do it. */
function refusing(operation: 'chown' | 'chmod', refuses: (path: string) => boolean): FileSystem {
  return {
    ...nodeFileSystem,
    [operation]: async (path: string, first: number, second: number) => {
      if (refuses(path)) throw Object.assign(new Error('EPERM'), { code: 'EPERM' });
      await (nodeFileSystem[operation] as (...args: unknown[]) => Promise<void>)(path, first, second);
    },
  };
}

suite('a cache directory', () => {
  // Before a group is given, files of root's tests belong to root's group, those of others to GROUP.
  const own = process.getuid?.() === 0 ? '' : ' group';

  for (const umask of [0o000, 0o022, 0o077]) {
    test(`is for its owner only, with umask ${umask.toString(8)}`, async (t) => {
      const { store, modes, log } = await setUp(t, { umask });
      await store();
      await store(); // closes index/, which LevelDB made: a server has the umask 077
      assert.deepEqual(await modes('', 'ingest', 'index', 'blobs', BLOB), {
        ...each(['', 'ingest', 'index'], `700${own}`),
        ...each(BLOB_FOLDERS.slice(0, 1), `700${own}`),
        [BLOB]: `400${own}`,
      });
      assert.deepEqual(log, []);
    });

    test(`opens blobs/ to cache.group, and nothing else, with umask ${umask.toString(8)}`, async (t) => {
      const { store, modes, log } = await setUp(t, { umask });
      await store({ group: GROUP });
      await store({ group: GROUP });
      assert.deepEqual(await modes('', 'ingest', 'index', ...BLOB_FOLDERS, BLOB), {
        '': '710 group',
        ...each(['ingest', 'index'], `700${own}`),
        ...each(BLOB_FOLDERS, '750 group'),
        [BLOB]: '440 group',
      });
      assert.deepEqual(log, []);
    });
  }

  test('of an older version is closed at the first start, with one line in the log; its files stay', async (t) => {
    const { directory, start, modes, log } = await setUp(t);
    await makeOld(directory);
    for (const _ of [1, 2]) await (await start()).stop();
    assert.deepEqual(await modes('', 'ingest', 'index', 'blobs', BLOB), {
      ...each(['', 'ingest', 'index', 'blobs'], `700${own}`),
      [BLOB]: `444${own}`,
    });
    assert.deepEqual(log, [
      {
        level: 'info',
        directory,
        mode: '755',
        msg: 'the cache directory was open to other users of this machine and is closed to them now: a front server that reads blobs/ needs cache.group',
      },
    ]);
  });

  test('of an older version is opened to a group: folders at the start, a file when it is next read', async (t) => {
    const { directory, start, modes } = await setUp(t);
    await makeOld(directory);
    const { store } = await start({ group: GROUP });
    assert.deepEqual(await modes('', 'ingest', 'index', ...BLOB_FOLDERS), {
      '': '710 group',
      ...each(['ingest', 'index'], `700${own}`),
      ...each(BLOB_FOLDERS, '750 group'),
    });
    const readers = [await store.open(DIGEST), await store.open(DIGEST)];
    assert.deepEqual(await modes(BLOB), { [BLOB]: '440 group' });
    assert.deepEqual(
      readers.map((reader) => reader?.file),
      Array(2).fill(BLOB.slice('blobs/'.length)),
    );
    assert.equal(readers[0]?.version, readers[1]?.version, 'the change counts as none of the content');
    for (const reader of readers) await reader?.close();
  });

  test('is closed again when the group is taken out of the configuration', async (t) => {
    const { store, modes, log } = await setUp(t);
    await store({ group: GROUP });
    await store();
    assert.deepEqual(
      Object.values(await modes('', 'blobs')).map((mode) => mode.slice(0, 3)),
      ['700', '700'],
    );
    assert.deepEqual(
      log.map(({ level, mode }) => [level, mode]),
      [['info', '710']],
      'only the second start has closed something',
    );
  });

  test('that belongs to another user is used, with a warning if all users can read it; what is in it is closed', async (t) => {
    const { directory, start, modes, log } = await setUp(t);
    await makeOld(directory);
    const fileSystem = refusing('chmod', (path) => path === directory);
    await (await start({ fileSystem })).stop();
    assert.deepEqual(await modes('', 'ingest', 'index', 'blobs'), {
      '': `755${own}`,
      ...each(['ingest', 'index', 'blobs'], `700${own}`),
    });
    await chmod(directory, 0o770);
    await (await start({ fileSystem })).stop();
    assert.deepEqual(
      log.map(({ level, mode }) => [level, mode]),
      [['warn', '755']],
    );
  });

  test('that is new has parents that the front server can pass', async (t) => {
    const { parent, directory, modes } = await setUp(t, { umask: 0o077 });
    const nested = join(parent, 'a/b');
    const store = new FsStore(nested, nodeFileSystem, GROUP);
    const logger = createLogger({ level: 'silent', destination: { write: () => {} }, now: () => 0 });
    const context = { store, fileSystem: nodeFileSystem, logger, clock: new FakeClock(), group: GROUP };
    const opened = await openCacheDirectory(nested, context);
    await opened.close();
    await rm(directory, { recursive: true, force: true });
    assert.deepEqual(await modes('../a', '../a/b'), { '../a': '710 group', '../a/b': '710 group' });
  });
});

suite('cache.group', () => {
  test('that the process is not in keeps the mirror from starting, and says what to do', async (t) => {
    const { start, directory } = await setUp(t);
    const fileSystem = refusing('chown', () => true);
    const other = GROUP + 1;
    const refused = { name: 'CacheGroupError', message: /not in the group \d+, .*SupplementaryGroups=/ };
    await assert.rejects(start({ group: other, fileSystem }), refused, 'a new directory');
    await (await start()).stop();
    await assert.rejects(start({ group: other, fileSystem }), refused, 'one that is there');
    assert.deepEqual((await readdir(directory)).includes('pid'), false, 'the directory was released');
  });

  test('and a file of another user: Millpond sends it itself', async (t) => {
    const { directory, start } = await setUp(t);
    await makeOld(directory);
    const fileSystem = refusing('chown', (path) => path.endsWith(HEX));
    const { store } = await start({ group: GROUP, fileSystem });
    const reader = await store.open(DIGEST);
    assert.equal(reader?.size, BYTES.length);
    assert.equal(reader?.file, undefined);
    await reader?.close();
  });

  test('is a number, or a name of this machine', async () => {
    assert.equal(await groupNumber(101, nodeFileSystem), 101);
    assert.equal(await groupNumber('root', nodeFileSystem), 0);
    await assert.rejects(groupNumber('no-such-group', nodeFileSystem), {
      name: 'CacheGroupError',
      message: /\/etc\/group has no group no-such-group: create it, or give the number/,
    });
  });
});
