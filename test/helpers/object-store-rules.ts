/** What every object store driver must do, whatever store is behind it. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import type { TestContext } from 'node:test';
import type { ListedObject, ObjectContent, ObjectStore } from '../../src/fleet/objects/object-store.ts';
import { noise } from './images.ts';

/** Larger than one page of a list (1000). */
const MANY = 1_050;
const MANY_AT_A_TIME = 16;

export function content(
  bytes: Buffer,
  sha256 = createHash('sha256').update(bytes).digest('hex'),
): ObjectContent {
  return { size: bytes.length, sha256, open: () => Readable.from([bytes], { objectMode: false }) };
}

export const OBJECT_STORE_RULES: Record<string, (store: ObjectStore) => Promise<void>> = {
  'an object is read as it was written': async (store) => {
    const bytes = noise(300_000, 'whole');
    const written = await store.put('a/whole', content(bytes), { signal });
    const found = await store.get('a/whole', { signal });
    assert.ok(found !== undefined && found.size === bytes.length && found.etag !== '');
    assert.deepEqual(written, { etag: found.etag });
    assert.ok(found.writtenAt > 0);
    assert.ok((await buffer(found.body)).equals(bytes));
  },
  'a part of it is read, and its whole size is told': async (store) => {
    const bytes = noise(1000, 'part');
    await store.put('a/part', content(bytes), { signal });
    for (const [from, to] of [
      [0, 10],
      [990, 1000],
      [500, 2000],
      [999, undefined],
    ] as const) {
      const found = await store.get('a/part', { from, ...(to === undefined ? {} : { to }), signal });
      assert.ok((await buffer(found?.body ?? Readable.from([]))).equals(bytes.subarray(from, to)));
      assert.equal(found?.size, 1000);
    }
  },
  'whoever has its presigned URL reads an object, or a part of it': async (store) => {
    const bytes = noise(1000, 'presigned');
    await store.put('a/presigned', content(bytes), { signal });
    const url = await store.presign('a/presigned', { forMs: 900_000, signal });
    assert.ok(Buffer.from(await (await fetch(url)).arrayBuffer()).equals(bytes));
    const part = await fetch(url, { headers: { range: 'bytes=10-19' } });
    assert.equal(part.status, 206);
    assert.ok(Buffer.from(await part.arrayBuffer()).equals(bytes.subarray(10, 20)));
    assert.equal(new URL(url).searchParams.get('X-Amz-Expires'), '900');
  },
  'what is not there is not found': async (store) => {
    assert.equal(await store.get('a/missing', { signal }), undefined);
  },
  'a second write that must be the first leaves what is there': async (store) => {
    const [first, second] = [Buffer.from('first'), Buffer.from('second')];
    assert.notEqual(await store.put('b/once', content(first), { onlyIf: 'absent', signal }), 'present');
    assert.equal(await store.put('b/once', content(second), { onlyIf: 'absent', signal }), 'present');
    assert.equal(await textOf(store, 'b/once'), 'first');
    assert.notEqual(await store.put('b/once', content(second), { signal }), 'present');
    assert.equal(await textOf(store, 'b/once'), 'second');
  },
  'what is deleted is gone, and to delete it again is no error': async (store) => {
    await store.put('e/deleted', content(Buffer.from('deleted')), { signal });
    await store.put('e/deleted too', content(Buffer.from('stays')), { signal });
    await store.delete('e/deleted', signal);
    await store.delete('e/deleted', signal);
    assert.equal(await store.get('e/deleted', { signal }), undefined);
    assert.equal(await textOf(store, 'e/deleted too'), 'stays');
  },
  'bytes that are not those of the digest are refused, and nothing is left': async (store) => {
    const wrong = content(Buffer.from('right'), createHash('sha256').update('wrong').digest('hex'));
    await assert.rejects(store.put('c/wrong', wrong, { signal }), { name: 'EngineError' });
    assert.equal(await store.get('c/wrong', { signal }), undefined);
  },
  'an upload that breaks off leaves nothing': async (store) => {
    const open = () =>
      Readable.from(
        (async function* () {
          yield Buffer.alloc(1000);
          throw new Error('the disk failed');
        })(),
        { objectMode: false },
      );
    await assert.rejects(store.put('c/broken', { size: 5000, open }, { signal }));
    assert.equal(await store.get('c/broken', { signal }), undefined);
  },
  'a list has every object below its prefix, over several pages, and no other': async (store) => {
    const left = Array.from({ length: MANY }, (_, at) => `d/many/${at}`).values();
    const lane = async () => {
      for (const name of left) await store.put(name, content(Buffer.from(name)), { signal });
    };
    await Promise.all(Array.from({ length: MANY_AT_A_TIME }, lane));
    await store.put('d/other', content(Buffer.from('other')), { signal });
    const listed = await listAll(store, 'd/many/');
    assert.equal(new Set(listed.map(({ name }) => name)).size, MANY);
    assert.ok(listed.every(({ name, size }) => size === Buffer.byteLength(name)));
  },
};

export async function assertKeepsRules(t: TestContext, store: ObjectStore): Promise<void> {
  for (const [name, rule] of Object.entries(OBJECT_STORE_RULES)) await t.test(name, () => rule(store));
}

const { signal } = new AbortController();

async function textOf(store: ObjectStore, name: string): Promise<string> {
  const found = await store.get(name, { signal });
  return found === undefined ? '' : (await buffer(found.body)).toString();
}

async function listAll(store: ObjectStore, prefix: string): Promise<ListedObject[]> {
  const listed: ListedObject[] = [];
  for await (const page of store.list(prefix, signal)) listed.push(...page);
  return listed;
}
