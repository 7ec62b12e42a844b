/** What a node has used is told to the fleet, in batches. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { EngineError } from '../../../src/fleet/engines/errors.ts';
import { Uses } from '../../../src/fleet/eviction/uses.ts';
import { type Digest, digestOf } from '../../../src/oci/digest.ts';
import { MemoryCoordinator } from '../../helpers/memory-coordinator.ts';
import { testNode } from '../../helpers/test-node.ts';

async function withUses(t: TestContext) {
  const coordinator = new MemoryCoordinator();
  const node = await testNode(t, 'a', { coordinator });
  const gone: Digest[] = [];
  const uses = new Uses({ ...node, onGone: (digests) => void gone.push(...digests) });
  t.after(() => uses[Symbol.dispose]());
  const count = () => coordinator.commands.filter((command) => command === 'use').length;
  const second = async () => {
    node.clock.advance(1_000);
    while (node.clock.isAwaited) await setImmediate();
  };
  return { ...node, coordinator, uses, gone, count, second };
}

function digests(count: number): Digest[] {
  return Array.from({ length: count }, (_, at) => digestOf(Buffer.from(`${at}`)));
}

test('uses cost one command a second at most, and all are told within 64 seconds', async (t) => {
  const { coordinator, uses, count, second } = await withUses(t);
  const used = digests(10_000);
  for (let at = 0; at < 64; at += 1) {
    uses.note(used); // again and again, as hits do
    await second();
    assert.equal(count(), at + 1);
  }
  for (const digest of used) assert.ok(coordinator.used.has(digest));
});

test('without uses nothing is asked', async (t) => {
  const { count, second } = await withUses(t);
  for (let at = 0; at < 70; at += 1) await second();
  assert.equal(count(), 0);
});

test('uses that the coordinator was not told of are told later', async (t) => {
  const { coordinator, uses, second } = await withUses(t);
  const [digest] = digests(1) as [Digest];
  const told: Digest[] = [];
  coordinator.uses.use = async () => {
    throw new EngineError('unavailable', 'away');
  };
  uses.note([digest]);
  await second();
  coordinator.uses.use = async (all) => {
    told.push(...all);
    return [];
  };
  for (let at = 0; at < 64; at += 1) await second();
  assert.deepEqual(told, [digest]);
});

test('what is read from the store is told at once, and what is written before it is', async (t) => {
  const { coordinator, uses, count } = await withUses(t);
  const [digest] = digests(1) as [Digest];
  uses.read(digest);
  assert.equal(count(), 1);
  assert.equal(await uses.revive(digest), true);
  coordinator.uses.revive = async () => false;
  assert.equal(await uses.revive(digest), false);
  coordinator.uses.revive = async () => {
    throw new EngineError('unavailable', 'away');
  };
  assert.equal(await uses.revive(digest), true, 'an upload does not wait for the coordinator');
});

test('whoever uses what has left the store is told', async (t) => {
  const { coordinator, uses, gone, second } = await withUses(t);
  const [kept, left] = digests(2) as [Digest, Digest];
  coordinator.uses.use = async (all) => all.filter((digest) => digest === left);
  uses.note([kept, left]);
  for (let at = 0; at < 64; at += 1) await second();
  assert.deepEqual(gone, [left]);
});
