/**
 * The benchmark: `npm run bench -- [--smoke] [--runs N] [--compare CHECKOUT] [SCENARIO...]`. See README.md beside this
 * file.
 */
import { rmSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inspect, parseArgs } from 'node:util';
import { type ComparedFigure, compare, renderComparison } from './lib/compare.ts';
import { describeCheckout, describeMachine } from './lib/machine.ts';
import { exampleOf } from './lib/measure.ts';
import {
  type Checkout,
  direct,
  missingProgram,
  type PeerName,
  readCheckout,
  type Server,
  startAccelerated,
  startBare,
  startDockerRegistry,
  startMillpond,
  startMillpondTls,
  startNginx,
  startNginxTls,
  type VersionName,
} from './lib/peers.ts';
import { isOnPath } from './lib/processes.ts';
import { type Report, renderReport, report, type Samples } from './lib/report.ts';
import type { Lab, Scenario } from './lib/scenario.ts';
import { Upstream } from './lib/upstream-control.ts';
import { bearer, loginFlood, refusals } from './scenarios/access.ts';
import { fleet1, fleet2, fleet3, fleetHit } from './scenarios/fleet.ts';
import { foreignUpstream } from './scenarios/foreign-upstream.ts';
import { herd } from './scenarios/herd.ts';
import { hitBlobCrowd, hitBlobLarge, hitBlobTls } from './scenarios/hit-blob-large.ts';
import { hitBlobSmall } from './scenarios/hit-blob-small.ts';
import { hitManifestDigest } from './scenarios/hit-manifest-digest.ts';
import { hitManifestTag } from './scenarios/hit-manifest-tag.ts';
import { imagePull } from './scenarios/image-pull.ts';
import { missBlob } from './scenarios/miss-blob.ts';
import { missThrottledConnection, missThrottledTotal } from './scenarios/miss-throttled.ts';
import { policies } from './scenarios/policies.ts';
import { scale1m, scale10k, scale100k, scaleHit } from './scenarios/scale.ts';
import { slowClient } from './scenarios/slow-client.ts';

const SCENARIOS: readonly Scenario[] = [
  hitManifestTag,
  hitManifestDigest,
  hitBlobSmall,
  hitBlobLarge,
  hitBlobCrowd,
  hitBlobTls,
  missBlob,
  missThrottledTotal,
  missThrottledConnection,
  herd,
  foreignUpstream,
  slowClient,
  imagePull,
  scale10k,
  scale100k,
  scale1m,
  scaleHit,
  bearer,
  refusals,
  loginFlood,
  policies,
  fleet1,
  fleet2,
  fleet3,
  fleetHit,
];

const { values, positionals } = parseArgs({
  options: {
    smoke: { type: 'boolean', default: false },
    runs: { type: 'string' },
    compare: { type: 'string' },
  },
  allowPositionals: true,
});
const { smoke } = values;
const here = await readCheckout(join(import.meta.dirname, '..'));
const other = values.compare === undefined ? undefined : await readCheckout(values.compare);
const runs = smoke ? 1 : Number(values.runs ?? (other === undefined ? 5 : 7));
if (!Number.isInteger(runs) || runs < 1) {
  say(`--runs ${values.runs}: a whole number from 1 on is needed\n`);
  process.exit(2);
}
const chosen = choose(positionals);
const base = await mkdtemp(join(tmpdir(), 'millpond-bench-'));
process.once('exit', () => rmSync(base, { recursive: true, force: true }));
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(130));

const startedAt = new Date();
const machine = {
  ...(await describeMachine(here)),
  ...(other === undefined ? {} : { other: await describeCheckout(other) }),
};
say(`${JSON.stringify(machine, undefined, 2)}\n`);
if (smoke) say('smoke: tiny sizes, one run each; the figures mean nothing\n');
const reports: Report[] = [];
const comparison: ComparedFigure[] = [];
const skipped = new Set<string>();
const failed: string[] = [];
for (const scenario of chosen) {
  if (scenario.needs !== undefined && !isOnPath(scenario.needs)) {
    skipped.add(`${scenario.name}: ${scenario.needs} is not installed (apt-get install ${scenario.needs})`);
    continue;
  }
  const missing = scenario.missing?.();
  if (missing !== undefined) {
    skipped.add(`${scenario.name}: ${missing}`);
    continue;
  }
  const began = performance.now();
  try {
    const samples = await runScenario(scenario);
    if (other === undefined) {
      const result = report(scenario, samples);
      reports.push(result);
      say(renderReport(scenario, result, !smoke));
    } else {
      const figures = compare(scenario, samples);
      comparison.push(...figures);
      say(`\n${renderComparison(figures)}`);
    }
    say(`${scenario.name} took ${Math.round((performance.now() - began) / 1000)} s\n`);
    if (!smoke) await writeResults(); // each time: a run that is broken off has not been for nothing
  } catch (error) {
    failed.push(scenario.name);
    say(`\n${scenario.name} failed: ${inspect(error)}\n`);
  }
}
for (const reason of skipped) say(`skipped: ${reason}\n`);
if (!smoke) say(`\nwritten: ${await writeResults()}\n`);
if (failed.length > 0) say(`failed: ${failed.join(', ')}\n`);
const worse = comparison.filter(({ verdict }) => verdict === 'worse');
for (const { scenario, metric, ratio } of smoke ? [] : worse)
  say(`worse: ${scenario}, ${metric}: ${ratio.toFixed(2)}\n`);
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

async function runScenario(scenario: Scenario): Promise<Samples> {
  const turns = Array.from({ length: runs }, (_, n) => n + 1);
  if (other === undefined || smoke || scenario.startsAnew === true) return runTurns(scenario, turns);
  // How much memory a server takes depends on how its process happened to begin, and stays so: two equal ones are 10 %
  // apart all day. So each turn has processes of its own.
  const samples: Samples = {};
  for (const turn of turns) {
    for (const [name, taken] of Object.entries(await runTurns(scenario, [turn]))) {
      (samples[name as keyof Samples] ??= []).push(...(taken ?? []));
    }
  }
  return samples;
}

async function runTurns(scenario: Scenario, turns: readonly number[]): Promise<Samples> {
  const directory = await mkdtemp(join(base, `${scenario.name}-`));
  const upstream = await Upstream.start(directory);
  const lab: Lab = {
    upstream,
    smoke,
    directory,
    servers: {},
    startAnother: ({ checkout = here }, at, more) =>
      startMillpond({ directory: at, ...portsOf(upstream) }, checkout, more),
  };
  try {
    if (other === undefined) {
      for (const peer of scenario.peers) {
        if (peer !== 'bare') await startPeer(lab, peer);
      }
    } else {
      for (const name of ['this', 'other', 'again'] as const) {
        await startVersion(lab, name, name === 'this' ? here : other);
      }
    }
    await scenario.prepare?.(lab);
    if (scenario.bareExample !== undefined) await startCeiling(lab, await scenario.bareExample(lab));
    return await measureInTurns(scenario, lab, turns);
  } finally {
    await scenario.finish?.(lab);
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
  const surroundings = { directory: join(lab.directory, peer), ...portsOf(lab.upstream) };
  await mkdir(surroundings.directory);
  const start: Partial<Record<PeerName, () => Server | Promise<Server>>> = {
    millpond: () => startMillpond(surroundings, here),
    'millpond-tls': () => startMillpondTls(surroundings, here),
    'nginx-tls': () => startNginxTls(surroundings),
    accel: () => startAccelerated(surroundings, here),
    'docker-registry': () => startDockerRegistry(surroundings),
    nginx: () => startNginx(surroundings),
    direct: () => direct(surroundings),
  };
  const server = await start[peer]?.();
  if (server !== undefined) lab.servers[peer] = server;
}

function portsOf({ port, foreignPort }: Upstream): { upstreamPort: number; foreignPort: number } {
  return { upstreamPort: port, foreignPort };
}

async function startVersion(lab: Lab, name: VersionName, checkout: Checkout): Promise<void> {
  const surroundings = { directory: join(lab.directory, name), ...portsOf(lab.upstream) };
  await mkdir(surroundings.directory);
  lab.servers[name] = { ...(await startMillpond(surroundings, checkout)), name };
}

async function startCeiling(lab: Lab, path: string): Promise<void> {
  const { millpond } = lab.servers;
  if (millpond === undefined) return;
  const surroundings = { directory: lab.directory, ...portsOf(lab.upstream) };
  lab.servers.bare = await startBare(surroundings, await exampleOf(millpond, path));
}

/**
 * A, B, C, then B, C, A, and so on: what the machine does meanwhile hits all alike, and so does being first. The first
 * turn only warms the servers up.
 */
async function measureInTurns(scenario: Scenario, lab: Lab, turns: readonly number[]): Promise<Samples> {
  const samples: Samples = {};
  const servers = Object.values(lab.servers);
  const warmUp = smoke || scenario.startsAnew === true ? [] : [0];
  for (const turn of [...warmUp, ...turns]) {
    const at = turn % servers.length;
    for (const server of [...servers.slice(at), ...servers.slice(0, at)]) {
      const sample = await scenario.measure(lab, server);
      if (turn > 0) (samples[server.name] ??= []).push(sample);
    }
  }
  return samples;
}

async function writeResults(): Promise<string> {
  const folder = join(import.meta.dirname, 'results');
  const stamp = startedAt.toISOString().slice(0, 16).replace(':', '');
  await mkdir(folder, { recursive: true });
  const common = { startedAt, runs, machine, skipped: [...skipped], failed };
  const content = { ...common, ...(other === undefined ? { reports } : { comparison }) };
  const file = join(folder, `${stamp}.json`);
  await writeFile(file, `${JSON.stringify(content, undefined, 2)}\n`);
  if (other === undefined) return file;
  const table = join(folder, `${stamp}.md`);
  await writeFile(table, renderComparison(comparison));
  return table;
}

function say(text: string): void {
  process.stdout.write(text);
}
