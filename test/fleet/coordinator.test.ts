/** Drivers of coordinators keep the same rules, so that what holds with the one in memory holds with the real one. */
import { type TestContext, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { valkeyCoordinator } from '../../src/fleet/coordinator/valkey-coordinator.ts';
import { cleanUp } from '../helpers/cleanup.ts';
import { assertKeepsCoordinatorRules } from '../helpers/coordinator-rules.ts';
import { MemoryCoordinator } from '../helpers/memory-coordinator.ts';
import { startCoordinator } from '../helpers/real-coordinator.ts';
import { missingPrograms } from '../helpers/real-processes.ts';

const skip = missingPrograms('redis-server');

test('the driver for Valkey keeps the rules of coordinators', { skip }, async (t) => {
  const { url } = await startCoordinator(t);
  let count = 0;
  const open = async (within: TestContext) => {
    count += 1;
    const settings = { url, username: undefined, password: undefined, ca: undefined, prefix: `${count}/` };
    const coordinator = valkeyCoordinator(settings);
    cleanUp(within, () => coordinator.close());
    // It connects in the background.
    while (
      !(await coordinator.notes.find('ready', '').then(
        () => true,
        () => false,
      ))
    )
      await setTimeout(5);
    return { coordinator, pass: (ms: number) => setTimeout(ms) };
  };
  await assertKeepsCoordinatorRules(t, open);
});

test('the coordinator of the tests keeps the rules of coordinators', (t) =>
  assertKeepsCoordinatorRules(t, async () => {
    const coordinator = new MemoryCoordinator();
    return {
      coordinator,
      pass: async (ms) => {
        coordinator.now += ms;
      },
    };
  }));
