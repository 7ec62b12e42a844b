/** Nodes that an upstream counts as one keep its limits together. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { digestOf } from '../../src/oci/digest.ts';
import { TestFleet } from '../helpers/fleet-nodes.ts';
import { startCoordinator } from '../helpers/real-coordinator.ts';
import { missingPrograms } from '../helpers/real-processes.ts';
import { errorReply } from '../helpers/scripted-upstream.ts';

const skip = missingPrograms('redis-server');
const MANIFEST = '/v2/org/app/manifests/1';

/** @param egresses one node each; undefined: none is configured */
async function nodesOf(
  t: TestContext,
  egresses: (string | undefined)[],
  settings: Record<string, unknown> = {},
) {
  const fleet = await TestFleet.start(t);
  const coordinator = await startCoordinator(t);
  const start = (egress: string | undefined) =>
    fleet.node({
      upstreams: { 'docker.io': { url: fleet.upstream.url, ...settings } },
      moreOfFleet: {
        ...{ coordinator: { url: coordinator.url }, listen: '127.0.0.1:0' },
        ...(egress === undefined ? {} : { egress }),
      },
    });
  const nodes = await Promise.all(egresses.map(start));
  const [a, b, c] = nodes;
  assert.ok(a && b);
  const image = fleet.upstream.addImage('org/app', '1', { layers: [1000] });
  const refuse = (kind: 'manifest' | 'blob', headers: Record<string, string> = {}) =>
    fleet.upstream.script(
      { kind },
      (reply) =>
        Object.assign(reply, errorReply(429, 'TOOMANYREQUESTS', { 'retry-after': '30', ...headers })),
      { times: 1 },
    );
  return { fleet, coordinator, a, b, c, image, refuse };
}

test('after a 429 no node of the same egress asks until its time is over, and one of another egress goes on', {
  skip,
}, async (t) => {
  const { fleet, a, b, c, refuse } = await nodesOf(t, ['site-a', 'site-a', 'site-b']);
  assert.ok(c);
  refuse('manifest');
  assert.equal((await a.get(MANIFEST)).status, 429);
  const reply = await b.get(MANIFEST);
  assert.equal(reply.status, 429);
  const left = Number(reply.headers['retry-after']);
  assert.ok(left > 20 && left <= 30, `${left} s`);
  assert.equal(fleet.upstream.count('manifest'), 1, 'the second node has not asked');
  assert.equal((await c.get(MANIFEST)).status, 200);
  assert.equal(fleet.upstream.count('manifest'), 2);
  const told = 'upstream rate limit of another node: requests of this kind stop until it ends';
  assert.equal(b.log.filter(({ msg }) => msg === told).length, 1);
});

test('a 429 for manifests stops no layers, and one for layers no manifests', { skip }, async (t) => {
  const { fleet, a, b, image, refuse } = await nodesOf(t, [undefined, undefined]);
  const [layer] = image.blobs;
  assert.ok(layer);
  refuse('blob');
  const blob = `/v2/org/app/blobs/${digestOf(layer)}`;
  assert.equal((await a.get(blob)).status, 429);
  // Else the second node would follow the first, which has nothing.
  while ((await a.metric('millpond_fleet_request_duration_seconds_count', { operation: 'release' })) === 0);
  assert.equal((await b.get(blob)).status, 429);
  assert.equal(fleet.upstream.count('blob'), 1);
  assert.equal((await b.get(MANIFEST)).status, 200);
});

test('without an egress, nodes count as one if upstream counts their requests to the same source', {
  skip,
}, async (t) => {
  for (const [own, others] of [
    ['192.0.2.1', '192.0.2.1'],
    ['192.0.2.1', '192.0.2.2'],
  ]) {
    const { fleet, a, b, refuse } = await nodesOf(t, [undefined, undefined]);
    fleet.upstream.addImage('org/other', '1');
    fleet.upstream.script(
      { kind: 'manifest' },
      ({ headers }) => {
        headers['docker-ratelimit-source'] = others;
      },
      { times: 1 },
    );
    assert.equal((await b.get('/v2/org/other/manifests/1')).status, 200); // it learns how it is counted
    refuse('manifest', { 'docker-ratelimit-source': own ?? '' });
    assert.equal((await a.get(MANIFEST)).status, 429);
    assert.equal((await b.get(MANIFEST)).status, own === others ? 429 : 200);
  }
});

test('pulls that one node has left keep another one from spending a reserved pull', { skip }, async (t) => {
  const settings = { rateLimit: { reserve: 10 } };
  const { fleet, coordinator, a, b } = await nodesOf(t, ['site-a', 'site-a'], settings);
  assert.equal((await b.get(MANIFEST)).status, 200);
  await b.uploaded();
  await coordinator.forgetAll(); // also that upstream has just said what the tag means
  const moved = fleet.upstream.addImage('org/app', '1', { seed: 'moved' });
  const other = fleet.upstream.addImage('org/other', '1');
  fleet.upstream.script(
    { kind: 'manifest', path: /org\/other/ },
    ({ headers }) => {
      headers['ratelimit-remaining'] = '10 ; w=3600';
    },
    { times: 1 },
  );
  assert.equal((await a.get('/v2/org/other/manifests/1')).headers['docker-content-digest'], other.top.digest);
  while ((await a.metric('millpond_fleet_request_duration_seconds_count', { operation: 'limit' })) === 0);
  b.clock.advance(600_000);
  const kept = await b.get(MANIFEST);
  assert.equal(kept.status, 200);
  assert.notEqual(kept.headers['docker-content-digest'], moved.top.digest, 'it is served as it was');
  assert.equal(kept.headers['cache-status'], 'millpond; hit; detail=stale');
});

test('without a coordinator that answers, each node goes by what it is told itself', async (t) => {
  const fleet = await TestFleet.start(t);
  const coordinator = { url: 'valkey://127.0.0.1:9' };
  const start = () => fleet.node({ moreOfFleet: { coordinator, listen: '127.0.0.1:0' } });
  const [a, b] = [await start(), await start()];
  fleet.upstream.addImage('org/app', '1');
  fleet.upstream.script(
    { kind: 'manifest' },
    (reply) => Object.assign(reply, errorReply(429, 'TOOMANYREQUESTS', { 'retry-after': '30' })),
    { times: 1 },
  );
  assert.equal((await a.get(MANIFEST)).status, 429);
  assert.equal((await b.get(MANIFEST)).status, 200);
});
