/** The simulation that says how many followers a node serves: what it counts is right, and the limits are those it shows. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Plan, simulate } from '../../../bench/simulation/fleet.ts';
import { CHAIN_LONGEST, FOLLOWERS } from '../../../src/fleet/nodes/followers.ts';

const MIB = 1024 * 1024;
const RATE = 125 * MIB;

function run(plan: Partial<Plan>, { nodes = 100, upload = 50 * MIB } = {}) {
  return simulate(
    { name: 'a plan', followers: Number.POSITIVE_INFINITY, chain: CHAIN_LONGEST, store: false, ...plan },
    {
      ...{
        nodes,
        layers: [20 * MIB, 30 * MIB],
        layersAtATime: 2,
        partBytes: 8 * MIB,
        startsWithinSeconds: 1,
      },
      rates: {
        ...{ nodeUp: RATE, nodeDown: RATE, upstream: RATE, upstreamConnection: 40 * MIB },
        ...{ store: 10 * RATE, storeConnection: RATE, upload },
      },
    },
  );
}

test('where all follow one node, it sends an image to each of the others', () => {
  const { fromUpstream, fromStore, mostSentByOneNode, mostFollowers, lastSeconds } = run({});
  assert.ok(Math.abs(fromUpstream - 1) < 0.001 && fromStore === 0);
  assert.ok(Math.abs(mostSentByOneNode - 99) < 0.1, `${mostSentByOneNode}`);
  assert.equal(mostFollowers, 99);
  assert.ok(lastSeconds >= (99 * 50 * MIB) / RATE - 1, 'no line carries more than its rate');
});

test('what is in the store is read from there by all who come later', () => {
  const { fromUpstream, fromStore } = run({ store: true }, { upload: RATE });
  assert.ok(Math.abs(fromUpstream - 1) < 0.001);
  assert.ok(fromStore > 0);
});

test('by the limits that a node keeps, a thousand nodes get an image, and none sends it more than eleven times', () => {
  const { fromUpstream, mostSentByOneNode, lastSeconds } = run({ followers: FOLLOWERS }, { nodes: 1000 });
  assert.ok(Math.abs(fromUpstream - 1) < 0.001);
  assert.ok(mostSentByOneNode < 11, `${mostSentByOneNode}`);
  assert.ok(lastSeconds < run({}).lastSeconds / 3);
});
