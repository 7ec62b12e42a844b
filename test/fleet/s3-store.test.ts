import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemClock } from '../../src/clock.ts';
import { S3Store } from '../../src/fleet/objects/s3-store.ts';
import { assertKeepsRules, assertRefusesLateRemovals, content } from '../helpers/object-store-rules.ts';
import { ScriptedBucket } from '../helpers/scripted-bucket.ts';

const SETTINGS = { bucket: 'millpond', region: 'us-east-1', prefix: 'test/', ca: undefined };
const credentials = async () => ({ accessKeyId: 'test', secretAccessKey: 'test' });

test('the driver for S3 keeps the rules of object stores', async (t) => {
  const { url } = await ScriptedBucket.start(t);
  const store = new S3Store({ ...SETTINGS, endpoint: url, clock: systemClock, credentials });
  await assertKeepsRules(t, store);
  store.close();
});

test('a removal that was prepared long ago is refused', async (t) => {
  const bucket = await ScriptedBucket.start(t);
  bucket.now = () => systemClock.now();
  await assertRefusesLateRemovals((clock) => {
    return new S3Store({ ...SETTINGS, endpoint: bucket.url, clock, credentials });
  });
});

test('writes in parts that nobody has ended are given up after a day, and only our own', async (t) => {
  const bucket = await ScriptedBucket.start(t);
  const store = new S3Store({ ...SETTINGS, endpoint: bucket.url, clock: systemClock, credentials });
  const { signal } = new AbortController();
  const [old, young] = [new Date(systemClock.now() - 90_000), new Date(systemClock.now() - 30_000)];
  for (const [name, begun] of [
    ['test/blobs/old', old],
    ['test/blobs/new', young],
    ['test/others/old', old],
    ['another/blobs/old', old],
  ] as const)
    bucket.writes.set(name, begun);
  assert.equal(await store.abortWrites((name) => name.startsWith('blobs/'), 60_000, signal), 1);
  assert.deepEqual([...bucket.writes.keys()], ['test/blobs/new', 'test/others/old', 'another/blobs/old']);
  store.close();
});

test('a store that knows no condition gets objects replaced and removed all the same', async (t) => {
  const bucket = await ScriptedBucket.start(t);
  const store = new S3Store({ ...SETTINGS, endpoint: bucket.url, clock: systemClock, credentials });
  const { signal } = new AbortController();
  await store.put('a', content(Buffer.from('wrong')), { signal });
  bucket.script(({ ifMatch }, reply) => {
    if (ifMatch !== undefined) reply.fails = { status: 501, code: 'NotImplemented' };
  });
  const written = await store.put('a', content(Buffer.from('right')), { onlyIf: { etag: '"x"' }, signal });
  assert.notEqual(written, 'present');
  assert.equal(bucket.objects.get('test/a')?.bytes.toString(), 'right');
  const remove = await store.prepareDelete('a', { ifMatch: '"x"', lastsMs: 60_000, signal });
  assert.equal(await remove(signal), 'removed');
  assert.equal(bucket.objects.size, 0);
  store.close();
});
