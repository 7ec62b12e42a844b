/** A node compares its clock with that of the coordinator. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemoryCoordinator } from '../../helpers/memory-coordinator.ts';
import { testNode } from '../../helpers/test-node.ts';

test('a node whose clock is more than 30 s off says so once, until it is right again', async (t) => {
  const coordinator = new MemoryCoordinator();
  const { clock, members, metrics, log } = await testNode(t, 'a', { coordinator });
  const warnings = () => log.filter(({ level }) => level === 'warn').map((line) => line['offsetSeconds']);
  const beatAt = async (offsetMs: number) => {
    coordinator.now = clock.now() + offsetMs;
    await members.beat();
    assert.equal((await metrics.fleetClockOffset.get()).values[0]?.value, offsetMs / 1000);
    assert.equal(members.now(), coordinator.now, 'what it signs has the right time');
    return warnings();
  };
  assert.deepEqual(await beatAt(30_000), []);
  assert.deepEqual(await beatAt(-30_000), []);
  assert.deepEqual(await beatAt(31_000), [31]);
  assert.deepEqual(await beatAt(3_600_000), [31]);
  assert.deepEqual(await beatAt(0), [31]);
  assert.deepEqual(await beatAt(-31_000), [31, -31]);
});
