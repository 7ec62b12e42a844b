import assert from 'node:assert/strict';
import { test } from 'node:test';
import { joinAtOnce, troubleAnEngine, troubleTheNodeThatFetches } from '../helpers/fleet-faults.ts';
import { endTheNodeThatFetches, missingForFleet, pullColdBlobOnce } from '../helpers/fleet-processes.ts';

const skip = missingForFleet();

test('three nodes and sixty clients: a cold blob of 256 MiB is fetched once', { skip }, (t) =>
  pullColdBlobOnce(t, { mebibytes: 256, clients: 60 }),
);

test('the node that fetches is killed, fifty times', { skip }, (t) =>
  endTheNodeThatFetches(t, 'SIGKILL', 50),
);

test('the node that fetches is stopped, twenty times', { skip }, (t) =>
  endTheNodeThatFetches(t, 'SIGTERM', 20),
);

for (const trouble of ['frozen', 'cut off', 'slowed'] as const) {
  test(`the node that fetches is ${trouble}: no client of the others waits longer than 5 s, and all are done within 15 s more`, {
    skip,
  }, async (t) => {
    const { longestGap, undisturbed, disturbed } = await troubleTheNodeThatFetches(t, trouble);
    t.diagnostic(JSON.stringify({ longestGap, undisturbed, disturbed }));
    assert.ok(longestGap <= 5);
    assert.ok(disturbed <= undisturbed + 15);
  });
}

for (const engine of ['coordinator', 'store'] as const) {
  for (const trouble of ['frozen', 'stopped'] as const) {
    test(`the ${engine} is ${trouble} for 30 s under load: no pull fails, and the fleet is whole again within 15 s`, {
      skip,
    }, async (t) => {
      const { pulls, wholeAfter } = await troubleAnEngine(t, engine, trouble, 30);
      t.diagnostic(JSON.stringify({ pulls, wholeAfter }));
      assert.ok(wholeAfter <= 15);
    });
  }
}

test('three nodes with the same 2000 objects join an empty store at once', { skip }, (t) =>
  joinAtOnce(t, 2_000),
);
