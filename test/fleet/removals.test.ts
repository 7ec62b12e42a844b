/** What is removed from one node is removed from all, and does not come back. These share an object store, and no coordinator. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { digestOf } from '../../src/oci/digest.ts';
import { applied, pullImage, records, remove, served } from '../helpers/fleet-images.ts';
import { TestFleet } from '../helpers/fleet-nodes.ts';
import { runMillpond } from '../helpers/run-millpond.ts';

const LAYERS = [20_000, 30_000];
/** Nodes without a coordinator look into the store so often. */
const LOOK_MS = 60_000;
const DAY_MS = 24 * 3_600_000;

/** Nodes that all have an image, which is in the store. */
async function withNodes(t: TestContext, count: number) {
  const fleet = await TestFleet.start(t);
  const image = fleet.upstream.addImage('org/app', '1', { layers: LAYERS, platforms: ['amd64', 'arm64'] });
  const nodes = [];
  for (let at = 0; at < count; at += 1) {
    const node = await fleet.node();
    await pullImage(node, image);
    await node.uploaded();
    nodes.push(node);
  }
  const [a, b] = nodes;
  assert.ok(a);
  return { fleet, image, a, b: b ?? a };
}

test('what is removed on one node is served by no other once it has looked, and its records are gone from the store', async (t) => {
  const { fleet, image, a, b } = await withNodes(t, 2);
  const [status, report] = await remove(a, ':1');
  assert.equal(status, 200);
  assert.deepEqual(report, {
    objects: 1 + image.manifests.length + image.blobs.length - (image.manifests.includes(image.top) ? 1 : 0),
    bytes: (report as { bytes: number }).bytes,
    fleet: { nodes: null, withinSeconds: 65 },
  });
  assert.deepEqual(records(fleet), []);
  await applied(b, 1, LOOK_MS);
  const c = await fleet.node({ sealed: true });
  for (const node of [a, b]) {
    await fetch(`${node.operationsUrl}/api/seal`, { method: 'POST' });
    await node.uploaded();
  }
  for (const node of [a, b, c]) assert.deepEqual(await served(node, image), []);
  assert.deepEqual(records(fleet), []);
});

test('a node that was stopped meanwhile serves nothing of it from its start on, and brings nothing of it back', async (t) => {
  const { fleet, image, a, b } = await withNodes(t, 2);
  await b.app.close();
  await remove(a, ':1');
  const puts = fleet.bucket.count('put');
  const back = await fleet.node({ directory: b.directory, sealed: true });
  assert.deepEqual(await served(back, image), []);
  await back.uploaded();
  assert.equal(
    fleet.bucket.count('put') - puts,
    2,
    'it looks whether the store is its own, and writes nothing else',
  );
  assert.deepEqual(records(fleet), []);
});

test('what waits to be uploaded when it is removed elsewhere is not uploaded', async (t) => {
  const { fleet, image, a } = await withNodes(t, 1);
  const b = await fleet.node();
  const isRecord = (name: string) => name.includes('/org/app/');
  // It comes from upstream, and its records wait.
  fleet.bucket.script(({ operation, name }, reply) => {
    if (operation === 'get' || (operation === 'put' && isRecord(name)))
      reply.fails = { status: 500, code: 'InternalError' };
  });
  await pullImage(b, image);
  await b.idle();
  while (fleet.bucket.count('put', '/_manifests/') < 3) await setImmediate();
  fleet.bucket.script(() => undefined);
  await remove(a, ':1');
  assert.deepEqual(records(fleet), []);
  const before = fleet.bucket.count('put', '/org/app/');
  await applied(b, 1, LOOK_MS);
  await b.uploaded();
  assert.equal(fleet.bucket.count('put', '/org/app/'), before);
  assert.deepEqual(await served(await fleet.node({ sealed: true }), image), []);
});

test('a record that a node wrote before it knew of the removal counts for nobody, and is deleted', async (t) => {
  const { fleet, image, a } = await withNodes(t, 1);
  const before = new Map(fleet.bucket.objects);
  await remove(a, ':1');
  for (const [name, stored] of before) fleet.bucket.objects.set(name, stored);
  assert.ok(records(fleet).length > 0);
  assert.deepEqual(await served(await fleet.node({ sealed: true }), image), []);
  await applied(a, 1, LOOK_MS);
  await pullImage(a, image);
  await a.uploaded();
  await pullImage(await fleet.node({ sealed: true }), image);
});

test('who pulls it again afterwards has it again, and so do all others', async (t) => {
  const { fleet, image, a, b } = await withNodes(t, 2);
  await remove(a, ':1');
  await applied(b, 1, LOOK_MS);
  await pullImage(b, image);
  await b.uploaded();
  await pullImage(await fleet.node({ sealed: true }), image);
});

test('what another image of the repository needs stays, on the nodes and in the store', async (t) => {
  const fleet = await TestFleet.start(t);
  const [first, second] = [
    fleet.upstream.addImage('org/app', '1', { layers: [20_000, 30_000] }),
    fleet.upstream.addImage('org/app', '2', { layers: [20_000, 40_000] }),
  ];
  assert.ok(first.blobs.some((blob) => second.blobs.some((other) => other.equals(blob))));
  const [a, b] = [await fleet.node(), await fleet.node()];
  await pullImage(a, first);
  await pullImage(b, second, '2');
  for (const node of [a, b]) await node.uploaded();
  await remove(a, ':1');
  await applied(b, 1, LOOK_MS);
  for (const node of [b, await fleet.node({ sealed: true })]) {
    await pullImage(node, second, '2');
    await fetch(`${node.operationsUrl}/api/seal`, { method: 'POST' });
    assert.deepEqual(await served(node, first, { except: second }), []);
  }
});

test('a digest takes its tags along, and a tag leaves what another tag means', async (t) => {
  const { fleet, image, a } = await withNodes(t, 1);
  fleet.upstream.addImage('org/app', '2', { layers: LAYERS, platforms: ['amd64', 'arm64'] });
  await pullImage(a, image, '2');
  await a.uploaded();
  await remove(a, ':2');
  assert.ok(records(fleet).includes('tags/1') && !records(fleet).includes('tags/2'));
  await pullImage(await fleet.node({ sealed: true }), image);
  await pullImage(a, image, '2');
  await a.uploaded();
  await remove(a, `@${image.top.digest}`);
  assert.deepEqual(records(fleet), []);
});

test('a node removes what only the store knows', async (t) => {
  const { fleet, image } = await withNodes(t, 1);
  const b = await fleet.node();
  const [, report] = await remove(b, ':1');
  assert.equal((report as { objects: number }).objects, 0);
  assert.deepEqual(records(fleet), []);
  assert.deepEqual(await served(await fleet.node({ sealed: true }), image), []);
});

test('a node that has only blobs of the image removes them', async (t) => {
  const { fleet, image, a } = await withNodes(t, 1);
  const b = await fleet.node();
  for (const blob of image.blobs) await b.get(`/v2/org/app/blobs/${digestOf(blob)}`);
  await b.idle();
  assert.ok((await b.metric('millpond_store_objects')) > 0);
  await remove(a, ':1');
  await applied(b, 1, LOOK_MS);
  assert.equal(await b.metric('millpond_store_objects'), 0);
});

test('a node that was away for longer than the journal reaches back removes what the store has no more, before it uploads', async (t) => {
  const { fleet, image, a, b } = await withNodes(t, 2);
  const other = fleet.upstream.addImage('org/app', 'other', { layers: [50_000] });
  const kept = fleet.upstream.addImage('org/app', 'kept', { layers: [60_000] });
  await pullImage(a, other, 'other');
  await pullImage(b, kept, 'kept');
  for (const node of [a, b]) await node.uploaded();
  await b.app.close();
  await remove(a, ':1');
  await remove(a, ':other');
  a.clock.advance(31 * DAY_MS);
  while ([...fleet.bucket.objects.keys()].filter((name) => name.includes('/journal/')).length > 1)
    await setImmediate();
  const back = await fleet.node({ directory: b.directory, sealed: true });
  assert.deepEqual(await served(back, image, { except: kept }), []);
  await pullImage(back, kept, 'kept');
  await back.uploaded();
  assert.ok(records(fleet).every((name) => !name.includes(image.top.digest)));
});

test('an entry that nobody who knows the secret has written removes nothing, is counted, and is written over', async (t) => {
  const { fleet, image, a } = await withNodes(t, 1);
  const name = 'millpond/journal/000000000001';
  const signed = await fleet.sign('journal/000000000007', {
    ...{ kind: 'removal', upstream: 'docker.io', repository: 'org/app', reference: '1' },
    ...{ tags: ['1'], digests: [image.top.digest] },
  });
  fleet.bucket.objects.set(name, { bytes: signed, writtenAt: new Date(a.clock.now()) });
  const b = await fleet.node({ sealed: true });
  await pullImage(b, image);
  assert.ok((await b.metric('millpond_fleet_records_refused_total', { engine: 'objects' })) > 0);
  const [status] = await remove(a, ':1');
  assert.equal(status, 200);
  await applied(b, 1, LOOK_MS);
  assert.deepEqual(await served(b, image), []);
});

test('an entry of a kind that a later version has added is left alone, and numbers go on behind it', async (t) => {
  const { fleet, image, a } = await withNodes(t, 1);
  const later = await fleet.sign('journal/000000000001', { kind: 'later', what: 1 });
  fleet.bucket.objects.set('millpond/journal/000000000001', {
    bytes: later,
    writtenAt: new Date(a.clock.now()),
  });
  await remove(a, ':1');
  assert.ok(fleet.bucket.objects.has('millpond/journal/000000000002'));
  assert.deepEqual(await served(await fleet.node({ sealed: true }), image), []);
});

test('while the store is away nothing is removed, and the operator is told what to do', async (t) => {
  const { fleet, image, a } = await withNodes(t, 1);
  fleet.bucket.script((_, reply) => {
    reply.fails = { status: 403, code: 'AccessDenied' };
  });
  const [status, reply] = await remove(a, ':1');
  assert.equal(status, 503);
  assert.match(
    (reply as { error: string }).error,
    /the fleet cannot be told now, so that nothing was changed: /,
  );
  await pullImage(a, image);
  const [here] = await remove(a, ':1', '?scope=node');
  assert.equal(here, 200);
  fleet.bucket.script(() => undefined);
  await pullImage(await fleet.node({ sealed: true }), image);
});

test('what neither this node nor the store knows is not found, and takes no number', async (t) => {
  const { fleet, a } = await withNodes(t, 1);
  const [status, reply] = await remove(a, ':none');
  assert.deepEqual(
    [status, reply],
    [404, { error: 'docker.io/org/app has no none in this mirror, nor in the store of the fleet' }],
  );
  assert.equal(
    [...fleet.bucket.objects.keys()].some((name) => name.includes('/journal/')),
    false,
  );
  const [wrong] = await remove(a, ':1', '?scope=all');
  assert.equal(wrong, 400);
});

test('the commands say what happens on the other nodes', async (t) => {
  const { fleet, image, a } = await withNodes(t, 1);
  const name = 'docker.io/org/app:1';
  const own = await runMillpond(a, ['remove', '--this-node', name]);
  assert.match(own.stdout, /^docker.io\/org\/app:1: removed, \d+ objects and \d.* freed$/m);
  await pullImage(a, image);
  const all = await runMillpond(a, ['remove', name]);
  assert.match(
    all.stdout,
    /: removed, \d+ objects and \d.* freed here; the other nodes follow within 65 s$/m,
  );
  assert.deepEqual(records(fleet), []);
});

test('a sealed fleet is sealed on every node, after a restart too, until the fleet is unsealed', async (t) => {
  const { fleet, image, a, b } = await withNodes(t, 2);
  const sealed = async (node: { operationsUrl: string }) =>
    ((await (await fetch(`${node.operationsUrl}/api/status`)).json()) as { sealed: boolean }).sealed;
  assert.equal((await runMillpond(a, ['seal', '--fleet'])).stdout, 'the fleet is sealed\n');
  assert.ok(await sealed(a));
  await applied(b, 1, LOOK_MS);
  assert.ok(await sealed(b));
  await pullImage(b, image);
  const asked = fleet.upstream.requests.length;
  assert.equal((await b.get('/v2/org/app/manifests/cold')).status, 404);
  assert.equal(fleet.upstream.requests.length, asked);
  assert.match(
    (await runMillpond(b, ['status'])).stdout,
    /, sealed by the fleet: it sends no requests to upstreams$/m,
  );
  assert.match(
    (await runMillpond(b, ['unseal'])).stdout,
    /^still sealed, by the fleet: millpond unseal --fleet/,
  );
  assert.ok(await sealed(b));
  await b.app.close();
  fleet.bucket.script((_, reply) => {
    reply.fails = { status: 403, code: 'AccessDenied' };
  });
  const back = await fleet.node({ directory: b.directory });
  assert.ok(await sealed(back), 'also when nobody can be asked');
  fleet.bucket.script(() => undefined);
  assert.ok(await sealed(await fleet.node()));
  a.clock.advance(31 * DAY_MS);
  await a.uploaded();
  assert.ok(await sealed(await fleet.node()), 'a seal does not grow old');
  assert.equal((await runMillpond(a, ['unseal', '--fleet'])).stdout, 'the fleet is unsealed\n');
  await applied(back, 2, LOOK_MS);
  assert.equal(await sealed(a), false);
  assert.equal(await sealed(back), false);
});

test('a mirror that is alone has no fleet to seal', async (t) => {
  const { startMirror } = await import('../helpers/start-mirror.ts');
  const alone = await startMirror(t, { upstreams: { 'docker.io': 'http://127.0.0.1:9' } });
  const reply = await fetch(`${alone.operationsUrl}/api/seal?scope=fleet`, { method: 'POST' });
  assert.equal(reply.status, 409);
});
