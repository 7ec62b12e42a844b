import { test } from 'node:test';
import { systemClock } from '../../src/clock.ts';
import { S3Store } from '../../src/fleet/objects/s3-store.ts';
import { assertKeepsRules } from '../helpers/object-store-rules.ts';
import { ScriptedBucket } from '../helpers/scripted-bucket.ts';

test('the driver for S3 keeps the rules of object stores', async (t) => {
  const { url } = await ScriptedBucket.start(t);
  const store = new S3Store({
    ...{ bucket: 'millpond', endpoint: url, region: 'us-east-1', prefix: 'test/', ca: undefined },
    clock: systemClock,
    credentials: async () => ({ accessKeyId: 'test', secretAccessKey: 'test' }),
  });
  await assertKeepsRules(t, store);
  store.close();
});
