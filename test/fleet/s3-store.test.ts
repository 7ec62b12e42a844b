import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import { systemClock } from '../../src/clock.ts';
import { S3Store } from '../../src/fleet/objects/s3-store.ts';
import { assertKeepsRules } from '../helpers/object-store-rules.ts';
import { ScriptedBucket } from '../helpers/scripted-bucket.ts';

const HOUR_MS = 3_600_000;

function storeIn({ url }: ScriptedBucket): S3Store {
  return new S3Store({
    ...{ bucket: 'millpond', endpoint: url, region: 'us-east-1', prefix: 'test/', ca: undefined },
    clock: systemClock,
    credentials: async () => ({ accessKeyId: 'test', secretAccessKey: 'test' }),
  });
}

for (const [what, clockAheadMs] of [
  ['an hour behind', HOUR_MS],
  ['an hour ahead', -HOUR_MS],
] as const) {
  test(`a node whose clock is ${what} uses the store from the first request on, and signs with the right time from then on`, async (t) => {
    const { signal } = new AbortController();
    const bytes = Buffer.from('content');
    const content = { size: bytes.length, open: () => Readable.from([bytes], { objectMode: false }) };
    const uses: ((store: S3Store) => Promise<unknown>)[] = [
      (store) => store.put('a', content, { signal }),
      (store) => store.get('a', { signal }),
      async (store) => {
        for await (const page of store.list('', signal)) assert.ok(page.length > 0);
      },
    ];
    const bucket = await ScriptedBucket.start(t);
    bucket.clockAheadMs = clockAheadMs;
    for (const first of uses) {
      const store = storeIn(bucket);
      await first(store);
      bucket.requests.length = 0;
      for (const use of uses) await use(store);
      assert.equal(bucket.requests.length, uses.length);
      store.close();
    }
  });
}

test('a store that calls every time wrong is asked twice, and the message says what to do', async (t) => {
  const bucket = await ScriptedBucket.start(t);
  bucket.script((_, reply) => {
    reply.fails = { status: 403, code: 'RequestTimeTooSkewed' };
  });
  const store = storeIn(bucket);
  await assert.rejects(store.get('a', { signal: new AbortController().signal }), {
    code: 'denied',
    message:
      "this machine's clock differs too much from that of the object store: set one of them, by NTP for example",
  });
  assert.equal(bucket.requests.length, 2);
  store.close();
});

test('the driver for S3 keeps the rules of object stores', async (t) => {
  const store = storeIn(await ScriptedBucket.start(t));
  await assertKeepsRules(t, store);
  store.close();
});
