/** A node that is cut off from upstream gets what it misses by another one. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { digestOf } from '../../src/oci/digest.ts';
import { type FleetNode, introduce, moving, TestFleet } from '../helpers/fleet-nodes.ts';
import { noise } from '../helpers/images.ts';
import { startCoordinator } from '../helpers/real-coordinator.ts';
import { missingPrograms } from '../helpers/real-processes.ts';
import { errorReply } from '../helpers/scripted-upstream.ts';
import { TestProxy } from '../helpers/test-proxy.ts';

const skip = missingPrograms('redis-server');
const BLOB = noise(600_000, 'blob');
/** Its proxy is not there. It is the same upstream all the same. */
const CUT_OFF = { proxy: 'http://127.0.0.1:9' };

interface NodeOptions {
  upstream?: Record<string, unknown>;
  sealed?: boolean;
}

/** Nodes that know each other. The breaker of those that are cut off is open. */
async function nodesOf(t: TestContext, options: NodeOptions[]) {
  const fleet = await TestFleet.start(t);
  const coordinator = { url: (await startCoordinator(t)).url };
  const routes = { 'registry.test': Number(new URL(fleet.upstream.url).port) };
  const proxy = (await TestProxy.start(t, { routes })).url;
  const nodes: FleetNode[] = [];
  for (const { upstream = {}, sealed = false } of options) {
    const upstreams = { 'docker.io': { url: 'http://registry.test', proxy, ...upstream } };
    nodes.push(await fleet.node({ upstreams, sealed, moreOfFleet: { coordinator, listen: '127.0.0.1:0' } }));
  }
  await introduce(nodes);
  for (const [at, { upstream }] of options.entries())
    if (upstream === CUT_OFF) await openBreaker(nodes[at] as FleetNode, nodes);
  fleet.upstream.requests.length = 0;
  const [a, b] = nodes;
  assert.ok(a && b);
  return { fleet, a, b, digest: fleet.upstream.addContent(BLOB) };
}

/** Tries of an upstream are some hundred milliseconds apart. */
function tryAgain({ clock }: FleetNode): void {
  if ([100, 300].includes(clock.nextWakeMs)) clock.advance(clock.nextWakeMs);
}

/** Lets a node find out that it is cut off. @param nodes also those that it asks try again */
async function openBreaker(node: FleetNode, nodes: FleetNode[]): Promise<void> {
  await moving(node.get('/v2/org/no-such/tags/list'), () => nodes.forEach(tryAgain));
}

const relays = (node: FleetNode, outcome: 'brought' | 'failed') =>
  node.metric('millpond_fleet_relays_total', { outcome });

test('a whole image, tags and referrers are pulled through a node that is cut off, and asked of upstream once', {
  skip,
}, async (t) => {
  const { fleet, a, b } = await nodesOf(t, [{ upstream: CUT_OFF }, {}]);
  const image = fleet.upstream.addImage('org/app', '1', { layers: [100_000, 200_000] });
  const { digest } = image.manifests[0] ?? image.top;
  const referrers = Buffer.from('{"schemaVersion":2,"manifests":[]}');
  fleet.upstream.addReferrers(digest, referrers);
  const manifest = await a.get('/v2/org/app/manifests/1');
  assert.ok(manifest.body.equals(image.top.bytes));
  assert.equal(manifest.headers['cache-status'], 'millpond; fwd=uri-miss; stored');
  assert.equal((await a.get(`/v2/org/app/manifests/${digest}`)).status, 200);
  for (const blob of image.blobs) {
    const reply = await a.get(`/v2/org/app/blobs/${digestOf(blob)}`);
    assert.ok(reply.body.equals(blob));
    assert.equal(reply.headers['cache-status'], 'millpond; fwd=uri-miss; stored');
  }
  assert.match((await a.get('/v2/org/app/tags/list')).body.toString(), /"tags":\["1"\]/);
  assert.ok((await a.get(`/v2/org/app/referrers/${digest}`)).body.equals(referrers));
  assert.equal(fleet.upstream.count('manifest', 'GET'), digest === image.top.digest ? 1 : 2);
  assert.equal(fleet.upstream.count('blob', 'GET'), image.blobs.length);
  assert.equal(fleet.upstream.count('blob', 'HEAD'), 0);
  assert.equal(await relays(a, 'failed'), 0);
  assert.equal(await b.metric('millpond_store_objects'), 0, 'the other node keeps nothing of it');
});

test('a tag that another node was asked for is as fresh as any, and is confirmed through it', {
  skip,
}, async (t) => {
  const { fleet, a } = await nodesOf(t, [{ upstream: CUT_OFF }, {}]);
  fleet.upstream.addImage('org/app', '1', { seed: 'first' });
  for (let pull = 0; pull < 2; pull += 1) await a.get('/v2/org/app/manifests/1');
  assert.deepEqual(
    fleet.upstream.requests.splice(0).map(({ method }) => method),
    ['GET'],
  );
  const head = await a.head('/v2/org/other/manifests/1');
  assert.equal(head.status, 404, 'upstream has said so');
});

test('what upstream answers another node is what the client is told', { skip }, async (t) => {
  const { fleet, a } = await nodesOf(t, [{ upstream: CUT_OFF }, {}]);
  fleet.upstream.addImage('org/app', '1');
  const before = await relays(a, 'brought');
  assert.equal((await a.get('/v2/org/absent/manifests/1')).status, 404);
  fleet.upstream.script(
    { kind: 'manifest' },
    (reply) => Object.assign(reply, errorReply(429, 'TOOMANYREQUESTS', { 'retry-after': '30' })),
    { times: 1 },
  );
  const limited = await a.get('/v2/org/app/manifests/1');
  assert.equal(limited.status, 429);
  assert.equal(limited.headers['retry-after'], '30');
  assert.equal((await relays(a, 'brought')) - before, 2);
});

test('an answer of upstream sends nobody to another node', { skip }, async (t) => {
  const { fleet, a } = await nodesOf(t, [{}, {}]);
  for (const status of [401, 404, 429, 500]) {
    fleet.upstream.clearScripts();
    fleet.upstream.script({ kind: 'manifest' }, (reply) => Object.assign(reply, errorReply(status, 'NO')));
    const asked = await moving(a.get(`/v2/org/app${status}/manifests/1`), () => tryAgain(a));
    assert.ok(asked.status >= 400);
  }
  assert.equal((await relays(a, 'brought')) + (await relays(a, 'failed')), 0);
});

test('a sealed node asks nobody for what it misses', { skip }, async (t) => {
  const { fleet, a, digest } = await nodesOf(t, [{ sealed: true }, {}]);
  fleet.upstream.addImage('org/app', '1');
  assert.ok((await a.get('/v2/org/app/manifests/1')).status >= 400);
  assert.ok((await a.get(`/v2/org/app/blobs/${digest}`)).status >= 400);
  assert.equal(fleet.upstream.requests.length, 0);
});

test('a node that is sealed, and one that is cut off itself, ask upstream for nobody; a third one is found', {
  skip,
}, async (t) => {
  const lonely = await nodesOf(t, [{ upstream: CUT_OFF }, { upstream: CUT_OFF }, { sealed: true }]);
  lonely.fleet.upstream.addImage('org/app', '1');
  assert.ok((await lonely.a.get('/v2/org/app/manifests/1')).status >= 500);
  assert.equal(lonely.fleet.upstream.requests.length, 0);
  assert.equal(await relays(lonely.b, 'brought'), 0);
  const helped = await nodesOf(t, [{ upstream: CUT_OFF }, { sealed: true }, {}]);
  helped.fleet.upstream.addImage('org/app', '1');
  assert.equal((await helped.a.get('/v2/org/app/manifests/1')).status, 200);
});

test('wrong bytes reach no client, and do not count against upstream', { skip }, async (t) => {
  const { fleet, a, digest } = await nodesOf(t, [{ upstream: CUT_OFF }, {}]);
  fleet.upstream.script({ kind: 'blob' }, (reply) => {
    reply.corruptAt = 300_000;
  });
  await assert.rejects(a.get(`/v2/org/app/blobs/${digest}`));
  assert.equal(await a.metric('millpond_content_rejected_total', { upstream: 'fleet relay' }), 1);
  assert.equal(await a.metric('millpond_content_rejected_total', { upstream: 'docker.io' }), 0);
});

test('bytes that break off go on at the same byte', { skip }, async (t) => {
  const { fleet, a, digest } = await nodesOf(t, [{ upstream: CUT_OFF }, {}]);
  fleet.upstream.script(
    { kind: 'blob' },
    (reply) => {
      reply.cutAfter = 300_000;
    },
    { times: 1 },
  );
  assert.ok((await a.get(`/v2/org/app/blobs/${digest}`)).body.equals(BLOB));
  assert.equal(fleet.upstream.count('blob', 'GET'), 2);
  assert.ok(fleet.upstream.blobBytesSent() <= BLOB.length + 64 * 1024);
});

test('a node that is not cut off follows one that is, while its bytes come by a third', {
  skip,
}, async (t) => {
  const { fleet, a, b, digest } = await nodesOf(t, [{ upstream: CUT_OFF }, {}]);
  const rest = Promise.withResolvers<void>();
  fleet.upstream.script({ kind: 'blob', method: 'GET' }, (reply) => {
    reply.stall = { after: 300_000, until: rest.promise };
  });
  const first = a.get(`/v2/org/app/blobs/${digest}`);
  await fleet.upstream.waitForBytes(300_000);
  const second = b.get(`/v2/org/app/blobs/${digest}`);
  while ((await b.metric('millpond_fill_bytes_total', { source: 'node' })) === 0);
  rest.resolve();
  for (const reply of [await first, await second]) assert.ok(reply.body.equals(BLOB));
  assert.equal(fleet.upstream.count('blob', 'GET'), 1);
  assert.equal(await a.metric('millpond_fill_bytes_total', { source: 'relay' }), BLOB.length);
});

test('a digest that the store has for one repository is not given for another without the word of upstream', {
  skip,
}, async (t) => {
  const { fleet, a, b } = await nodesOf(t, [{ upstream: CUT_OFF }, {}]);
  const image = fleet.upstream.addImage('org/app', '1', { layers: [50_000] });
  const [layer] = image.blobs;
  assert.ok(layer);
  assert.equal((await b.get(`/v2/org/app/blobs/${digestOf(layer)}`)).status, 200);
  await b.uploaded();
  fleet.upstream.script({ path: /org\/other/ }, (reply) => Object.assign(reply, errorReply(403, 'DENIED')));
  const refused = await a.get(`/v2/org/other/blobs/${digestOf(layer)}`);
  assert.ok([403, 404].includes(refused.status), String(refused.status));
  fleet.upstream.clearScripts();
  assert.ok((await a.get(`/v2/org/app/blobs/${digestOf(layer)}`)).body.equals(layer));
});

test('what a node fetches for another one is within its own bandwidth', { skip }, async (t) => {
  const { a, b, digest } = await nodesOf(t, [{ upstream: CUT_OFF }, { upstream: { maxBandwidth: '1MiB' } }]);
  const before = b.clock.now();
  const pull = await moving(a.get(`/v2/org/app/blobs/${digest}`), () => {
    if (b.clock.nextWakeMs <= 50) b.clock.advance(b.clock.nextWakeMs);
  });
  assert.ok(pull.body.equals(BLOB));
  assert.ok(b.clock.now() - before > 300, `${b.clock.now() - before} ms`);
});
