/** What leaves the object store, with whole nodes and a real coordinator. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { contentName } from '../../src/fleet/objects/names.ts';
import { evictHalf } from '../helpers/fleet-eviction.ts';
import { TestFleet } from '../helpers/fleet-nodes.ts';
import { noise } from '../helpers/images.ts';
import { startCoordinator } from '../helpers/real-coordinator.ts';
import { missingPrograms } from '../helpers/real-processes.ts';

const skip = missingPrograms('redis-server');
const BLOB = noise(10_000, 'blob');

async function withBlob(t: TestContext) {
  const fleet = await TestFleet.start(t);
  const coordinator = await startCoordinator(t);
  const { objects } = fleet.bucket.config('') as { objects: Record<string, unknown> };
  const moreOfFleet = {
    objects: { ...objects, maxSize: '1GiB' },
    ...{ coordinator: { url: coordinator.url }, listen: '127.0.0.1:0' },
  };
  const digest = fleet.upstream.addContent(BLOB);
  const isStored = () => fleet.bucket.objects.has(`millpond/${contentName(digest)}`);
  const pull = async (node: Awaited<ReturnType<TestFleet['node']>>) => {
    assert.ok((await node.get(`/v2/org/app/blobs/${digest}`)).body.equals(BLOB));
  };
  return { fleet, coordinator, digest, isStored, pull, start: () => fleet.node({ moreOfFleet }) };
}

test(
  'a store that is too large keeps what is hot on any node, and no incomplete image; no pull fails afterwards',
  {
    skip,
  },
  (t) => evictHalf(t, 10),
);

test('what is being removed is written when that is over, and not before', { skip }, async (t) => {
  const { coordinator, digest, isStored, pull, start } = await withBlob(t);
  const a = await start();
  await coordinator.keepOfUse(digest, `removing ${await coordinator.now()}`);
  await pull(a);
  while ((await a.metric('millpond_fleet_request_duration_seconds_count', { operation: 'revive' })) < 2) {
    if (a.clock.nextWakeMs <= 250) a.clock.advance(1);
    await setImmediate();
  }
  assert.equal(isStored(), false);
  await coordinator.keepOfUse(digest, 'gone');
  while (!isStored()) {
    if (a.clock.nextWakeMs <= 250) a.clock.advance(1);
    await setImmediate();
  }
});

test('what is leaving stays when it is read from the store, and when it is written again', {
  skip,
}, async (t) => {
  const { coordinator, digest, isStored, pull, start } = await withBlob(t);
  const leaving = `1000 leaving ${await coordinator.now()}`;
  await coordinator.keepOfUse(digest, leaving);
  const a = await start();
  await pull(a);
  await a.uploaded();
  assert.ok(isStored());
  assert.match((await coordinator.keptOfUse(digest)) ?? '', /^\d{13}$/, 'written');
  await coordinator.keepOfUse(digest, leaving);
  const b = await start();
  await pull(b);
  while ((await coordinator.keptOfUse(digest)) === leaving);
  assert.match((await coordinator.keptOfUse(digest)) ?? '', /^\d{13}$/, 'read');
});
