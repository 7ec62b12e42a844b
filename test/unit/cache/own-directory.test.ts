import assert from 'node:assert/strict';
import { mkdir, readdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { suite, test } from 'node:test';
import { nodeFileSystem } from '../../../src/cache/store/file-system.ts';
import { whyNotOurs } from '../../../src/cache/store/own-directory.ts';
import { tempDir } from '../../helpers/temp-dir.ts';

const ask = (directory: string) => whyNotOurs(directory, nodeFileSystem);

suite('a folder that can be the cache directory', () => {
  test('is one that is not there yet, and looking does not make it', async (t) => {
    const folder = await tempDir(t);
    assert.equal(await ask(join(folder, 'a', 'b')), undefined);
    assert.deepEqual(await readdir(folder), []);
  });

  for (const [name, names] of [
    ['is an empty one', []],
    ['is the root of a volume', ['lost+found']],
    ['holds only what a server makes', ['blobs', 'ingest', 'index', 'pid']],
    ['is one of ours, whatever else is in it', ['format', 'blobs', 'notes.txt']],
  ] as const) {
    test(name, async (t) => {
      const folder = await tempDir(t);
      for (const each of names) await writeFile(join(folder, each), '1\n');
      assert.equal(await ask(folder), undefined);
    });
  }

  test('is one that is older than all formats', async (t) => {
    const folder = await tempDir(t);
    await mkdir(join(folder, 'index'));
    await writeFile(join(folder, 'index', 'CURRENT'), '');
    await writeFile(join(folder, 'signing-key.pem'), '');
    assert.equal(await ask(folder), undefined);
  });
});

test('somebody’s files are named, the first three of them, and stay as they are', async (t) => {
  const folder = await tempDir(t);
  for (const each of ['.bashrc', 'a.txt', 'b.txt', 'c.txt']) await writeFile(join(folder, each), '');
  const before = await stat(folder);
  assert.equal(
    await ask(folder),
    'is neither empty nor a cache of Millpond, it holds .bashrc, a.txt, b.txt and 1 more: choose another folder',
  );
  assert.deepEqual((await stat(folder)).mode, before.mode);
});

test('a file is no folder', async (t) => {
  const file = join(await tempDir(t), 'file');
  await writeFile(file, '');
  assert.equal(await ask(file), 'is no folder: choose another path');
});
