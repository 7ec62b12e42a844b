/** What every object store driver must do, whatever store is behind it. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import type { TestContext } from 'node:test';
import { type Clock, systemClock } from '../../src/clock.ts';
import type { ListedObject, ObjectContent, ObjectStore } from '../../src/fleet/objects/object-store.ts';
import { noise } from './images.ts';

/** Larger than one page of a list (1000). */
const MANY = 1_050;
const MANY_AT_A_TIME = 16;
const LATE_MS = 120_000;

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
  'a write that must replace one version leaves every other': async (store) => {
    const [first, second] = [Buffer.from('first'), Buffer.from('second')];
    const put = (bytes: Buffer, etag: string) =>
      store.put('b/replaced', content(bytes), { onlyIf: { etag }, signal });
    assert.equal(await put(first, '"0123"'), 'present', 'nothing is there that could be replaced');
    assert.equal(await store.get('b/replaced', { signal }), undefined);
    const written = await store.put('b/replaced', content(first), { signal });
    assert.ok(written !== 'present');
    assert.notEqual(await put(second, written.etag), 'present');
    assert.equal(await put(first, written.etag), 'present');
    assert.equal(await textOf(store, 'b/replaced'), 'second');
  },
  'a removal that was prepared is carried out when it is asked for': async (store) => {
    const written = await store.put('b/prepared', content(Buffer.from('x')), { signal });
    assert.ok(written !== 'present');
    const ifMatch = written.etag;
    const remove = await store.prepareDelete('b/prepared', { ifMatch, lastsMs: 60_000, signal });
    assert.equal(await textOf(store, 'b/prepared'), 'x');
    assert.equal(await remove(signal), 'removed');
    assert.equal(await store.get('b/prepared', { signal }), undefined);
    const again = await store.prepareDelete('b/prepared', { lastsMs: 60_000, signal });
    assert.equal(await again(signal), 'removed');
  },
  'a list says of each object which version it is': async (store) => {
    await store.put('g/one', content(Buffer.from('x')), { signal });
    const [listed] = await listAll(store, 'g/');
    const found = await store.get('g/one', { signal });
    found?.body.destroy();
    assert.equal(listed?.etag, found?.etag);
  },
  'with no writes in parts under way there are none to give up': async (store) => {
    assert.equal(await store.abortWrites(() => true, 0, signal), 0);
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

/** @param open a driver whose machine has this clock */
export async function assertRefusesLateRemovals(
  open: (clock: Pick<Clock, 'now'>) => ObjectStore,
): Promise<void> {
  const store = open({ now: () => systemClock.now() - LATE_MS });
  await store.put('f/kept', content(Buffer.from('x')), { signal });
  const remove = await store.prepareDelete('f/kept', { lastsMs: LATE_MS / 2, signal });
  await assert.rejects(remove(signal), { name: 'EngineError', code: 'denied' });
  assert.equal(await textOf(store, 'f/kept'), 'x');
  store.close();
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
