/** Nodes that agree by a real coordinator. Their clocks stand still; that of the coordinator does not. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { FOLLOWERS } from '../../src/fleet/nodes/followers.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { type FleetNode, TestFleet } from '../helpers/fleet-nodes.ts';
import { noise } from '../helpers/images.ts';
import { startCoordinator } from '../helpers/real-coordinator.ts';
import { missingPrograms } from '../helpers/real-processes.ts';
import { runMillpond } from '../helpers/run-millpond.ts';

const skip = missingPrograms('redis-server');
const BLOB = noise(600_000, 'blob');

async function nodesOf(t: TestContext, count: number, url?: string) {
  const fleet = await TestFleet.start(t);
  const coordinator = { url: url ?? (await startCoordinator(t)).url };
  const start = () => fleet.node({ moreOfFleet: { coordinator, listen: '127.0.0.1:0' } });
  const nodes: FleetNode[] = [];
  for (let at = 0; at < count; at += 1) nodes.push(await start());
  const [a, b = a] = nodes;
  assert.ok(a && b);
  return { fleet, coordinator, a, b, start, digest: fleet.upstream.addContent(BLOB) };
}

test('a cold blob that two nodes are asked for is fetched once, and followed while it comes', {
  skip,
}, async (t) => {
  const { fleet, a, b, digest } = await nodesOf(t, 2);
  const rest = Promise.withResolvers<void>();
  fleet.upstream.script({ kind: 'blob', method: 'GET' }, (reply) => {
    reply.stall = { after: 300_000, until: rest.promise };
  });
  const first = a.get(`/v2/org/app/blobs/${digest}`);
  await fleet.upstream.waitForBytes(300_000);
  const second = b.get(`/v2/org/app/blobs/${digest}`);
  while ((await b.metric('millpond_fill_bytes_total', { source: 'node' })) === 0);
  rest.resolve();
  assert.ok((await first).body.equals(BLOB));
  const reply = await second;
  assert.ok(reply.body.equals(BLOB));
  assert.equal(reply.headers['cache-status'], 'millpond; fwd=uri-miss; stored; detail=node');
  assert.equal(fleet.upstream.count('blob', 'GET'), 1);
});

test('a node whose fetch is refused lets the other one try', { skip }, async (t) => {
  const { fleet, a, b, digest } = await nodesOf(t, 2);
  fleet.upstream.script(
    { kind: 'blob', method: 'GET' },
    (reply) => {
      reply.status = 403;
    },
    { times: 1 },
  );
  assert.equal((await a.get(`/v2/org/app/blobs/${digest}`)).status, 403);
  assert.ok((await b.get(`/v2/org/app/blobs/${digest}`)).body.equals(BLOB));
});

test('a node that stops in the middle is followed no longer: the other one goes on at the same byte', {
  skip,
}, async (t) => {
  const { fleet, a, b, digest } = await nodesOf(t, 2);
  const never = new Promise(() => undefined);
  fleet.upstream.script(
    { kind: 'blob', method: 'GET' },
    (reply) => {
      reply.stall = { after: 300_000, until: never };
    },
    { times: 1 },
  );
  const first = a.get(`/v2/org/app/blobs/${digest}`).catch(() => 'cut');
  await fleet.upstream.waitForBytes(300_000);
  const second = b.get(`/v2/org/app/blobs/${digest}`);
  while ((await b.metric('millpond_fill_bytes_total', { source: 'node' })) === 0);
  const closing = a.app.close();
  while (a.clock.nextWakeMs <= 1_000) {
    a.clock.advance(1_000); // its drainTimeout
    await setImmediate();
  }
  await closing;
  await first;
  assert.ok((await second).body.equals(BLOB));
  assert.ok(fleet.upstream.blobBytesSent() < BLOB.length + 300_000);
});

test('of many nodes that want a blob at once, one asks upstream, and it sends the blob to ten of the others at most', {
  skip,
}, async (t) => {
  const { fleet, a, b, start, digest } = await nodesOf(t, 2);
  const others = [b];
  while (others.length <= FOLLOWERS + 2) others.push(await start());
  a.clock.advance(5_000); // it learns of the others
  while ((await a.metric('millpond_fleet_members')) <= others.length);
  const rest = Promise.withResolvers<void>();
  fleet.upstream.script({ kind: 'blob', method: 'GET' }, (reply) => {
    reply.stall = { after: 300_000, until: rest.promise };
  });
  const first = a.get(`/v2/org/app/blobs/${digest}`);
  await fleet.upstream.waitForBytes(300_000);
  const pulls = others.map((node) => node.get(`/v2/org/app/blobs/${digest}`));
  for (const node of others) {
    const came = (source: string) => node.metric('millpond_fill_bytes_total', { source });
    while ((await came('node')) + (await came('upstream')) === 0);
    assert.equal(await came('upstream'), 0, 'it did not ask upstream');
  }
  assert.equal(await a.metric('millpond_ingest_followers'), FOLLOWERS + 1, 'its own client, and ten nodes');
  rest.resolve();
  for (const { body } of await Promise.all([first, ...pulls])) assert.ok(body.equals(BLOB));
  assert.equal(fleet.upstream.count('blob', 'GET'), 1);
  assert.equal(fleet.upstream.blobBytesSent(), BLOB.length);
});

test('what a manifest allows on one node is served by another at once, without a word of upstream', {
  skip,
}, async (t) => {
  const { fleet, a, b } = await nodesOf(t, 2);
  const image = fleet.upstream.addImage('org/app', '1', { layers: [1000, 2000] });
  assert.equal((await a.get('/v2/org/app/manifests/1')).status, 200);
  for (const blob of image.blobs)
    assert.ok((await b.get(`/v2/org/app/blobs/${digestOf(blob)}`)).body.equals(blob));
  assert.equal(fleet.upstream.count('blob', 'HEAD'), 0);
  assert.equal((await b.get('/v2/org/app/manifests/1')).status, 200);
  assert.equal(fleet.upstream.count('manifest', 'HEAD'), 0, 'the tag is as fresh as on the other node');
});

test('nodes that were told a tag at the same time ask upstream once', { skip }, async (t) => {
  const { fleet, a, b } = await nodesOf(t, 2);
  fleet.upstream.addImage('org/app', '1');
  for (const node of [a, b]) await node.get('/v2/org/app/manifests/1');
  for (const node of [a, b]) {
    await node.uploaded();
    node.clock.advance(600_000);
  }
  fleet.upstream.requests.length = 0;
  for (const node of [a, b]) assert.equal((await node.get('/v2/org/app/manifests/1')).status, 200);
  assert.ok(fleet.upstream.count('manifest') <= 1);
});

test('a hit asks neither the coordinator nor the store', { skip }, async (t) => {
  const coordinator = await startCoordinator(t);
  const { fleet, a } = await nodesOf(t, 1, coordinator.url);
  const { blobs } = fleet.upstream.addImage('org/app', '1');
  const paths = ['manifests/1', ...blobs.map((blob) => `blobs/${digestOf(blob)}`)];
  const pull = async () => {
    for (const path of paths) assert.equal((await a.get(`/v2/org/app/${path}`)).status, 200);
  };
  await pull();
  await a.uploaded();
  const commands = async () => [...(await coordinator.commands())].filter(([name]) => name !== 'info');
  const [before, requests] = [await commands(), fleet.bucket.requests.length];
  assert.ok(before.length > 0 && requests > 0);
  await pull();
  assert.deepEqual(await commands(), before);
  assert.equal(fleet.bucket.requests.length, requests);
});

test('status names the nodes, and says why an engine is not used', { skip }, async (t) => {
  const { a, b } = await nodesOf(t, 2);
  b.clock.advance(5_000);
  a.clock.advance(5_000);
  while ((await a.metric('millpond_fleet_members')) < 2);
  const { stdout } = await runMillpond(a, ['status']);
  assert.match(stdout, /^fleet {6}0 objects wait to be uploaded$/m);
  assert.equal(stdout.match(/^node {7}http:\/\/127\.0\.0\.1:\d+, Millpond test/gm)?.length, 2);
  assert.equal(stdout.match(/, this one$/gm)?.length, 1);
});

test('without a coordinator that answers, each node fetches for itself, and says so', async (t) => {
  const { fleet, a, b, digest } = await nodesOf(t, 2, 'valkey://127.0.0.1:9');
  for (const node of [a, b]) assert.ok((await node.get(`/v2/org/app/blobs/${digest}`)).body.equals(BLOB));
  for (let at = 0; at < 5; at += 1) {
    const more = fleet.upstream.addContent(noise(1000, `more ${at}`));
    assert.equal((await a.get(`/v2/org/app/blobs/${more}`)).status, 200);
  }
  assert.equal(await a.metric('millpond_fleet_up', { engine: 'coordinator' }), 0);
  const { stdout } = await runMillpond(a, ['status']);
  assert.match(stdout, /^fleet: the coordinator is not used: /m);
});
