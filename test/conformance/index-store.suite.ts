/** What every IndexStore must do; run it on each implementation. */

import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { IndexStore, RepositoryKey, TagKey, TagRecord } from '../../src/cache/index-store.ts';
import { digestOf } from '../../src/oci/digest.ts';
import type { Repository, Tag } from '../../src/oci/reference.ts';
import { cleanUp } from '../helpers/cleanup.ts';
import { tempDir } from '../helpers/temp-dir.ts';

const KEY: RepositoryKey = { upstream: 'docker.io', repository: 'library/alpine' as Repository };
const TAG: TagKey = { ...KEY, tag: '3.20' as Tag, accept: '' };
const DIGEST = digestOf(Buffer.from('a'));
const RECORD: TagRecord = { digest: DIGEST, mediaType: 'm', size: 1, confirmedAt: 1000 };

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
    assert.equal(await index.link(KEY, DIGEST), undefined);
    assert.equal(await index.content(DIGEST), undefined);
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
    await index.write([{ put: 'link', key: KEY, digest: DIGEST, value: { size: 5 } }]);
    assert.deepEqual(await index.link(KEY, DIGEST), { size: 5 });
    assert.equal(await index.link({ ...KEY, upstream: 'ghcr.io' }, DIGEST), undefined);
  });

  test(`${name}: the contents are all that was recorded, and only content`, async (t) => {
    const { index } = await setUp(t);
    const other = digestOf(Buffer.from('b'));
    await index.write([
      { put: 'content', digest: DIGEST, value: { size: 1 } },
      { put: 'content', digest: other, value: { size: 2, mediaType: 'm' } },
      { put: 'tag', key: TAG, value: RECORD },
      { put: 'link', key: KEY, digest: DIGEST, value: {} },
    ]);
    const contents = new Map<string, unknown>();
    for await (const [digest, record] of index.contents()) contents.set(digest, record);
    assert.deepEqual(Object.fromEntries(contents), {
      [DIGEST]: { size: 1 },
      [other]: { size: 2, mediaType: 'm' },
    });
    await index.write([{ delete: 'content', digest: DIGEST }]);
    assert.equal(await index.content(DIGEST), undefined);
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
