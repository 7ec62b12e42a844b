/** What every ContentStore must do; run it on each implementation. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { access, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { ContentStore } from '../../src/cache/store/content-store.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { readRange } from '../helpers/readers.ts';
import { tempDir } from '../helpers/temp-dir.ts';

export function contentStoreSuite(name: string, create: (directory: string) => ContentStore): void {
  async function setUp(t: TestContext) {
    const directory = await tempDir(t);
    const store = create(directory);
    const commit = async (bytes: Buffer) => {
      const path = join(directory, 'spooled');
      await writeFile(path, bytes);
      const digest = digestOf(bytes);
      const stored = await store.commit(digest, path);
      return { digest, path, stored };
    };
    return { store, commit };
  }

  test(`${name}: what was never committed is not there`, async (t) => {
    const { store } = await setUp(t);
    assert.equal(await store.open(digestOf(Buffer.from('x'))), undefined);
  });

  test(`${name}: committed content reads back, and its file has been taken over`, async (t) => {
    const { store, commit } = await setUp(t);
    const bytes = randomBytes(100_000);
    const { digest, path } = await commit(bytes);
    const reader = await store.open(digest);
    assert.ok(reader);
    assert.equal(reader.size, bytes.length);
    assert.deepEqual(await readRange(reader, 0, bytes.length), bytes);
    await reader.close();
    await assert.rejects(access(path), { code: 'ENOENT' });
  });

  test(`${name}: any range of it reads back`, async (t) => {
    const { store, commit } = await setUp(t);
    const bytes = randomBytes(10_000);
    const { digest } = await commit(bytes);
    const reader = await store.open(digest);
    assert.ok(reader);
    for (const [start, end] of [
      [0, 1],
      [9_999, 10_000],
      [5, 5_005],
    ] as const) {
      assert.deepEqual(await readRange(reader, start, end), bytes.subarray(start, end));
    }
    await reader.close();
  });

  test(`${name}: empty content is content`, async (t) => {
    const { store, commit } = await setUp(t);
    const { digest } = await commit(Buffer.alloc(0));
    const reader = await store.open(digest);
    assert.equal(reader?.size, 0);
    await reader.close();
  });

  test(`${name}: committing the same content twice is no error`, async (t) => {
    const { store, commit } = await setUp(t);
    const { digest } = await commit(Buffer.from('twice'));
    await commit(Buffer.from('twice'));
    const reader = await store.open(digest);
    assert.equal(reader?.size, 5);
    await reader.close();
  });

  test(`${name}: a reader goes on reading what is deleted meanwhile`, async (t) => {
    const { store, commit } = await setUp(t);
    const bytes = randomBytes(1000);
    const { digest } = await commit(bytes);
    const reader = await store.open(digest);
    assert.ok(reader);
    await store.delete(digest);
    assert.equal(await store.open(digest), undefined);
    assert.deepEqual(await readRange(reader, 0, bytes.length), bytes);
    await reader.close();
  });

  test(`${name}: deleting what is not there is no error`, async (t) => {
    const { store } = await setUp(t);
    await store.delete(digestOf(Buffer.from('x')));
  });

  test(`${name}: closing a reader twice is no error`, async (t) => {
    const { store, commit } = await setUp(t);
    const reader = await store.open((await commit(Buffer.from('x'))).digest);
    await reader?.close();
    await reader?.close();
  });

  test(`${name}: the list holds every content, and nothing else`, async (t) => {
    const { store, commit } = await setUp(t);
    const committed = [await commit(Buffer.from('one')), await commit(Buffer.from('three'))];
    const gone = await commit(Buffer.from('gone'));
    await store.delete(gone.digest);
    const listed: string[] = [];
    for await (const digest of store.list()) listed.push(digest);
    assert.deepEqual(listed.toSorted(), committed.map(({ digest }) => digest).toSorted());
  });

  test(`${name}: how much room content takes is known when it is committed, and later`, async (t) => {
    const { store, commit } = await setUp(t);
    const { digest, stored } = await commit(randomBytes(10_000));
    assert.equal(stored.size, 10_000);
    assert.ok(stored.allocated >= 10_000);
    assert.deepEqual(await store.stat(digest), stored);
    await store.delete(digest);
    assert.equal(await store.stat(digest), undefined);
  });
}
