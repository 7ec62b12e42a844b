import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inLanes } from '../../../src/transfer/lanes.ts';

test('every item is taken once, and never more at the same time than there are lanes', async () => {
  const taken: number[] = [];
  let [now, most] = [0, 0];
  await inLanes([1, 2, 3, 4, 5, 6, 7], 3, async (item) => {
    most = Math.max(most, (now += 1));
    await Promise.resolve();
    taken.push(item);
    now -= 1;
  });
  assert.deepEqual(taken.toSorted(), [1, 2, 3, 4, 5, 6, 7]);
  assert.equal(most, 3);
});

test('after a failure no step is started, running steps are waited for, and the first failure is thrown', async () => {
  const begun: number[] = [];
  const ended: number[] = [];
  const gate = Promise.withResolvers<void>();
  const failing = inLanes([1, 2, 3, 4, 5], 2, async (item) => {
    begun.push(item);
    if (item === 2) throw new Error('two');
    await gate.promise;
    ended.push(item);
    throw new Error('later');
  });
  gate.resolve();
  await assert.rejects(failing, /^Error: two$/);
  assert.deepEqual([begun, ended], [[1, 2], [1]]);
});
