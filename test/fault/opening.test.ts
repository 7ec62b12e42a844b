import assert from 'node:assert/strict';
import { chmod, mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { openCacheDirectory } from '../../src/cache/catalog/recovery.ts';
import { LevelIndex } from '../../src/cache/index/level-index.ts';
import { FsStore } from '../../src/cache/store/fs-store.ts';
import { createLogger } from '../../src/telemetry/log.ts';
import { cleanUp } from '../helpers/cleanup.ts';
import { FailingFileSystem } from '../helpers/failing-file-system.ts';
import { FakeClock } from '../helpers/fake-clock.ts';
import { run } from '../helpers/real-processes.ts';
import { tempDir } from '../helpers/temp-dir.ts';
import { silentLogger } from '../helpers/test-transport.ts';

const NOBODY = 65_534;

/** Opens a cache directory as a start does. */
function open(directory: string, { clock = new FakeClock(), errno = '', logger = silentLogger() } = {}) {
  const disk = new FailingFileSystem();
  if (errno !== '') disk.fail('mkdir', errno);
  const { fileSystem } = disk;
  const store = new FsStore(directory, fileSystem);
  return openCacheDirectory(directory, {
    store,
    fileSystem,
    clock,
    logger,
    group: undefined,
  });
}

/** Lets this process be a user who owns nothing, for the rest of the test. */
function becomeNobody(t: TestContext): void {
  if (process.geteuid?.() !== 0) return;
  process.seteuid?.(NOBODY);
  cleanUp(t, () => process.seteuid?.(0));
}

for (const [errno, why] of [
  [
    'EACCES',
    'this user may not read and write there: give it to this user with chown -R, or choose another one',
  ],
  ['EROFS', 'its file system is mounted read-only: mount it for writing, or choose another one'],
  ['ENOSPC', 'its file system is full: free some space, or choose another one'],
  ['EDQUOT', 'the quota of this user is used up: free some space, or choose another one'],
  ['EIO', 'its drive fails: look into the log of the system, or choose another one'],
  ['ELOOP', 'the system refuses it: look into the log of the system, or choose another one'],
] as const) {
  test(`a cache directory that cannot be made because of ${errno}: the message says so in words`, async (t) => {
    const directory = join(await tempDir(t), 'data');
    await assert.rejects(open(directory, { errno }), {
      message: `cannot open the cache directory ${directory}: ${why} (${errno}); cache.directory in the configuration names it`,
    });
  });
}

test('a cache directory in a folder that holds no folders is refused at once', async (t) => {
  await assert.rejects(open('/proc/x'), { message: /: it is not there and cannot be made: .* \(ENOENT\); / });
  const file = join(await tempDir(t), 'file');
  await writeFile(file, '');
  await assert.rejects(open(file), { message: /: it is no folder: choose another path \(FOREIGN\); / });
  await assert.rejects(open(join(file, 'below')), { message: /: it is no folder: .* \(FOREIGN\); / });
});

test('a cache directory that does not answer is given up after 30 s', async (t) => {
  const directory = await tempDir(t);
  const fifo = join(directory, 'format');
  await run('mkfifo', [fifo]);
  const clock = new FakeClock();
  const opening = assert.rejects(open(directory, { clock }), {
    message: /: no answer within 30 s: check the drive that it is on, or choose another one \(ETIMEDOUT\); /,
  });
  clock.advance(29_999);
  clock.advance(1);
  await opening;
  await writeFile(fifo, '1\n'); // lets go of the thread that reads it
});

test('an index that this user may not open is not taken for a damaged one', async (t) => {
  const directory = await tempDir(t);
  const index = await LevelIndex.open(join(directory, 'index'));
  await index.close();
  await writeFile(join(directory, 'format'), '1\n', { mode: 0o644 });
  await chmod(directory, 0o777);
  await chmod(join(directory, 'index'), 0o500);
  for (const name of await readdir(join(directory, 'index')))
    await chmod(join(directory, 'index', name), 0o400);
  const before = await readdir(join(directory, 'index'));
  await mkdir(join(directory, 'blobs'));
  becomeNobody(t);
  const log: string[] = [];
  const destination = { write: (line: string) => void log.push(line) };
  const logger = createLogger({ level: 'info', destination, now: () => 0 });
  await assert.rejects(open(directory, { logger }), {
    message: /: this user may not read and write there: .* \(EACCES\); /,
  });
  if (process.getuid?.() === 0) process.seteuid?.(0);
  assert.deepEqual(log, [], 'nothing was repaired');
  assert.deepEqual(await readdir(join(directory, 'index')), before);
  assert.ok(!(await readdir(directory)).includes('index.damaged'));
});
