/** Nodes that agree by a real coordinator. Their clocks stand still; that of the coordinator does not. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { digestOf } from '../../src/oci/digest.ts';
import { type FleetNode, TestFleet } from '../helpers/fleet-nodes.ts';
import { noise } from '../helpers/images.ts';
import { startCoordinator } from '../helpers/real-coordinator.ts';
import { missingPrograms } from '../helpers/real-processes.ts';
import { runMillpond } from '../helpers/run-millpond.ts';

const skip = missingPrograms('redis-server');
const BEAT_MS = 5_000;
/** Until a node has answered a call. */
const CALL_MS = 1_500;
const BLOB = noise(600_000, 'blob');

/** Lets a heartbeat pass, and the call to the next member that may follow it. */
async function heartbeat(node: FleetNode): Promise<void> {
  const { clock } = node;
  const labels = { engine: 'coordinator', operation: 'beat' };
  const beats = () => node.metric('millpond_fleet_request_duration_seconds_count', labels);
  const before = await beats();
  clock.advance(BEAT_MS);
  while ((await beats()) === before);
  while (clock.nextWakeMs <= CALL_MS) await setImmediate();
}

/** What `millpond status` says of each node. */
function memberRows(status: string): string[] {
  const [, rows = ''] = status.split('\nNODE\tVERSION\tLAST SEEN\tREACHABLE\tFETCHES\n');
  return rows.split('\n').filter((row) => row.startsWith('http'));
}

async function nodesOf(t: TestContext, count: number, url?: string) {
  const fleet = await TestFleet.start(t);
  const coordinator = { url: url ?? (await startCoordinator(t)).url };
  const start = () => fleet.node({ moreOfFleet: { coordinator, listen: '127.0.0.1:0' } });
  const nodes: FleetNode[] = [];
  for (let at = 0; at < count; at += 1) nodes.push(await start());
  const [a, b] = nodes;
  assert.ok(a && b);
  return { fleet, coordinator, a, b, start, digest: fleet.upstream.addContent(BLOB) };
}

/** Upstream sends 300 000 bytes of each blob, and the rest when it is told to. */
function holdBack({ upstream }: TestFleet): () => void {
  const rest = Promise.withResolvers<void>();
  upstream.script({ kind: 'blob', method: 'GET' }, (reply) => {
    reply.stall = { after: 300_000, until: rest.promise };
  });
  return rest.resolve;
}

test('a cold blob that two nodes are asked for is fetched once, and followed while it comes', {
  skip,
}, async (t) => {
  const { fleet, a, b, digest } = await nodesOf(t, 2);
  const release = holdBack(fleet);
  const first = a.get(`/v2/org/app/blobs/${digest}`);
  await fleet.upstream.waitForBytes(300_000);
  const second = b.get(`/v2/org/app/blobs/${digest}`);
  while ((await b.metric('millpond_fill_bytes_total', { source: 'node' })) === 0);
  release();
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

test('status shows the members with version, address, last seen, reachable or not, and what each fetches', {
  skip,
}, async (t) => {
  const { fleet, a, b, digest } = await nodesOf(t, 2);
  const release = holdBack(fleet);
  const pulling = b.get(`/v2/org/app/blobs/${digest}`);
  await fleet.upstream.waitForBytes(300_000);
  for (const node of [a, b, a, b]) await heartbeat(node); // each calls the other one, and then says so
  const { stdout } = await runMillpond(a, ['status']);
  const status = memberRows(stdout);
  assert.match(stdout, /^fleet {6}0 objects wait to be uploaded$/m);
  const [own, other] = [
    status.find((row) => row.includes(', this node')),
    status.find((row) => !row.includes(', this node')),
  ];
  assert.match(own ?? '', /^http:\/\/127\.0\.0\.1:\d+\ttest\t.+ ago, this node\tyes\t-$/);
  assert.match(other ?? '', /^http:\/\/127\.0\.0\.1:\d+\ttest\t.+ ago\tyes\tsha256:[0-9a-f]{64}$/);
  assert.ok(other?.endsWith(digest));
  const { stdout: json } = await runMillpond(a, ['status', '--json']);
  const { members } = (JSON.parse(json) as { fleet: { members: Record<string, unknown>[] } }).fleet;
  assert.deepEqual(
    members
      .map(({ isOwn, reachable, trouble, fetches }) => ({ isOwn, reachable, trouble, fetches }))
      .toSorted((one) => (one.isOwn === true ? -1 : 1)),
    [
      { isOwn: true, reachable: true, trouble: null, fetches: 0 },
      { isOwn: false, reachable: true, trouble: null, fetches: 1 },
    ],
  );
  for (const { lastSeen } of members) {
    const age = a.clock.now() - Date.parse(String(lastSeen));
    assert.ok(age >= 0 && age < 60_000, `${age} ms`);
  }
  release();
  await pulling;
});

test('a node whose advertise leads nowhere is named by status, a metric and the log of another one, and pulls go on', {
  skip,
}, async (t) => {
  const fleet = await TestFleet.start(t);
  const coordinator = { url: (await startCoordinator(t)).url };
  const more = { coordinator, listen: '127.0.0.1:0' };
  const a = await fleet.node({ moreOfFleet: more });
  const lost = await fleet.node({ moreOfFleet: { ...more, advertise: 'http://127.0.0.1:9' } });
  const labels = { address: 'http://127.0.0.1:9' };
  for (const node of [a, lost, a]) await heartbeat(node);
  const said = a.log.find(({ msg }) => String(msg).startsWith('a node of the fleet cannot be reached'));
  assert.equal(said?.['address'], 'http://127.0.0.1:9');
  assert.equal(await a.metric('millpond_fleet_member_reachable', labels), 0);
  const { stdout } = await runMillpond(lost, ['status']);
  const reachable = memberRows(stdout).map((row) => row.split('\t')[3]);
  assert.deepEqual(reachable.toSorted(), ['no', 'yes']);
  assert.match(
    stdout,
    /^fleet: http:\/\/127\.0\.0\.1:9 cannot be reached by another node: no connection to a node of the fleet \(ECONNREFUSED\)$/m,
  );
  const digest = fleet.upstream.addContent(BLOB);
  const pulls = [lost, a].map((node) => node.get(`/v2/org/app/blobs/${digest}`));
  for (const reply of await Promise.all(pulls)) assert.ok(reply.body.equals(BLOB));
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
  assert.match(stdout, /^NODE\tVERSION/m);
});
