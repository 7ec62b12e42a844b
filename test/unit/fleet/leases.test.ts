/** Who fetches what is one node's to do. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { UPLOAD } from '../../../src/fleet/nodes/leases.ts';
import { digestOf } from '../../../src/oci/digest.ts';
import { MemoryCoordinator } from '../../helpers/memory-coordinator.ts';
import { type TestNode, testNode } from '../../helpers/test-node.ts';

const DIGEST = digestOf(Buffer.from('blob'));
const UPSTREAM = 'a'.repeat(32);

async function twoNodes(t: TestContext) {
  const coordinator = new MemoryCoordinator();
  const [a, b] = [await testNode(t, 'a', { coordinator }), await testNode(t, 'b', { coordinator })];
  return { coordinator, a, b };
}

test('one node has the lease, and the other one is told whose it is', async (t) => {
  const { a, b } = await twoNodes(t);
  assert.deepEqual(await a.leases.claim(UPSTREAM, DIGEST), { kind: 'mine' });
  assert.deepEqual(await a.leases.claim(UPSTREAM, DIGEST), { kind: 'mine' });
  const claim = await b.leases.claim(UPSTREAM, DIGEST);
  assert.equal(claim.kind === 'theirs' && claim.member.id, 'a');
});

test('another upstream is another lease', async (t) => {
  const { a, b } = await twoNodes(t);
  await a.leases.claim(UPSTREAM, DIGEST);
  assert.deepEqual(await b.leases.claim('b'.repeat(32), DIGEST), { kind: 'mine' });
});

/** Claims a lease from a holder that was found dead, to the end of the time that others have to say that they are further. */
async function takeOver({ leases, clock }: TestNode, instead: number, reached: number) {
  const claiming = leases.claim(UPSTREAM, DIGEST, { instead, reached });
  while (clock.nextWakeMs > 100) await setImmediate();
  return { claimed: () => (clock.advance(100), claiming) };
}

test('whoever finds the holder dead takes over all that it did, and only from that one', async (t) => {
  const { coordinator, a, b } = await twoNodes(t);
  const c = await testNode(t, 'c', { coordinator });
  await a.leases.claim(UPSTREAM, DIGEST);
  const found = await b.leases.claim(UPSTREAM, DIGEST);
  assert.ok(found.kind === 'theirs');
  const { claimed } = await takeOver(b, found.number, 0);
  assert.deepEqual(await claimed(), { kind: 'mine' });
  const late = await c.leases.claim(UPSTREAM, DIGEST, { instead: found.number });
  assert.equal(late.kind === 'theirs' && late.member.id, 'b');
  const asked = coordinator.commands.length;
  assert.deepEqual(await b.leases.claim(UPLOAD, DIGEST), { kind: 'mine' });
  assert.equal(coordinator.commands.length, asked);
});

test('of those who find the holder dead the one that is furthest along takes over', async (t) => {
  const { coordinator, a, b } = await twoNodes(t);
  const c = await testNode(t, 'c', { coordinator });
  await a.leases.claim(UPSTREAM, DIGEST);
  const found = await b.leases.claim(UPSTREAM, DIGEST);
  assert.ok(found.kind === 'theirs');
  const first = await takeOver(b, found.number, 100);
  const second = await takeOver(c, found.number, 200);
  const claim = await first.claimed();
  assert.equal(claim.kind === 'theirs' && claim.member.id, 'c');
  assert.deepEqual(await second.claimed(), { kind: 'mine' });
});

test('others are told which byte the holder has reached', async (t) => {
  const { coordinator, a, b } = await twoNodes(t);
  await a.leases.claim(UPSTREAM, DIGEST);
  const use = a.leases.use(UPSTREAM, DIGEST);
  for (const byte of [70, 50]) use.reach(byte);
  a.clock.advance(1_000);
  while (!coordinator.commands.includes('renew')) await setImmediate();
  const claim = await b.leases.claim(UPSTREAM, DIGEST);
  assert.equal(claim.kind === 'theirs' && claim.reached, 70);
});

test('who fetches uploads, too, without asking again', async (t) => {
  const { coordinator, a, b } = await twoNodes(t);
  await a.leases.claim(UPSTREAM, DIGEST);
  const asked = coordinator.commands.length;
  assert.deepEqual(await a.leases.claim(UPLOAD, DIGEST), { kind: 'mine' });
  assert.equal(coordinator.commands.length, asked);
  assert.equal((await b.leases.claim(UPLOAD, DIGEST)).kind, 'theirs');
});

test('a lease is renewed each second while it is used or waits to be uploaded, and then given back', async (t) => {
  const { coordinator, a, b } = await twoNodes(t);
  await a.leases.claim(UPSTREAM, DIGEST);
  const use = a.leases.use(UPSTREAM, DIGEST);
  const renewals = () => coordinator.commands.filter((command) => command === 'renew').length;
  const second = async () => {
    const before = renewals();
    a.clock.advance(1_000);
    while (renewals() === before) await setImmediate();
  };
  for (let at = 0; at < 20; at += 1) await second();
  a.waiting.add(DIGEST);
  use.end();
  for (let at = 0; at < 20; at += 1) await second();
  assert.equal((await b.leases.claim(UPSTREAM, DIGEST)).kind, 'theirs');
  a.leases.releaseAll(DIGEST);
  await setImmediate();
  assert.equal((await b.leases.claim(UPSTREAM, DIGEST)).kind, 'mine');
  assert.equal((await b.leases.claim(UPLOAD, DIGEST)).kind, 'mine');
});

test('what nobody uploads is given back ten seconds after the fetch', async (t) => {
  const { coordinator, a } = await twoNodes(t);
  await a.leases.claim(UPSTREAM, DIGEST);
  a.leases.use(UPSTREAM, DIGEST).end();
  for (let at = 0; at < 9; at += 1) a.clock.advance(1_000);
  await setImmediate();
  assert.equal(coordinator.held.size, 2);
  a.clock.advance(1_000);
  while (coordinator.held.size > 0) await setImmediate();
});

test('a lost lease is not held on to', async (t) => {
  const { coordinator, a, b } = await twoNodes(t);
  await a.leases.claim(UPSTREAM, DIGEST);
  const use = a.leases.use(UPSTREAM, DIGEST);
  coordinator.held.clear(); // it has run out
  await b.leases.claim(UPSTREAM, DIGEST);
  a.clock.advance(1_000);
  for (let at = 0; at < 10; at += 1) await setImmediate();
  assert.equal((await a.leases.claim(UPSTREAM, DIGEST)).kind, 'theirs');
  use.end();
});

test('a holder that no node of this fleet has signed leads nowhere', async (t) => {
  const { coordinator, a } = await twoNodes(t);
  for (const holder of [
    'nobody',
    `${'0'.repeat(64)}\n{"id":"x","address":"http://127.0.0.1:9","version":"1"}`,
  ]) {
    await coordinator.leases.claim(`${DIGEST.slice(7)}:${UPSTREAM}`, holder, { forMs: 3_000 });
    assert.deepEqual(await a.leases.claim(UPSTREAM, DIGEST), { kind: 'unknown' });
  }
});
