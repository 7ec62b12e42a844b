import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Spool } from '../../../src/cache/ingest/spool.ts';
import { type FileSystem, nodeFileSystem } from '../../../src/cache/store/file-system.ts';
import { digestOf } from '../../../src/oci/digest.ts';
import { tempDir } from '../../helpers/temp-dir.ts';

const MIB = 1024 * 1024;
const ORIGIN = 'quay.io';

/** A partial blob as a killed process leaves it: `bytes` in its file, and the note beside it. */
async function setUp(t: TestContext, note?: string) {
  const directory = await tempDir(t);
  const folder = join(directory, 'ingest');
  const bytes = randomBytes(4 * MIB);
  const digest = digestOf(bytes);
  const spool = new Spool(directory, nodeFileSystem);
  await spool.sweep();
  const ingest = await spool.open(digest, ORIGIN);
  await ingest.end();
  const { path } = ingest;
  const holed = Buffer.from(bytes);
  holed.fill(0, 2 * MIB, 3 * MIB); // a part that never came
  await writeFile(path, holed);
  if (note !== undefined) await writeFile(`${path}.front`, note);
  const restarted = new Spool(directory, nodeFileSystem);
  return { directory, folder, path, bytes, digest, spool: restarted };
}

test('after a kill only the noted front is gone on from: what lies behind it has holes', async (t) => {
  const { path, bytes, digest, spool } = await setUp(t, String(2 * MIB));
  await spool.sweep();
  const ingest = await spool.open(digest, ORIGIN);
  assert.equal(ingest.front, 2 * MIB);
  assert.equal((await stat(path)).size, 2 * MIB);
  await ingest.writer(ingest.front).append(bytes.subarray(2 * MIB));
  await ingest.verify();
  await ingest.end();
  assert.ok((await readFile(path)).equals(bytes));
});

test('a note of more than the file holds does not lengthen the file', async (t) => {
  const { digest, spool } = await setUp(t, String(8 * MIB));
  await spool.sweep();
  const ingest = await spool.open(digest, ORIGIN);
  assert.equal(ingest.front, 4 * MIB);
  await ingest.end();
});

/** Lists a folder with a note before its file, or behind it: real file systems do either. */
function listing(noteFirst: boolean): FileSystem {
  const opendir = async (path: string) => {
    const entries = (await readdir(path, { withFileTypes: true })).toSorted((a, b) =>
      a.name < b.name ? -1 : 1,
    );
    return noteFirst ? entries.toReversed() : entries;
  };
  return { ...nodeFileSystem, opendir: opendir as never };
}

for (const [what, note] of [
  ['a front that is not worth resuming', '1000'],
  ['a note that the crash has emptied', ''],
  ['a note that the power cut has made zeros of', '\0\0\0\0\0\0\0'],
] as const) {
  for (const noteFirst of [true, false]) {
    const order = noteFirst ? 'before' : 'behind';
    test(`a start removes a partial blob with ${what}, where the note is listed ${order} the file`, async (t) => {
      const { directory, folder, digest } = await setUp(t, note);
      const spool = new Spool(directory, listing(noteFirst));
      await spool.sweep();
      assert.deepEqual(await readdir(folder), []);
      assert.equal(spool.partialBytes, 0);
      const ingest = await spool.open(digest, ORIGIN);
      assert.equal(ingest.front, 0, 'its holes are not taken for content');
      await ingest.end();
    });
  }
}

test('a note without a file is removed', async (t) => {
  const { folder, path, spool } = await setUp(t, String(2 * MIB));
  await rm(path);
  await spool.sweep();
  assert.deepEqual(await readdir(folder), []);
});

test('a fill that ends in order goes on from its whole front, not from an earlier note', async (t) => {
  const { folder, path, bytes, digest, spool } = await setUp(t, String(2 * MIB));
  await spool.sweep();
  const ingest = await spool.open(digest, ORIGIN);
  await ingest.writer(2 * MIB).append(bytes.subarray(2 * MIB, 3 * MIB));
  await ingest.writer(3 * MIB + 1000).append(bytes.subarray(3 * MIB + 1000)); // leaves a hole of 1000 bytes
  await spool.noteFront(ingest);
  assert.deepEqual(new Set(await readdir(folder)), new Set([basename(path), `${basename(path)}.front`]));
  ingest.abort(new Error('the mirror is shutting down'));
  await spool.retire(ingest, { resumable: true });
  await ingest.end();
  assert.deepEqual(await readdir(folder), [basename(path)]);
  assert.equal((await stat(path)).size, 3 * MIB, 'nothing lies behind the hole');
  const resumed = await spool.open(digest, ORIGIN);
  assert.equal(resumed.front, 3 * MIB);
  await resumed.end();
});

test('a note goes with its file', async (t) => {
  const { folder, digest, spool } = await setUp(t, String(2 * MIB));
  await spool.sweep();
  const ingest = await spool.open(digest, ORIGIN);
  await spool.retire(ingest, { resumable: false });
  await ingest.end();
  assert.deepEqual(await readdir(folder), []);
});

test('partial blobs count as taken space, those of an earlier run too, until they are gone on with', async (t) => {
  const { folder, digest, spool } = await setUp(t);
  await spool.sweep();
  assert.equal(spool.partialBytes, 4 * MIB);
  const ingest = await spool.open(digest, ORIGIN);
  assert.equal(spool.partialBytes, 0, 'it has a reservation now');
  ingest.abort(new Error('upstream is gone'));
  await spool.retire(ingest, { resumable: true });
  await ingest.end();
  assert.equal(spool.partialBytes, 4 * MIB);
  await spool.discardPartials();
  assert.deepEqual([spool.partialBytes, await readdir(folder)], [0, []]);
});

test('a partial blob that is being gone on with is not removed to make room', async (t) => {
  const { folder, path, digest, spool } = await setUp(t);
  await spool.sweep();
  const ingest = await spool.open(digest, ORIGIN);
  await spool.discardPartials();
  assert.deepEqual(await readdir(folder), [basename(path)]);
  await ingest.end();
});
