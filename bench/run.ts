/**
 * The benchmark: `npm run bench -- [--smoke] [--runs N] [--main FILE] [SCENARIO...]`. See README.md beside this file.
 */
import { rmSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { inspect, parseArgs } from 'node:util';
import { describeMachine } from './lib/machine.ts';
import { exampleOf } from './lib/measure.ts';
import {
  direct,
  missingProgram,
  type PeerName,
  type Server,
  startAccelerated,
  startBare,
  startDockerRegistry,
  startMillpond,
  startNginx,
} from './lib/peers.ts';
import { isOnPath } from './lib/processes.ts';
import { type Report, renderReport, report } from './lib/report.ts';
import type { Lab, Sample, Scenario } from './lib/scenario.ts';
import { Upstream } from './lib/upstream-control.ts';
import { herd } from './scenarios/herd.ts';
import { hitBlobCrowd, hitBlobLarge } from './scenarios/hit-blob-large.ts';
import { hitBlobSmall } from './scenarios/hit-blob-small.ts';
import { hitManifestDigest } from './scenarios/hit-manifest-digest.ts';
import { hitManifestTag } from './scenarios/hit-manifest-tag.ts';
import { imagePull } from './scenarios/image-pull.ts';
import { missBlob } from './scenarios/miss-blob.ts';
import { missThrottledConnection, missThrottledTotal } from './scenarios/miss-throttled.ts';
import { scale1m, scale10k, scale100k, scaleHit } from './scenarios/scale.ts';
import { slowClient } from './scenarios/slow-client.ts';

const SCENARIOS: readonly Scenario[] = [
  hitManifestTag,
  hitManifestDigest,
  hitBlobSmall,
  hitBlobLarge,
  hitBlobCrowd,
  missBlob,
  missThrottledTotal,
  missThrottledConnection,
  herd,
  slowClient,
  imagePull,
  scale10k,
  scale100k,
  scale1m,
  scaleHit,
];

const { values, positionals } = parseArgs({
  options: {
    smoke: { type: 'boolean', default: false },
    runs: { type: 'string', default: '5' },
    main: { type: 'string', default: join(import.meta.dirname, '../src/main.ts') },
  },
  allowPositionals: true,
});
const { smoke } = values;
const runs = smoke ? 1 : Number(values.runs);
if (!Number.isInteger(runs) || runs < 1) {
  say(`--runs ${values.runs}: a whole number from 1 on is needed\n`);
  process.exit(2);
}
const chosen = choose(positionals);
const base = await mkdtemp(join(tmpdir(), 'millpond-bench-'));
process.once('exit', () => rmSync(base, { recursive: true, force: true }));
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(130));

const startedAt = new Date();
const machine = await describeMachine(dirname(values.main));
say(`${JSON.stringify(machine, undefined, 2)}\n`);
if (smoke) say('smoke: tiny sizes, one run each; the figures mean nothing\n');
const reports: Report[] = [];
const skipped = new Set<string>();
const failed: string[] = [];
for (const scenario of chosen) {
  if (scenario.needs !== undefined && !isOnPath(scenario.needs)) {
    skipped.add(`${scenario.name}: ${scenario.needs} is not installed (apt-get install ${scenario.needs})`);
    continue;
  }
  try {
    const result = await runScenario(scenario);
    reports.push(result);
    if (!smoke) await writeResults(); // each time: a run that is broken off has not been for nothing
    say(renderReport(scenario, result, !smoke));
  } catch (error) {
    failed.push(scenario.name);
    say(`\n${scenario.name} failed: ${inspect(error)}\n`);
  }
}
for (const reason of skipped) say(`skipped: ${reason}\n`);
if (!smoke) say(`\nwritten: ${await writeResults()}\n`);
if (failed.length > 0) say(`failed: ${failed.join(', ')}\n`);
process.exit(failed.length > 0 ? 1 : 0);

function choose(names: readonly string[]): readonly Scenario[] {
  const unknown = names.filter((name) => !SCENARIOS.some((scenario) => scenario.name.startsWith(name)));
  if (unknown.length > 0) {
    say(
      `no such scenario: ${unknown.join(', ')}. There are: ${SCENARIOS.map(({ name }) => name).join(', ')}\n`,
    );
    process.exit(2);
  }
  if (names.length === 0) return SCENARIOS;
  return SCENARIOS.filter((scenario) => names.some((name) => scenario.name.startsWith(name)));
}

async function runScenario(scenario: Scenario): Promise<Report> {
  const directory = await mkdtemp(join(base, `${scenario.name}-`));
  const upstream = await Upstream.start(directory);
  const lab: Lab = {
    upstream,
    smoke,
    directory,
    servers: {},
    startMillpond: (at, cache) =>
      startMillpond({ directory: at, upstreamPort: upstream.port }, values.main, cache),
  };
  try {
    for (const peer of scenario.peers) {
      if (peer !== 'bare') await startPeer(lab, peer);
    }
    await scenario.prepare?.(lab);
    if (scenario.bareExample !== undefined) await startCeiling(lab, await scenario.bareExample(lab));
    return report(scenario, await measureInTurns(scenario, lab));
  } finally {
    await Promise.all(Object.values(lab.servers).map((server) => server.stop()));
    await upstream.stop();
    await rm(directory, { recursive: true });
  }
}

async function startPeer(lab: Lab, peer: PeerName): Promise<void> {
  const missing = missingProgram(peer);
  if (missing !== undefined) {
    skipped.add(`${peer}: ${missing} is not installed (apt-get install ${missing})`);
    return;
  }
  const surroundings = { directory: join(lab.directory, peer), upstreamPort: lab.upstream.port };
  await mkdir(surroundings.directory);
  const start: Partial<Record<PeerName, () => Server | Promise<Server>>> = {
    millpond: () => startMillpond(surroundings, values.main),
    accel: () => startAccelerated(surroundings, values.main),
    'docker-registry': () => startDockerRegistry(surroundings),
    nginx: () => startNginx(surroundings),
    direct: () => direct(surroundings),
  };
  const server = await start[peer]?.();
  if (server !== undefined) lab.servers[peer] = server;
}

async function startCeiling(lab: Lab, path: string): Promise<void> {
  const { millpond } = lab.servers;
  if (millpond === undefined) return;
  const surroundings = { directory: lab.directory, upstreamPort: lab.upstream.port };
  lab.servers.bare = await startBare(surroundings, await exampleOf(millpond, path));
}

/** A, B, A, B: what the machine does meanwhile hits all alike. The first turn only warms the servers up. */
async function measureInTurns(scenario: Scenario, lab: Lab): Promise<Partial<Record<PeerName, Sample[]>>> {
  const samples: Partial<Record<PeerName, Sample[]>> = {};
  const first = smoke ? 1 : 0;
  for (let turn = first; turn <= runs; turn += 1) {
    for (const server of Object.values(lab.servers)) {
      const sample = await scenario.measure(lab, server);
      if (turn > 0) (samples[server.name] ??= []).push(sample);
    }
  }
  return samples;
}

async function writeResults(): Promise<string> {
  const folder = join(import.meta.dirname, 'results');
  const stamp = startedAt.toISOString().slice(0, 16).replace(':', '');
  const file = join(folder, `${stamp}.json`);
  await mkdir(folder, { recursive: true });
  const content = { startedAt, runs, machine, skipped: [...skipped], failed, reports };
  await writeFile(file, `${JSON.stringify(content, undefined, 2)}\n`);
  return file;
}

function say(text: string): void {
  process.stdout.write(text);
}
