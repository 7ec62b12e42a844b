import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { LevelIndex } from '../../src/cache/index/level-index.ts';
import { StorageError } from '../../src/cache/store/errors.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { cleanUp } from '../helpers/cleanup.ts';
import { tempDir } from '../helpers/temp-dir.ts';
import { indexStoreSuite } from './index-store.suite.ts';

const open = (directory: string) => LevelIndex.open(join(directory, 'index'));

indexStoreSuite('LevelIndex', open);

test('LevelIndex: a second owner of one directory is refused', async (t) => {
  const directory = await tempDir(t);
  const index = await open(directory);
  cleanUp(t, () => index.close());
  await assert.rejects(
    open(directory),
    (error: unknown) => error instanceof StorageError && error.errno === 'LEVEL_LOCKED',
  );
});

test('LevelIndex: what cannot be written is told, and not remembered', async (t) => {
  const index = await open(await tempDir(t));
  await index.close();
  const digest = digestOf(Buffer.from('a'));
  await assert.rejects(index.write([{ put: 'sums', digest, value: 'abc=' }]), {
    name: 'StorageError',
    operation: 'index',
  });
  await assert.rejects(index.sums(digest), { name: 'StorageError' });
});
