import { cp, mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { addManifest, measureRequests, REPOSITORY } from '../lib/measure.ts';
import type { Server } from '../lib/peers.ts';
import { anonymousMiB, residentMiB, settled } from '../lib/processes.ts';
import type { Lab, Sample, Scenario } from '../lib/scenario.ts';
import { type SeededCache, seedCache } from '../lib/seed-cache.ts';

const MIB = 1024 * 1024;
/** Seeded tags are as old as the seed, and no upstream knows them. On a slow machine the turns outlast the default. */
const SEEDED = { freshness: { tagTtl: '7d' } };
const EVICTABLE = 5000;
const WARM = 1000;

const seeded = new Map<string, SeededCache>();

/** Starts on a directory of many objects, answers hits all over it, and makes room once. */
function scale(objects: number, targets: Scenario['targets']): Scenario {
  const name = `scale-${objects}`;
  const sizeOf = (lab: Lab) => (lab.smoke ? Math.min(objects, 20_000) : objects);
  const template = (lab: Lab) => join(lab.directory, 'template');
  return {
    name,
    does: `${objects} objects in the index: start, memory, hits by tag on ${WARM} images, ${EVICTABLE} evictions`,
    peers: ['millpond'],
    needs: 'wrk',
    startsAnew: true,
    prepare: async (lab) => {
      const sizes = { objects: sizeOf(lab), evictable: EVICTABLE, warm: WARM };
      seeded.set(name, await seedCache(template(lab), sizes));
    },
    measure: async (lab, empty) => {
      const cache = seeded.get(name);
      if (cache === undefined) throw new Error('not prepared');
      const directory = join(lab.directory, 'scaled');
      await mkdir(directory);
      await cp(template(lab), join(directory, 'cache'), { recursive: true });
      const startedAt = performance.now();
      // The first byte that is reserved passes the limit; then as many go as have a file.
      const server = await lab.startAnother(empty, directory, {
        cache: {
          maxSize: `${cache.bytes}B`,
          lowWatermark: (cache.bytes - EVICTABLE * 4096) / cache.bytes,
          keepFree: '0B',
        },
        upstream: SEEDED,
      });
      try {
        const startMs = performance.now() - startedAt;
        return { startMs, ...(await measureRunning(lab, server, empty, cache, sizeOf(lab))) };
      } finally {
        await server.stop();
        await rm(directory, { recursive: true });
      }
    },
    shows: [
      'startMs',
      'rssMiB',
      'anonymousMiB',
      'bytesPerRecord',
      'requestsPerSecond',
      'p50Ms',
      'p99Ms',
      'cpuSecondsPer1000',
      'evictionsPerSecond',
    ],
    targets,
  };
}

async function measureRunning(
  lab: Lab,
  server: Server,
  empty: Server,
  cache: SeededCache,
  objects: number,
): Promise<Sample> {
  const { pids } = server;
  await settled(pids);
  const rssMiB = residentMiB(pids);
  const anonymous = anonymousMiB(pids);
  const bytesPerRecord = ((anonymous - anonymousMiB(empty.pids)) * MIB) / objects;
  const hits = await measureRandomHits(lab, server, cache.warmPaths);
  const evictionsPerSecond = await measureEviction(lab, server);
  return { rssMiB, anonymousMiB: anonymous, bytesPerRecord, ...hits, evictionsPerSecond };
}

async function measureEviction(lab: Lab, server: Server): Promise<number> {
  const manifest = await addManifest(lab);
  const startedAt = performance.now();
  const reply = await fetch(`http://127.0.0.1:${server.port}/v2/${REPOSITORY}/manifests/${manifest}`);
  await reply.arrayBuffer();
  for (;;) {
    const text = await (await fetch(server.metricsUrl ?? '')).text();
    const evicted = Number(/^millpond_evictions_total (\d+)$/m.exec(text)?.[1] ?? 0);
    if (evicted >= EVICTABLE) return evicted / ((performance.now() - startedAt) / 1000);
  }
}

const FEW = 1000;
const MANY = 1_000_000;
/** As many as there are in a cache of {@link FEW}. */
const COMPARED = 100;

/** What a hit costs must not depend on what else is held. */
export const scaleHit: Scenario = {
  name: 'scale-hit',
  does: `hits by tag on ${COMPARED} images, among ${FEW} objects and among ${MANY}`,
  peers: ['millpond'],
  needs: 'wrk',
  prepare: async (lab) => {
    for (const [name, objects] of [
      ['few', FEW],
      ['many', lab.smoke ? 2 * FEW : MANY],
    ] as const) {
      const sizes = { objects, evictable: 0, warm: COMPARED };
      seeded.set(name, await seedCache(join(lab.directory, name, 'cache'), sizes));
    }
  },
  measure: async (lab, server) => {
    const few = await measureHits(lab, server, 'few');
    const many = await measureHits(lab, server, 'many');
    return {
      fewCpuSecondsPer1000: few['cpuSecondsPer1000'] ?? Number.NaN,
      manyCpuSecondsPer1000: many['cpuSecondsPer1000'] ?? Number.NaN,
      manyOverFew: (many['cpuSecondsPer1000'] ?? Number.NaN) / (few['cpuSecondsPer1000'] ?? Number.NaN),
    };
  },
  shows: ['fewCpuSecondsPer1000', 'manyCpuSecondsPer1000', 'manyOverFew'],
  targets: [{ metric: 'manyOverFew', relation: '≤', limit: { value: 1.3 } }],
};

async function measureHits(lab: Lab, like: Server, name: 'few' | 'many'): Promise<Sample> {
  const server = await lab.startAnother(like, join(lab.directory, name), {
    cache: { keepFree: '0B' },
    upstream: SEEDED,
  });
  try {
    return await measureRandomHits(lab, server, seeded.get(name)?.warmPaths ?? []);
  } finally {
    await server.stop();
  }
}

async function measureRandomHits(lab: Lab, server: Server, paths: readonly string[]): Promise<Sample> {
  const script = join(lab.directory, 'paths.lua');
  await writeFile(script, randomPaths(paths));
  return measureRequests(lab, server, paths[0] ?? '/', ['Accept: */*'], script);
}

function randomPaths(paths: readonly string[]): string {
  return `local paths = {${paths.map((path) => `"${path}"`).join(',')}}
request = function() return wrk.format("GET", paths[math.random(#paths)]) end
`;
}

export const scale10k = scale(10_000, []);
export const scale100k = scale(100_000, []);
export const scale1m = scale(1_000_000, [
  { metric: 'startMs', relation: '≤', limit: { value: 10_000 } },
  { metric: 'bytesPerRecord', relation: '≤', limit: { value: 400 } },
]);
