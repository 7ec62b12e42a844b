import assert from 'node:assert/strict';
import { chmod, stat, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { nodeFileSystem } from '../../src/cache/store/file-system.ts';
import { FsStore } from '../../src/cache/store/fs-store.ts';
import { digestHex, digestOf } from '../../src/oci/digest.ts';
import { noise } from '../helpers/images.ts';
import { MemoryStore } from '../helpers/memory-store.ts';
import { readRange } from '../helpers/readers.ts';
import { tempDir } from '../helpers/temp-dir.ts';
import { contentStoreSuite } from './content-store.suite.ts';

contentStoreSuite('FsStore', (directory) => new FsStore(directory, nodeFileSystem));
contentStoreSuite('MemoryStore', () => new MemoryStore());

test('FsStore: a committed file is read-only, for its owner, and a reader fails when it becomes shorter all the same', async (t) => {
  const directory = await tempDir(t);
  const store = new FsStore(directory, nodeFileSystem);
  const bytes = noise(10_000, 'read-only');
  const digest = digestOf(bytes);
  await writeFile(join(directory, 'spooled'), bytes, { mode: 0o644 });
  await store.commit(digest, join(directory, 'spooled'));
  const hex = digestHex(digest);
  const path = join(directory, 'blobs/sha256', hex.slice(0, 2), hex);
  assert.equal((await stat(path)).mode & 0o777, 0o400);
  const reader = await store.open(digest);
  assert.ok(reader);
  await chmod(path, 0o644);
  await truncate(path, 5000);
  assert.deepEqual(await readRange(reader, 0, 5000), bytes.subarray(0, 5000));
  await assert.rejects(reader.read(Buffer.alloc(10), 5000, 10_000), {
    name: 'StorageError',
    operation: 'read',
  });
  await reader.close();
});
