/** What nodes of a fleet are told within a second: removals, seals, tags that moved. Their coordinator is a real one. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { digestOf } from '../../src/oci/digest.ts';
import { applied, pullImage, records, remove, served } from '../helpers/fleet-images.ts';
import { type FleetNode, TestFleet } from '../helpers/fleet-nodes.ts';
import { gateTo } from '../helpers/gate.ts';
import { startCoordinator } from '../helpers/real-coordinator.ts';
import { missingPrograms } from '../helpers/real-processes.ts';
import { runMillpond } from '../helpers/run-millpond.ts';

const skip = missingPrograms('redis-server');
/** Nodes ask the coordinator so often. */
const POLL_MS = 1_000;
/** The deadline of a command. */
const COMMAND_MS = 250;
const LAYERS = [20_000, 30_000];
const KEY = 'millpond/{journal}:entries';

async function withNodes(t: TestContext, count: number) {
  const [fleet, coordinator] = [await TestFleet.start(t), await startCoordinator(t)];
  const image = fleet.upstream.addImage('org/app', '1', { layers: LAYERS });
  const start = (options: Parameters<TestFleet['node']>[0] = {}, url = coordinator.url) =>
    fleet.node({
      ...options,
      moreOfFleet: { coordinator: { url }, listen: '127.0.0.1:0', ...options.moreOfFleet },
    });
  const nodes: FleetNode[] = [];
  for (let at = 0; at < count; at += 1) {
    const node = await start();
    await connected(node);
    await pullImage(node, image);
    await node.uploaded();
    nodes.push(node);
  }
  const [a, b] = nodes;
  assert.ok(a);
  return { fleet, coordinator, image, a, b: b ?? a, start };
}

/** Resolves when a node has been told something by its coordinator. */
async function connected(node: FleetNode): Promise<void> {
  while ((await node.metric('millpond_fleet_members')) === 0) {
    node.clock.advance(5_000);
    for (let looks = 0; looks < 100; looks += 1) await setImmediate();
  }
}

/** Moves the clock of a node by what a poll takes, and lets it happen. */
async function polled(node: FleetNode): Promise<void> {
  const polls = () => node.metric('millpond_fleet_request_duration_seconds_count', { operation: 'poll' });
  const before = await polls();
  node.clock.advance(POLL_MS);
  // It reads until there is nothing more. The clock must not pass the deadline of an answer.
  while ((await polls()) === before) await setImmediate();
  for (let quiet = 0; quiet < 20; quiet = node.clock.nextWakeMs <= COMMAND_MS ? 0 : quiet + 1)
    await setImmediate();
}

test('what is removed on one node is served by no other a second later, and the operator is told how many follow', {
  skip,
}, async (t) => {
  const { fleet, image, a, b } = await withNodes(t, 2);
  a.clock.advance(5_000);
  while ((await a.metric('millpond_fleet_members')) < 2) await setImmediate();
  const lists = fleet.bucket.count('list', '/journal/');
  const { stdout } = await runMillpond(a, ['remove', 'docker.io/org/app:1']);
  assert.match(stdout, / freed here; 1 other node follows within 5 s$/m);
  await applied(b, 1, POLL_MS);
  await fetch(`${b.operationsUrl}/api/seal`, { method: 'POST' });
  assert.deepEqual(await served(b, image), []);
  await b.uploaded();
  assert.deepEqual(records(fleet), []);
  assert.equal(fleet.bucket.count('list', '/journal/') - lists, 1, 'only who removes looks into the store');
});

test('what was told of an image before it was removed brings it to no node', { skip }, async (t) => {
  const { fleet, image, a, start } = await withNodes(t, 1);
  const b = await start();
  await remove(a, ':1');
  await applied(b, 1, POLL_MS);
  fleet.upstream.script({ path: /./ }, (reply) => {
    reply.status = 404;
  });
  assert.deepEqual(await served(b, image), []);
});

test('a node that was cut off from everything meanwhile applies the removal before it brings anything to the store', {
  skip,
}, async (t) => {
  const { fleet, coordinator, image, a, start } = await withNodes(t, 1);
  const [toCoordinator, toBucket] = [await gateTo(t, coordinator.url), await gateTo(t, fleet.bucket.url)];
  const objects = { ...(fleet.bucket.config('')['objects'] as object), endpoint: toBucket.url };
  const b = await start({ moreOfFleet: { objects } }, toCoordinator.url);
  await connected(b);
  await pullImage(b, image);
  await b.uploaded();
  for (const gate of [toCoordinator, toBucket]) gate.cut();
  const late = fleet.upstream.addImage('org/app', 'late', { layers: [50_000] });
  await pullImage(b, late, 'late');
  await b.idle();
  await remove(a, ':1');
  await pullImage(b, image); // it cannot know
  const puts = fleet.bucket.count('put');
  for (const gate of [toCoordinator, toBucket]) gate.open();
  await applied(b, 1, POLL_MS);
  assert.equal(
    fleet.bucket.requests.filter(
      ({ operation, name }) => operation === 'put' && name.includes(image.top.digest),
    ).length,
    1,
    'when it was pulled first',
  );
  await fetch(`${b.operationsUrl}/api/seal`, { method: 'POST' });
  assert.deepEqual(await served(b, image, { except: late }), []);
  const advancing = setInterval(() => b.clock.advance(20_000), 5);
  await b.uploaded();
  clearInterval(advancing);
  assert.ok(fleet.bucket.count('put') > puts, 'what it pulled meanwhile is in the store now');
  assert.ok(records(fleet).every((name) => !name.includes(image.top.digest)));
  assert.ok(records(fleet).includes('tags/late'));
});

test('after FLUSHALL a node that has missed a removal reads it in the store, and numbers go on', {
  skip,
}, async (t) => {
  const { fleet, coordinator, image, a, b } = await withNodes(t, 2);
  await coordinator.send('SET', 'unrelated', '1');
  await remove(a, ':1');
  await coordinator.send('FLUSHALL');
  await runMillpond(a, ['seal', '--fleet']);
  await applied(b, 2, POLL_MS);
  assert.deepEqual(await served(b, image), []);
  const numbers = [...fleet.bucket.objects.keys()].filter((name) => name.includes('/journal/'));
  assert.deepEqual(numbers, ['millpond/journal/000000000001', 'millpond/journal/000000000002']);
});

test('a removal that the coordinator was not told, because its node could not reach it, is told by that node later', {
  skip,
}, async (t) => {
  const { fleet, coordinator, image, b, start } = await withNodes(t, 2);
  const gate = await gateTo(t, coordinator.url);
  const a = await start({}, gate.url);
  await connected(a);
  gate.cut();
  const [, report] = await remove(a, ':1');
  assert.equal((report as { objects: number }).objects, 0);
  await polled(b);
  assert.equal(await b.metric('millpond_fleet_journal_applied'), 0);
  gate.open();
  while (Number(await coordinator.send('XLEN', KEY)) === 0) {
    a.clock.advance(POLL_MS);
    for (let looks = 0; looks < 50; looks += 1) await setImmediate();
  }
  await applied(b, 1, POLL_MS);
  fleet.upstream.script({ path: /./ }, (reply) => {
    reply.status = 404;
  });
  assert.deepEqual(await served(b, image), []);
});

test('what the coordinator tells and nobody of the fleet has signed removes nothing, moves no tag, and is counted', {
  skip,
}, async (t) => {
  const { fleet, coordinator, image, a, b } = await withNodes(t, 2);
  const removal = {
    kind: 'removal',
    upstream: 'docker.io',
    repository: 'org/app',
    reference: '1',
    tags: ['1'],
  };
  const elsewhere = await fleet.sign('journal/000000000009', { ...removal, digests: [image.top.digest] });
  for (const text of [
    `journal/000000000001\n${elsewhere.toString()}`,
    `journal/000000000001\n${'0'.repeat(64)}\n${JSON.stringify({ ...removal, digests: [] })}`,
    `moved tag\n${'0'.repeat(64)}\n{}`,
    'nonsense',
  ])
    await coordinator.send('XADD', KEY, '*', 't', text);
  while ((await b.metric('millpond_fleet_records_refused_total', { engine: 'coordinator' })) < 4)
    await polled(b);
  await pullImage(b, image);
  await remove(a, ':1');
  await applied(b, 1, POLL_MS);
});

test('a tag that has moved for one node means the same on all others a second later, without a word of upstream', {
  skip,
}, async (t) => {
  const { fleet, a, b } = await withNodes(t, 2);
  const moved = fleet.upstream.addImage('org/app', '1', { layers: [40_000] });
  a.clock.advance(600_000); // past its tagTtl
  await new Promise((resolve) => setTimeout(resolve, 2_100)); // what the coordinator was told is not just now any more
  assert.equal((await a.get('/v2/org/app/manifests/1')).headers['docker-content-digest'], moved.top.digest);
  await a.uploaded();
  await polled(b);
  fleet.upstream.requests.length = 0;
  const puts = fleet.bucket.count('put');
  let reply = await b.get('/v2/org/app/manifests/1');
  for (
    ;
    reply.headers['docker-content-digest'] !== moved.top.digest;
    reply = await b.get('/v2/org/app/manifests/1')
  )
    await polled(b);
  assert.ok(reply.body.equals(moved.top.bytes));
  assert.equal(fleet.upstream.requests.length, 0);
  await b.uploaded();
  assert.equal(fleet.bucket.count('put'), puts, 'who saw it move writes the record');
});

test('a moved tag whose manifest is nowhere within reach leaves the old one, which is served if upstream fails', {
  skip,
}, async (t) => {
  const { fleet, image, a, b } = await withNodes(t, 2);
  fleet.bucket.script((_, reply) => {
    reply.fails = { status: 403, code: 'AccessDenied' };
  });
  const moved = fleet.upstream.addImage('org/app', '1', { layers: [40_000] });
  a.clock.advance(600_000);
  await new Promise((resolve) => setTimeout(resolve, 2_100));
  assert.equal((await a.get('/v2/org/app/manifests/1')).headers['docker-content-digest'], moved.top.digest);
  for (let polls = 0; polls < 3; polls += 1) await polled(b);
  fleet.upstream.script({ path: /./ }, (reply) => {
    reply.status = 403;
  });
  await fetch(`${b.operationsUrl}/api/seal`, { method: 'POST' });
  const old = await b.get('/v2/org/app/manifests/1');
  assert.equal(old.headers['docker-content-digest'], image.top.digest);
  assert.match(String(old.headers['cache-status']), /detail=stale/);
  fleet.upstream.clearScripts();
  await fetch(`${b.operationsUrl}/api/unseal`, { method: 'POST' });
  assert.equal((await b.get('/v2/org/app/manifests/1')).headers['docker-content-digest'], moved.top.digest);
});

test('a moved tag that is told once more, later, moves no tag back', { skip }, async (t) => {
  const { fleet, coordinator, a, b } = await withNodes(t, 2);
  const pullTag = async (node: FleetNode) =>
    (await node.get('/v2/org/app/manifests/1')).headers['docker-content-digest'];
  const moves: string[] = [];
  for (const layer of [40_000, 50_000]) {
    moves.push(fleet.upstream.addImage('org/app', '1', { layers: [layer] }).top.digest);
    a.clock.advance(600_000);
    await new Promise((resolve) => setTimeout(resolve, 2_100));
    assert.equal(await pullTag(a), moves.at(-1));
    await a.uploaded();
  }
  while ((await pullTag(b)) !== moves[1]) await polled(b);
  const [[, [, first = '']] = ['', ['', '']]] = (await coordinator.send('XRANGE', KEY, '-', '+')) as [
    string,
    string[],
  ][];
  await coordinator.send('XADD', KEY, '*', 't', first);
  for (let polls = 0; polls < 3; polls += 1) await polled(b);
  assert.equal(await pullTag(b), moves[1]);
});

test('a node asks the coordinator once a second, and a warm hit asks it nothing', { skip }, async (t) => {
  const { coordinator, image, a } = await withNodes(t, 1);
  const scripts = async () => (await coordinator.commands()).get('eval') ?? 0;
  await polled(a);
  const before = await scripts();
  await pullImage(a, image);
  assert.equal(await scripts(), before);
  await polled(a);
  await setImmediate();
  assert.ok((await scripts()) - before <= 2, 'one read, and perhaps a renewal of leases');
  assert.ok(digestOf(image.top.bytes));
});
