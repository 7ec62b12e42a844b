/** Nodes whose coordinator has gone away go by what they knew last. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { type FleetNode, introduce, moving, TestFleet } from '../helpers/fleet-nodes.ts';
import { noise } from '../helpers/images.ts';
import { startCoordinator } from '../helpers/real-coordinator.ts';
import { missingPrograms } from '../helpers/real-processes.ts';
import { errorReply } from '../helpers/scripted-upstream.ts';

const skip = missingPrograms('redis-server');

/** Nodes that know each other, and have no coordinator any more. @param sealed whether a node is */
async function nodesOf(t: TestContext, sealed: boolean[]) {
  const fleet = await TestFleet.start(t);
  const coordinator = await startCoordinator(t);
  const nodes: FleetNode[] = [];
  for (const isSealed of sealed) {
    const moreOfFleet = { coordinator: { url: coordinator.url }, listen: '127.0.0.1:0' };
    nodes.push(await fleet.node({ sealed: isSealed, moreOfFleet }));
  }
  await introduce(nodes);
  await coordinator.process.kill();
  const blobs = Array.from({ length: 12 }, (_, at) => noise(200_000, `blob ${at}`));
  const cold = blobs.map((blob) => ({ blob, path: `/v2/org/app/blobs/${fleet.upstream.addContent(blob)}` }));
  return { fleet, nodes, cold };
}

test('a cold blob that all nodes are asked for is still fetched once', { skip }, async (t) => {
  const { fleet, nodes, cold } = await nodesOf(t, [false, false, false]);
  for (const { blob, path } of cold) {
    const replies = await Promise.all(nodes.map((node) => node.get(path)));
    for (const reply of replies) assert.ok(reply.body.equals(blob));
  }
  assert.equal(fleet.upstream.count('blob', 'GET'), cold.length);
  const fetched = await Promise.all(
    nodes.map((node) => node.metric('millpond_fill_bytes_total', { source: 'upstream' })),
  );
  assert.ok(
    fetched.every((bytes) => bytes > 0),
    'each node is chosen for some',
  );
});

test('a node that is gone is chosen no more: the others still fetch once', { skip }, async (t) => {
  const { fleet, nodes, cold } = await nodesOf(t, [false, false, false]);
  const [gone, ...others] = nodes;
  assert.ok(gone);
  await moving(gone.app.close(), () => gone.clock.advance(1_000)); // its drainTimeout
  for (const { blob, path } of cold) {
    const replies = await Promise.all(others.map((node) => node.get(path)));
    for (const reply of replies) assert.ok(reply.body.equals(blob));
  }
  assert.equal(fleet.upstream.count('blob', 'GET'), cold.length);
});

test('a chosen node that may not ask upstream keeps nobody from it', { skip }, async (t) => {
  const { fleet, nodes, cold } = await nodesOf(t, [false, true]);
  const [asked] = nodes;
  for (const { blob, path } of cold) assert.ok((await asked?.get(path))?.body.equals(blob));
  assert.equal(fleet.upstream.count('blob', 'GET'), cold.length);
});

test('a sealed node has nothing fetched for it', { skip }, async (t) => {
  const { fleet, nodes, cold } = await nodesOf(t, [true, false]);
  const [sealed] = nodes;
  for (const { path } of cold) assert.ok(((await sealed?.get(path))?.status ?? 0) >= 400);
  assert.equal(fleet.upstream.requests.length, 0);
});

test('what the chosen node has is not given without the word of upstream', { skip }, async (t) => {
  const { fleet, nodes, cold } = await nodesOf(t, [false, false]);
  for (const { path } of cold) await nodes[0]?.get(path); // one of the two has each of them, or both
  fleet.upstream.script({ path: /org\/other/ }, (reply) => Object.assign(reply, errorReply(403, 'DENIED')));
  for (const { path } of cold)
    assert.equal((await nodes[1]?.get(path.replace('org/app', 'org/other')))?.status, 403);
});

test('wrong bytes of a chosen node are read from upstream at the next try', { skip }, async (t) => {
  const { fleet, nodes, cold } = await nodesOf(t, [false, false]);
  const [a] = nodes;
  assert.ok(a);
  let rejected = 0;
  for (const { blob, path } of cold) {
    fleet.upstream.script(
      { kind: 'blob', method: 'GET' },
      (reply) => {
        reply.corruptAt = 100_000;
      },
      { times: 1 },
    );
    await assert.rejects(a.get(path));
    rejected += 1;
    fleet.upstream.clearScripts();
    assert.ok((await a.get(path)).body.equals(blob));
  }
  const counted = await a.metric('millpond_content_rejected_total');
  assert.equal(counted, rejected);
});
