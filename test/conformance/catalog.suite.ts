/** What every catalog must do. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { Catalog } from '../../src/cache/catalog/catalog.ts';
import type { ContentRecord } from '../../src/cache/index/index-store.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { OCI_INDEX, OCI_MANIFEST } from '../../src/oci/manifest.ts';

const [layer, other, image, index] = ['layer', 'other', 'image', 'index'].map((name) =>
  digestOf(Buffer.from(name)),
) as [Digest, Digest, Digest, Digest];
type Digest = ReturnType<typeof digestOf>;

const blob: ContentRecord = { size: 10, allocated: 4096, usedAt: 1 };
const RECORDS: readonly [Digest, ContentRecord][] = [
  [layer, blob],
  [other, blob],
  [image, { ...blob, mediaType: OCI_MANIFEST, children: [layer] }],
  [index, { ...blob, mediaType: OCI_INDEX, children: [image] }],
];

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}

/** @param open gives a catalog of just these records, in the order of their use */
export function catalogSuite(
  name: string,
  open: (t: TestContext, records: typeof RECORDS) => Promise<Catalog>,
): void {
  test(`${name}: knows what is here, and nothing else`, async (t) => {
    const catalog = await open(t, RECORDS);
    assert.equal((await catalog.get(image))?.mediaType, OCI_MANIFEST);
    assert.equal(await catalog.get(digestOf(Buffer.from('absent'))), undefined);
    const manifests = await collect(catalog.manifests());
    assert.deepEqual(new Set(manifests.map(([digest]) => digest)), new Set([image, index]));
  });

  test(`${name}: a closure holds all below, what lists others first`, async (t) => {
    const catalog = await open(t, RECORDS);
    assert.deepEqual(await catalog.closure(index), [index, image, layer]);
    assert.deepEqual(await catalog.closure(digestOf(Buffer.from('absent'))), []);
    const parents = await catalog.parentsOf([layer, other, image]);
    assert.deepEqual([parents.get(layer), parents.get(other), parents.get(image)], [[image], [], [index]]);
  });

  test(`${name}: where content came from is kept`, async (t) => {
    const catalog = await open(t, RECORDS);
    await catalog.setOrigin([layer, digestOf(Buffer.from('absent'))], 'imported');
    assert.equal((await catalog.get(layer))?.origin, 'imported');
    assert.equal((await catalog.get(other))?.origin, undefined);
    await catalog.setOrigin([layer], 'mirrored');
    assert.equal((await catalog.get(layer))?.origin, undefined);
  });

  test(`${name}: what is removed is gone, and its bytes are told`, async (t) => {
    const catalog = await open(t, RECORDS);
    assert.equal(await catalog.remove([layer, digestOf(Buffer.from('absent'))]), 4096);
    assert.equal(await catalog.get(layer), undefined);
    assert.deepEqual(await catalog.closure(image), [image]);
  });

  test(`${name}: a hold may be released twice`, async (t) => {
    const catalog = await open(t, RECORDS);
    const release = catalog.hold(layer);
    catalog.touch(layer);
    release();
    release();
    assert.ok(await catalog.get(layer));
  });
}
