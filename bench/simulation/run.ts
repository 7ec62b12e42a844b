/** `npm run bench:simulation`: a thousand nodes pull one image of 2 GiB at once. See bench/README.md. */
import { CHAIN_LONGEST } from '../../src/fleet/nodes/followers.ts';
import { number } from '../lib/report.ts';
import { type Outcome, type Plan, type Surroundings, simulate } from './fleet.ts';

const MIB = 1024 * 1024;
const GIB = 1024 * MIB;
const GBIT = 1e9 / 8;
const IMAGE_BYTES = 2 * GIB;
const NODES = 1000;

const PLANS: readonly Plan[] = [
  { name: 'all follow the holder', followers: Number.POSITIVE_INFINITY, chain: 1, store: false },
  { name: 'the same, and the store', followers: Number.POSITIVE_INFINITY, chain: 1, store: true },
  ...[1, 2, 3, 4, 6, 8, 10, 12, 16, 32].map((followers) => ({
    name: `N = ${followers}`,
    ...{ followers, chain: CHAIN_LONGEST, store: false },
  })),
  ...[4, 8, 10, 16].map((followers) => ({
    name: `N = ${followers}, and the store`,
    ...{ followers, chain: CHAIN_LONGEST, store: true },
  })),
];

const LAYERS = {
  '20 layers': Array.from({ length: 20 }, () => IMAGE_BYTES / 20),
  'one layer': [IMAGE_BYTES],
};

/** A process takes 2.3 s of CPU for a GB that it fetches and stores: 3.5 Gbit/s, whatever the line (bench/README.md). */
const FETCHES_AT_MOST = 3.5 * GBIT;

function surroundings(line: number, layers: readonly number[], partBytes: number): Surroundings {
  return {
    ...{ nodes: NODES, layers, partBytes },
    layersAtATime: 3, // containerd's and dockerd's default
    startsWithinSeconds: 2,
    rates: {
      ...{ nodeUp: line, nodeDown: Math.min(line, FETCHES_AT_MOST) },
      ...{ upstream: 1 * GBIT, upstreamConnection: 40 * MIB },
      ...{ store: 25 * GBIT, storeConnection: 85 * MIB },
      upload: 50 * MIB,
    },
  };
}

const COLUMNS: readonly [keyof Outcome, string][] = [
  ['plan', 'who serves'],
  ['medianSeconds', 'half are done, s'],
  ['lastSeconds', 'all are done, s'],
  ['fromUpstream', 'from upstream, images'],
  ['fromStore', 'from the store, images'],
  ['mostSentByOneNode', 'most sent by one node, images'],
  ['mostFollowers', 'most followers'],
  ['tooSlow', 'given up as slow'],
  ['nodeRequestsPerSecond', 'requests/s to one node'],
  ['storeRequestsPerSecond', 'requests/s to the store'],
];

const wanted = process.argv.slice(2);
for (const [layersName, layers] of Object.entries(LAYERS)) {
  for (const gigabits of [10, 1]) {
    for (const part of [8, 256]) {
      const title = `${NODES} nodes with ${gigabits} Gbit/s, ${layersName}, parts of ${part} MiB`;
      if (!wanted.every((word) => title.includes(word))) continue;
      process.stdout.write(`\n${title}\n\n| ${COLUMNS.map(([, name]) => name).join(' | ')} |\n`);
      process.stdout.write(`|${'---|'.repeat(COLUMNS.length)}\n`);
      for (const plan of PLANS) {
        const outcome = simulate(plan, surroundings(gigabits * GBIT, layers, part * MIB));
        const cells = COLUMNS.map(([key]) => {
          const value = outcome[key];
          return typeof value === 'number' ? number(value) : value;
        });
        process.stdout.write(`| ${cells.join(' | ')} |\n`);
      }
    }
  }
}
