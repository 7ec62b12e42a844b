/** One node fetches, the others follow, and whoever loses the node that it follows gets the rest from another place. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { type TestContext, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import type { ContentReader } from '../../../src/cache/store/content-store.ts';
import { EngineError } from '../../../src/fleet/engines/errors.ts';
import { UPLOAD } from '../../../src/fleet/nodes/leases.ts';
import { writeRecord } from '../../../src/fleet/records/signed-record.ts';
import { digestOf } from '../../../src/oci/digest.ts';
import type { FetchedBlob } from '../../../src/upstream/upstream.ts';
import { cleanUp } from '../../helpers/cleanup.ts';
import { noise } from '../../helpers/images.ts';
import { MemoryCoordinator } from '../../helpers/memory-coordinator.ts';
import { type TestNode, testNode } from '../../helpers/test-node.ts';

const UPSTREAM = 'a'.repeat(32);
const MIB = 1024 * 1024;
const BLOB = noise(MIB, 'blob');
const DIGEST = digestOf(BLOB);

/** What a node has of the blob: all up to `end`, and the rest when `more` resolves. */
function have(end = BLOB.length, more: Promise<unknown> = new Promise(() => undefined)): ContentReader {
  return {
    size: BLOB.length,
    read: async (target, position) => {
      if (position >= end) await more;
      return BLOB.copy(target, 0, position, position < end ? end : BLOB.length);
    },
    close: async () => undefined,
  };
}

/** An upstream that gives what is asked for, in pieces that a test lets through, and counts its fetches. */
function upstreamOf() {
  const asked: number[] = [];
  const body = (from: number) => Readable.from([BLOB.subarray(from)], { objectMode: false });
  const fetch =
    (from = 0) =>
    async (): Promise<FetchedBlob> => {
      asked.push(from);
      return { start: from, ranged: true, size: BLOB.length, body: body(from) };
    };
  return { asked, fetch };
}

function open(node: TestNode, from: number, fetch: () => Promise<FetchedBlob>, signal?: AbortSignal) {
  return node.fetches.open(UPSTREAM, DIGEST, { from }, signal, fetch);
}

/** Lets `ms` pass for a node as soon as it waits for as long. */
async function pass({ clock }: TestNode, ms: number): Promise<void> {
  while (clock.nextWakeMs !== ms) await setImmediate();
  clock.advance(ms);
}

/** Lets time pass for a node whenever it waits for `ms`, until the work is done. */
async function passing<T>({ clock }: TestNode, ms: number, work: Promise<T>): Promise<T> {
  const state = { isDone: false };
  const watched = work.finally(() => {
    state.isDone = true;
  });
  watched.catch(() => undefined);
  while (!state.isDone) {
    if (clock.nextWakeMs === ms) clock.advance(ms);
    await setImmediate();
  }
  return watched;
}

async function counted({ metrics }: TestNode, name: string): Promise<string[]> {
  const text = await metrics.registry.metrics();
  return text.split('\n').filter((line) => line.startsWith(name));
}

/** The lease of the blob is one that a node of this fleet has taken and renews. */
async function heldBy(coordinator: MemoryCoordinator, node: TestNode, address = node.address) {
  const member = await cardOf(node, address);
  await coordinator.leases.claim(`${DIGEST.slice(7)}:${UPSTREAM}`, member, {
    forMs: 3_000,
    also: `${DIGEST.slice(7)}:${UPLOAD}`,
  });
}

async function cardOf(node: TestNode, address: string): Promise<string> {
  return (await writeRecord(node.secret, 'member', { id: 'holder', address, version: '1' })).toString();
}

async function silentServer(t: TestContext): Promise<string> {
  const sockets = new Set<{ destroy: () => void }>();
  const server = createServer((socket) => void sockets.add(socket.on('error', () => undefined)));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  cleanUp(t, () => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

test('a holder that cannot be reached from here is taken for dead, though it renews: one node takes over, the others follow it', async (t) => {
  for (const address of ['http://127.0.0.1:9', await silentServer(t)]) {
    const coordinator = new MemoryCoordinator();
    const upstream = upstreamOf();
    const b = await testNode(t, 'b', { coordinator, openHere: async () => have() });
    const c = await testNode(t, 'c', { coordinator });
    await heldBy(coordinator, b, address);
    const first = open(b, 100, upstream.fetch(100));
    if (address.endsWith(':9')) await pass(b, 100);
    else {
      await pass(b, 1_500);
      await pass(b, 100);
    }
    assert.ok((await buffer((await first).body)).equals(BLOB.subarray(100)));
    const second = await open(c, 50, upstream.fetch(50));
    assert.equal(second.source?.name, 'node');
    assert.ok((await buffer(second.body)).equals(BLOB.subarray(50)));
    assert.deepEqual(upstream.asked, [100]);
    assert.deepEqual(await counted(b, 'millpond_fleet_takeovers_total{'), [
      'millpond_fleet_takeovers_total{reason="unreachable"} 1',
    ]);
  }
});

test('a client that leaves takes no lease from anybody', async (t) => {
  const coordinator = new MemoryCoordinator();
  const upstream = upstreamOf();
  const b = await testNode(t, 'b', { coordinator });
  await heldBy(coordinator, b, await silentServer(t));
  const leaving = new AbortController();
  const opening = open(b, 0, upstream.fetch(), leaving.signal);
  while (b.clock.nextWakeMs !== 1_500) await setImmediate();
  leaving.abort(new Error('left'));
  await assert.rejects(opening, /left/);
  assert.deepEqual(coordinator.commands, ['claim', 'claim']);
  assert.deepEqual(upstream.asked, []);
});

test('a holder that waits for upstream says so; after four seconds one of the others fetches, too', async (t) => {
  const coordinator = new MemoryCoordinator();
  const upstream = upstreamOf();
  const never = new Promise<undefined>(() => undefined);
  const a = await testNode(t, 'a', { coordinator, openHere: () => never });
  const b = await testNode(t, 'b', { coordinator, openHere: async () => have() });
  const c = await testNode(t, 'c', { coordinator });
  await a.leases.claim(UPSTREAM, DIGEST);
  for (const node of [b, c]) {
    const before = coordinator.commands.length;
    const opening = open(node, 0, upstream.fetch());
    const { body } = await passing(a, 1_000, opening);
    assert.ok((await buffer(body)).equals(BLOB));
    const polls = coordinator.commands.slice(before).filter((command) => command === 'claim').length;
    assert.equal(polls, 5, 'the coordinator is asked once a second');
  }
  assert.deepEqual(upstream.asked, [0]);
});

test('what comes from a node that stops sending is waited for twice; then one other fetches from there, and all follow that one', async (t) => {
  const coordinator = new MemoryCoordinator();
  const upstream = upstreamOf();
  const a = await testNode(t, 'a', { coordinator, openHere: async () => have(500_000) });
  const b = await testNode(t, 'b', { coordinator, openHere: async () => have() });
  const c = await testNode(t, 'c', { coordinator });
  await a.leases.claim(UPSTREAM, DIGEST);
  for (const node of [b, c]) {
    for (const from of [0, 500_000]) {
      const { body, source } = await open(node, from, upstream.fetch(from));
      assert.equal(source?.name, 'node');
      await assert.rejects(passing(node, 2_000, buffer(body)), EngineError);
    }
    const { body } = await open(node, 500_000, upstream.fetch(500_000));
    assert.ok((await buffer(body)).equals(BLOB.subarray(500_000)));
  }
  assert.deepEqual(upstream.asked, [500_000]);
});

test('when the second stops sending, too, each node fetches for itself, which is counted', async (t) => {
  const coordinator = new MemoryCoordinator();
  const upstream = upstreamOf();
  const a = await testNode(t, 'a', { coordinator, openHere: async () => have(10) });
  const b = await testNode(t, 'b', { coordinator });
  await a.leases.claim(UPSTREAM, DIGEST);
  await a.leases.claim(`${UPSTREAM}:again`, DIGEST);
  for (const from of [10, 10, 10, 10]) {
    const { body } = await open(b, from, upstream.fetch(from));
    await assert.rejects(passing(b, 2_000, buffer(body)), EngineError);
  }
  assert.equal((await open(b, 10, upstream.fetch(10))).source, undefined);
  assert.deepEqual(upstream.asked, [10]);
  assert.deepEqual(await counted(b, 'millpond_fleet_fetches_alone_total{'), [
    'millpond_fleet_fetches_alone_total{reason="slow"} 1',
  ]);
});

test('a second fetch that overtakes takes the lease, and the upload with it', async (t) => {
  const coordinator = new MemoryCoordinator();
  const a = await testNode(t, 'a', { coordinator, openHere: async () => have(10) });
  const b = await testNode(t, 'b', { coordinator });
  const c = await testNode(t, 'c', { coordinator });
  await a.leases.claim(UPSTREAM, DIGEST);
  a.leases.use(UPSTREAM, DIGEST).reach(1_000);
  a.clock.advance(1_000); // it renews, and tells that
  const pieces = new Readable({ read: () => undefined });
  const fetch = async () => ({ start: 10, ranged: true, size: BLOB.length, body: pieces });
  for (let at = 0; at < 2; at += 1) {
    const { body } = await open(b, 10, fetch);
    await assert.rejects(passing(b, 2_000, buffer(body)), EngineError);
  }
  const { body } = await open(b, 10, fetch);
  const come = async (from: number, to: number) => {
    b.clock.advance(1_000);
    pieces.push(BLOB.subarray(from, to));
    await once(body, 'data');
  };
  const holder = async () => {
    const claim = await c.leases.claim(UPSTREAM, DIGEST);
    return claim.kind === 'theirs' ? claim.member.id : claim.kind;
  };
  body.resume();
  await come(10, 900);
  for (let at = 0; at < 20; at += 1) await setImmediate();
  assert.equal(await holder(), 'a');
  await come(900, 1_100);
  await pass(b, 100);
  while ((await holder()) !== 'b') await setImmediate();
  assert.deepEqual(await b.leases.claim(UPLOAD, DIGEST), { kind: 'mine' });
  assert.deepEqual(await counted(b, 'millpond_fleet_takeovers_total{'), [
    'millpond_fleet_takeovers_total{reason="slow"} 1',
  ]);
  a.clock.advance(1_000);
  while (a.leases.has(UPSTREAM, DIGEST)) await setImmediate(); // it goes on, and renews no more
  pieces.push(null);
  await once(body, 'end');
});

test('a node that takes over is waited for by those who come to it meanwhile', async (t) => {
  const coordinator = new MemoryCoordinator();
  const answer = Promise.withResolvers<FetchedBlob>();
  const has: { reader?: ContentReader } = {};
  const b = await testNode(t, 'b', { coordinator, openHere: async () => has.reader });
  const c = await testNode(t, 'c', { coordinator });
  const first = open(b, 0, () => answer.promise);
  while (!b.leases.has(UPSTREAM, DIGEST)) await setImmediate();
  const second = open(c, 0, () => assert.fail('the other node fetches'));
  while (b.clock.nextWakeMs !== 1_000) await setImmediate(); // it is asked, and waits
  has.reader = have();
  answer.resolve({
    start: 0,
    ranged: true,
    size: BLOB.length,
    body: Readable.from([BLOB], { objectMode: false }),
  });
  assert.ok((await buffer((await second).body)).equals(BLOB));
  await buffer((await first).body);
});

test('a holder that has not got the blob is asked twice; then a node fetches for itself', async (t) => {
  const coordinator = new MemoryCoordinator();
  const upstream = upstreamOf();
  const [a, b] = [await testNode(t, 'a', { coordinator }), await testNode(t, 'b', { coordinator })];
  await a.leases.claim(UPSTREAM, DIGEST);
  const opening = open(b, 0, upstream.fetch());
  await pass(b, 1_000);
  assert.equal((await opening).source, undefined);
  assert.deepEqual(await counted(b, 'millpond_fleet_fetches_alone_total{'), [
    'millpond_fleet_fetches_alone_total{reason="absent"} 1',
  ]);
});

test('bytes of a node that were wrong are not asked for again', async (t) => {
  const coordinator = new MemoryCoordinator();
  const upstream = upstreamOf();
  const a = await testNode(t, 'a', { coordinator, openHere: async () => have() });
  const b = await testNode(t, 'b', { coordinator });
  await a.leases.claim(UPSTREAM, DIGEST);
  const { body, source } = await open(b, 0, upstream.fetch());
  await buffer(body);
  source?.rejected();
  assert.equal((await open(b, 0, upstream.fetch())).source, undefined);
});
