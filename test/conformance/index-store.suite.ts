/** What every IndexStore must do; run it on each implementation. */

import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type {
  ContentRecord,
  IndexStore,
  RepositoryKey,
  TagKey,
  TagRecord,
} from '../../src/cache/index/index-store.ts';
import { digestOf } from '../../src/oci/digest.ts';
import type { Repository, Tag } from '../../src/oci/reference.ts';
import { cleanUp } from '../helpers/cleanup.ts';
import { tempDir } from '../helpers/temp-dir.ts';

const KEY: RepositoryKey = { upstream: 'docker.io', repository: 'library/alpine' as Repository };
const TAG: TagKey = { ...KEY, tag: '3.20' as Tag, accept: '' };
const DIGEST = digestOf(Buffer.from('a'));
const OTHER = digestOf(Buffer.from('b'));
const CONTENT: ContentRecord = { size: 1, allocated: 4096, usedAt: 1000 };
const RECORD: TagRecord = { digest: DIGEST, mediaType: 'm', size: 1, confirmedAt: 1000 };

async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = [];
  for await (const item of items) found.push(item);
  return found;
}

export function indexStoreSuite(name: string, open: (directory: string) => Promise<IndexStore>): void {
  async function setUp(t: TestContext) {
    const directory = await tempDir(t);
    const index = await open(directory);
    cleanUp(t, () => index.close());
    return { index, directory };
  }

  test(`${name}: what was never written is not there`, async (t) => {
    const { index } = await setUp(t);
    assert.equal(await index.tag(TAG), undefined);
    assert.equal(await index.permission(KEY, DIGEST), undefined);
    assert.equal(await index.sums(DIGEST), undefined);
    assert.deepEqual(await all(index.contents()), []);
    assert.deepEqual(await all(index.tags()), []);
    assert.deepEqual(await all(index.permissions(DIGEST)), []);
  });

  test(`${name}: a record that was looked for before it was written is found afterwards`, async (t) => {
    const { index } = await setUp(t);
    assert.equal(await index.tag(TAG), undefined);
    await index.write([{ put: 'tag', key: TAG, value: RECORD }]);
    assert.deepEqual(await index.tag(TAG), RECORD);
  });

  test(`${name}: a later write replaces an earlier one, and a deleted record is gone`, async (t) => {
    const { index } = await setUp(t);
    await index.write([{ put: 'tag', key: TAG, value: RECORD }]);
    assert.deepEqual(await index.tag(TAG), RECORD);
    await index.write([{ put: 'tag', key: TAG, value: { ...RECORD, confirmedAt: 2000 } }]);
    assert.equal((await index.tag(TAG))?.confirmedAt, 2000);
    await index.write([{ delete: 'tag', key: TAG }]);
    assert.equal(await index.tag(TAG), undefined);
  });

  test(`${name}: what a client insists on is another record than what everybody gets`, async (t) => {
    const { index } = await setUp(t);
    const insisting = { ...TAG, accept: 'application/x' };
    await index.write([{ put: 'tag', key: insisting, value: RECORD }]);
    assert.equal(await index.tag(TAG), undefined);
    assert.deepEqual(await index.tag(insisting), RECORD);
  });

  test(`${name}: repositories of the same name on two upstreams do not share permission`, async (t) => {
    const { index } = await setUp(t);
    await index.write([{ put: 'permission', key: KEY, digest: DIGEST, value: { size: 5 } }]);
    assert.deepEqual(await index.permission(KEY, DIGEST), { size: 5 });
    assert.equal(await index.permission({ ...KEY, upstream: 'ghcr.io' }, DIGEST), undefined);
  });

  test(`${name}: the contents are all that was recorded, and only content`, async (t) => {
    const { index } = await setUp(t);
    await index.write([
      { put: 'content', digest: DIGEST, value: CONTENT },
      { put: 'content', digest: OTHER, value: { ...CONTENT, mediaType: 'm', children: [DIGEST] } },
      { put: 'tag', key: TAG, value: RECORD },
      { put: 'permission', key: KEY, digest: DIGEST, value: {} },
      { put: 'sums', digest: DIGEST, value: 'abc=' },
    ]);
    assert.deepEqual(Object.fromEntries((await all(index.contents())).flat()), {
      [DIGEST]: CONTENT,
      [OTHER]: { ...CONTENT, mediaType: 'm', children: [DIGEST] },
    });
    await index.write([{ delete: 'content', digest: DIGEST }]);
    assert.deepEqual(
      (await all(index.contents())).flat().map(([digest]) => digest),
      [OTHER],
    );
    assert.equal(await index.sums(DIGEST), 'abc=');
    await index.write([{ delete: 'sums', digest: DIGEST }]);
    assert.equal(await index.sums(DIGEST), undefined);
  });

  test(`${name}: what is known of an object is kept, replaced and deleted, and is no content`, async (t) => {
    const { index } = await setUp(t);
    assert.equal(await index.object('blobs/a'), undefined);
    await index.write([{ put: 'object', name: 'blobs/a', value: '' }]);
    assert.equal(await index.object('blobs/a'), '');
    await index.write([{ put: 'object', name: 'blobs/a', value: 'second' }]);
    assert.equal(await index.object('blobs/a'), 'second');
    assert.deepEqual(await all(index.contents()), []);
    await index.write([{ delete: 'object', name: 'blobs/a' }]);
    assert.equal(await index.object('blobs/a'), undefined);
  });

  test(`${name}: tags come in the order of their names, of all repositories or of one, and from any place on`, async (t) => {
    const { index } = await setUp(t);
    const keys = [
      { ...TAG, accept: '' },
      { ...TAG, accept: 'application/x, application/y' },
      { ...TAG, tag: '3.21' as Tag },
      { ...TAG, repository: 'library/alpine_2' as Repository },
      { ...TAG, upstream: 'registry:5000', repository: 'a' as Repository },
    ];
    await index.write(keys.toReversed().map((key) => ({ put: 'tag', key, value: RECORD })));
    const found = await all(index.tags());
    assert.deepEqual(
      found.map(([key]) => key),
      keys,
    );
    assert.deepEqual(found[0]?.[1], RECORD);
    assert.deepEqual(
      (await all(index.tags(KEY))).map(([key]) => key),
      keys.slice(0, 3),
    );
    assert.deepEqual(
      (await all(index.tags(undefined, keys[2]))).map(([key]) => key),
      keys.slice(3),
    );
  });

  test(`${name}: every repository that may serve a digest is found by it`, async (t) => {
    const { index } = await setUp(t);
    const second = { upstream: 'registry:5000', repository: 'a/b' as Repository };
    await index.write([
      { put: 'permission', key: KEY, digest: DIGEST, value: { size: 5, expanded: true } },
      { put: 'permission', key: second, digest: DIGEST, value: {} },
      { put: 'permission', key: second, digest: OTHER, value: {} },
    ]);
    assert.deepEqual(await all(index.permissions(DIGEST)), [
      [KEY, { size: 5, expanded: true }],
      [second, {}],
    ]);
    await index.write([{ delete: 'permission', key: KEY, digest: DIGEST }]);
    assert.equal(await index.permission(KEY, DIGEST), undefined);
    assert.deepEqual(await all(index.permissions(DIGEST)), [[second, {}]]);
  });

  test(`${name}: records survive closing and opening again`, async (t) => {
    const { index, directory } = await setUp(t);
    await index.write([{ put: 'tag', key: TAG, value: RECORD }]);
    await index.close();
    await index.close();
    const again = await open(directory);
    cleanUp(t, () => again.close());
    assert.deepEqual(await again.tag(TAG), RECORD);
  });
}
