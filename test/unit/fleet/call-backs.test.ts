/** Members call each other back, and say who cannot be reached. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { callPath, headersOf } from '../../../src/fleet/nodes/peer-requests.ts';
import { digestOf } from '../../../src/oci/digest.ts';
import { MemoryCoordinator } from '../../helpers/memory-coordinator.ts';
import { testNode } from '../../helpers/test-node.ts';

const UNREACHABLE = 'a node of the fleet cannot be reached by another one: check its fleet.advertise';

async function fleetOf(t: TestContext, ids: readonly string[], addresses: Record<string, string> = {}) {
  const coordinator = new MemoryCoordinator();
  const nodes = await Promise.all(
    ids.map((id) => {
      const address = addresses[id];
      return testNode(t, id, { coordinator, ...(address === undefined ? {} : { address }) });
    }),
  );
  /** All nodes say that they are there, and then call. @returns who called whom */
  const beat = async () => {
    const say = async () => {
      for (const { members } of nodes) await members.beat();
    };
    await say();
    await say(); // all know of all
    for (const { callBacks } of nodes) await callBacks.look();
    await say();
    return nodes.map(({ members, callBacks }) => `${members.own.id} ${callBacks.last?.id}`);
  };
  const calls = () => nodes.map(({ calls: { length } }) => length);
  const [first] = nodes;
  assert.ok(first);
  return { coordinator, nodes, beat, calls, first };
}

test('each member is called back once a minute by one other, and all others learn that it can be reached', async (t) => {
  const { nodes, beat, calls } = await fleetOf(t, ['a', 'b', 'c', 'd']);
  assert.deepEqual(await beat(), ['a b', 'b c', 'c d', 'd a']);
  for (const { clock } of nodes) clock.advance(59_000);
  await beat();
  assert.deepEqual(calls(), [1, 1, 1, 1]);
  for (const { clock } of nodes) clock.advance(1_000);
  await beat();
  assert.deepEqual(calls(), [2, 2, 2, 2]);
  for (const { members } of nodes)
    assert.deepEqual(
      (await members.conditions()).map(({ id, reachable, trouble }) => [id, reachable, trouble]),
      ['a', 'b', 'c', 'd'].map((id) => [id, true, null]),
    );
});

test('a node that joins is called back at the next heartbeat', async (t) => {
  const { coordinator, nodes, beat, first } = await fleetOf(t, ['a', 'c']);
  await beat();
  const joined = await testNode(t, 'b', { coordinator });
  await joined.members.beat();
  assert.equal((await first.members.conditions())[1]?.reachable, null);
  await beat();
  assert.equal(joined.calls.length, 1);
  assert.deepEqual(
    (await first.members.conditions()).map(({ id, reachable }) => [id, reachable]),
    [
      ['a', true],
      ['b', true],
      ['c', null], // the new one will call it
    ],
  );
  assert.equal(nodes.length, 2);
});

test('a node whose address does not lead to it is named with the reason, until it can be reached', async (t) => {
  const { coordinator, beat, first } = await fleetOf(t, ['a', 'b'], { b: 'http://127.0.0.1:9' });
  await beat();
  const [, found] = await first.members.conditions();
  assert.equal(found?.reachable, false);
  assert.equal(found?.trouble, 'no connection to a node of the fleet (ECONNREFUSED)');
  const metric = async () => (await first.metrics.fleetMemberReachable.get()).values;
  assert.deepEqual(
    (await metric()).map(({ labels, value }) => [labels['address'], value]),
    [['http://127.0.0.1:9', 0]],
  );
  await beat();
  const told = () => first.log.filter(({ msg }) => msg === UNREACHABLE);
  assert.equal(told().length, 1, 'once');
  assert.equal(told()[0]?.['address'], 'http://127.0.0.1:9');
  const again = await testNode(t, 'b', { coordinator });
  await again.members.beat();
  await first.members.beat();
  await first.callBacks.look();
  await first.members.beat();
  assert.equal((await first.members.conditions())[1]?.reachable, true);
  assert.deepEqual(
    (await metric()).map(({ labels, value }) => [labels['address'], value]),
    [[again.members.own.address, 1]],
  );
  assert.ok(first.log.some(({ msg }) => msg === 'the node of the fleet can be reached again'));
});

test('an address at which another node answers, or a stranger, is not that of the member', async (t) => {
  const [other, stranger] = [
    await testNode(t, 'other'),
    await testNode(t, 'b', { secret: 'quite another secret, and long enough, too' }),
  ];
  for (const { address, members } of [other, stranger]) {
    await members.beat(); // it knows the time
    const { first, beat } = await fleetOf(t, ['a', 'b'], { b: address });
    await beat();
    assert.match(
      String((await first.members.conditions())[1]?.trouble),
      /is not this node, or does not know/,
    );
  }
});

test('a node that takes too long to answer cannot be reached', async (t) => {
  const { first, beat, nodes } = await fleetOf(t, ['a', 'b']);
  nodes[1]?.answerCallsWhen(new Promise(() => undefined));
  const beating = beat();
  await first.clock.waited();
  while (nodes[1]?.calls.length === 0) await setImmediate();
  first.clock.advance(1_500);
  await beating;
  assert.equal((await first.members.conditions())[1]?.trouble, 'it does not answer in time');
});

test('a node that is alone calls nobody', async (t) => {
  const { coordinator, first, beat, calls } = await fleetOf(t, ['a', 'b']);
  await beat();
  coordinator.said.delete('b');
  await first.members.beat();
  await first.callBacks.look();
  assert.equal(first.callBacks.last, undefined);
  assert.deepEqual((await first.metrics.fleetMemberReachable.get()).values, []);
  assert.deepEqual(calls(), [1, 1]);
});

test('a call gets no byte, and only with the signature of a member', async (t) => {
  const node = await testNode(t, 'node');
  const request = {
    ...{ path: callPath('node'), from: 0, to: undefined, node: 'x', nonce: 'once' },
    time: node.members.now(),
  };
  const send = async (signature: string) => {
    const reply = await fetch(node.address + request.path, { headers: headersOf(request, signature) });
    return [reply.status, (await reply.arrayBuffer()).byteLength];
  };
  assert.equal((await send('0'.repeat(64)))[0], 401);
  assert.deepEqual(await send(await node.signatures.signRequest(request)), [200, 0]);
  assert.equal((await fetch(node.address + request.path)).status, 404);
});

test('what a member fetches, and when it was last seen, all others know; what nobody has signed, they do not', async (t) => {
  const { coordinator, nodes, beat, first } = await fleetOf(t, ['a', 'b']);
  const [, b] = nodes;
  assert.ok(b);
  const digests = ['x', 'y'].map((text) => digestOf(Buffer.from(text)));
  for (const digest of digests) {
    await b.leases.claim('a'.repeat(32), digest);
    b.leases.use('a'.repeat(32), digest);
    b.leases.use('upload', digest);
  }
  await beat();
  coordinator.now += 3_000;
  const [, found] = await first.members.conditions();
  assert.deepEqual(found?.fetching, digests);
  assert.equal(found.fetches, 2);
  assert.equal(found.lastSeen, new Date(first.clock.now() - 3_000).toISOString());
  const [of, own] = [coordinator.said.get('b'), coordinator.said.get('a')];
  assert.ok(of && own);
  coordinator.said.set('a', { ...own, state: of.state });
  assert.deepEqual((await first.members.conditions())[0]?.fetching, [], 'that of another member');
  for (const state of [of.state.replace(/^./, (c) => (c === '0' ? '1' : '0')), 'nonsense', '']) {
    coordinator.said.set('b', { ...of, state });
    assert.deepEqual((await first.members.conditions())[1]?.fetching, [], state);
  }
  coordinator.said.set('b', { ...of, card: own.state });
  assert.deepEqual(
    (await first.members.conditions()).map(({ id }) => id),
    ['a'],
  );
});
