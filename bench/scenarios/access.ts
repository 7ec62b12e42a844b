/** What access control costs, and what it withstands. */

import { mkdir, writeFile } from 'node:fs/promises';
import { Agent, request as ask } from 'node:http';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { hashSync } from '@node-rs/bcrypt';
import { ACCEPT_LINE, addManifest, measureRequests, REPOSITORY } from '../lib/measure.ts';
import type { Server } from '../lib/peers.ts';
import { residentMiB } from '../lib/processes.ts';
import { summarise } from '../lib/report.ts';
import type { Lab, Sample, Scenario } from '../lib/scenario.ts';

const PASSWORD = 'a password';
const USERS = ['anna', 'bert'] as const;
/** Each logs in once: a password that was checked is remembered for minutes. */
const newcomers = Array.from({ length: 32 }, (_, n) => `newcomer-${n}`);
/** What `htpasswd -B` writes. */
const COST = 10;
const MANIFEST = `/v2/${REPOSITORY}/manifests/1`;

const servers = new WeakMap<Lab, { open: Server; guarded: Server }>();

/** A server without access control and one with it, side by side, both warm. */
async function startPair(lab: Lab): Promise<void> {
  await addManifest(lab);
  const { millpond: like } = lab.servers;
  if (like === undefined) throw new Error('this scenario needs Millpond');
  const [openDirectory, guardedDirectory] = [join(lab.directory, 'open'), join(lab.directory, 'guarded')];
  await mkdir(openDirectory);
  await mkdir(guardedDirectory);
  const htpasswd = join(guardedDirectory, 'htpasswd');
  await writeFile(
    htpasswd,
    [...USERS, ...newcomers].map((user) => `${user}:${hashSync(PASSWORD, COST)}\n`).join(''),
    {
      mode: 0o600,
    },
  );
  const rules = [
    { who: 'user:anna', pull: `upstream.test/${REPOSITORY}` },
    { who: 'user:bert', pull: 'upstream.test/elsewhere/*' },
  ];
  const open = await lab.startAnother(like, openDirectory, {});
  const guarded = await lab.startAnother(like, guardedDirectory, { access: { users: { htpasswd }, rules } });
  servers.set(lab, { open, guarded });
  await reply(open, MANIFEST);
  await reply(guarded, MANIFEST, await bearerOf(guarded));
}

function pairOf(lab: Lab): { open: Server; guarded: Server } {
  const pair = servers.get(lab);
  if (pair === undefined) throw new Error('not prepared');
  return pair;
}

async function stopPair(lab: Lab): Promise<void> {
  await Promise.all(Object.values(pairOf(lab)).map((server) => server.stop()));
}

export const bearer: Scenario = {
  name: 'bearer',
  does: 'a warm manifest by tag, 32 connections kept alive, 3 s: with a Bearer token where there is access control, and without',
  peers: ['millpond'],
  needs: 'wrk',
  prepare: startPair,
  measure: async (lab) => {
    const { open, guarded } = pairOf(lab);
    const authorization = `Authorization: ${(await bearerOf(guarded))['authorization']}`;
    const plain = await measureRequests(lab, open, MANIFEST, [ACCEPT_LINE]);
    const withToken = await measureRequests(lab, guarded, MANIFEST, [ACCEPT_LINE, authorization]);
    const [cpu = Number.NaN, openCpu = Number.NaN] = [
      withToken['cpuSecondsPer1000'],
      plain['cpuSecondsPer1000'],
    ];
    return { cpuSecondsPer1000: cpu, openCpuSecondsPer1000: openCpu, bearerOverOpen: cpu / openCpu };
  },
  finish: stopPair,
  shows: ['openCpuSecondsPer1000', 'cpuSecondsPer1000', 'bearerOverOpen'],
  targets: [{ metric: 'bearerOverOpen', relation: '≤', limit: { value: 1.1 } }],
};

const REFUSALS = 2_000;
const DIGEST = `sha256:${'a'.repeat(64)}`;

/** What can be asked about a repository: method, route, headers. */
const QUESTIONS: readonly [method: string, route: string, headers: Record<string, string>][] = [
  ['GET', 'manifests/1', {}],
  ['HEAD', 'manifests/1', {}],
  ['GET', 'manifests/1', { 'if-none-match': `"${DIGEST}"` }],
  ['GET', `blobs/${DIGEST}`, { range: 'bytes=0-9' }],
  ['GET', 'tags/list', {}],
  ['GET', `referrers/${DIGEST}`, {}],
];

export const refusals: Scenario = {
  name: 'refusals',
  does: `${REFUSALS} refusals of each kind, in turns, on one connection: of a repository that is cached, one that is not, one that is missing, and one that cannot be reached; ${QUESTIONS.length} kinds of requests, by nobody and by a user with other rights`,
  peers: ['millpond'],
  prepare: startPair,
  measure: async (lab) => {
    const { guarded } = pairOf(lab);
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    const askers = [{}, await bearerOf(guarded, 'bert')];
    const ratios: number[] = [];
    for (const headers of askers) {
      for (const question of QUESTIONS)
        ratios.push(await slowestOverQuickest(lab, guarded, agent, question, headers));
    }
    agent.destroy();
    return { worstOverQuickest: Math.max(...ratios), medianOverQuickest: summarise(ratios).median };
  },
  finish: stopPair,
  shows: ['medianOverQuickest', 'worstOverQuickest'],
  targets: [{ metric: 'worstOverQuickest', relation: '≤', limit: { value: 1.05 } }],
};

/** Of the medians of the refusals of each repository. */
async function slowestOverQuickest(
  lab: Lab,
  server: Server,
  agent: Agent,
  [method, route, asked]: (typeof QUESTIONS)[number],
  credentials: Record<string, string>,
): Promise<number> {
  // Of one length: what is asked for more bytes takes longer.
  const repositories = [REPOSITORY, 'bench/other', 'none/atall', 'foreign.test/a'];
  const samples = new Map<string, number[]>(repositories.map((name) => [name, []]));
  const count = lab.smoke ? 20 : REFUSALS;
  for (let turn = 0; turn < count; turn += 1) {
    for (const [name, times] of samples) {
      const startedAt = performance.now();
      const status = await reply(
        server,
        `/v2/${name}/${route}`,
        { ...asked, ...credentials },
        { agent, method },
      );
      times.push(performance.now() - startedAt);
      if (status !== 401 && status !== 403) throw new Error(`${method} ${name} ${route} is ${status}`);
    }
  }
  const medians = [...samples.values()].map((times) => summarise(times).median);
  return Math.max(...medians) / Math.min(...medians);
}

const FLOOD_SECONDS = 30;
const WRONG_A_SECOND = 200;
/** Loopback has a whole network: the attacker has an address of its own. */
const ATTACKER = '127.0.0.2';
const NEWCOMER = '127.0.0.3';

export const loginFlood: Scenario = {
  name: 'login-flood',
  does: `${WRONG_A_SECOND} wrong passwords a second from one address for ${FLOOD_SECONDS} s, beside warm pulls and a first login from another address`,
  peers: ['millpond'],
  needs: 'wrk',
  prepare: startPair,
  measure: async (lab) => {
    const { guarded } = pairOf(lab);
    const authorization = `Authorization: ${(await bearerOf(guarded))['authorization']}`;
    const pulls = () => measureRequests(lab, guarded, MANIFEST, [ACCEPT_LINE, authorization]);
    const alone = await pulls();
    const before = residentMiB(guarded.pids);
    const flood = startFlood(guarded, lab.smoke ? 2 : FLOOD_SECONDS);
    await setTimeout(lab.smoke ? 500 : 5_000); // the queue is full by then
    const beside = await pulls();
    const startedAt = performance.now();
    const status = await reply(guarded, '/token', basic(newcomers.pop() ?? '', PASSWORD), {
      localAddress: NEWCOMER,
    });
    const firstLoginMs = performance.now() - startedAt;
    if (status !== 200) throw new Error(`the first login got ${status}`);
    await flood;
    const rate = (sample: Sample) => sample['requestsPerSecond'] ?? Number.NaN;
    return {
      ...{ pullsOverAlone: rate(beside) / rate(alone), firstLoginMs },
      rssGrowthMiB: residentMiB(guarded.pids) - before,
    };
  },
  finish: stopPair,
  shows: ['pullsOverAlone', 'firstLoginMs', 'rssGrowthMiB'],
  targets: [
    { metric: 'pullsOverAlone', relation: '≥', limit: { value: 0.8 } },
    { metric: 'firstLoginMs', relation: '≤', limit: { value: 1000 } },
    { metric: 'rssGrowthMiB', relation: '≤', limit: { value: 20 } },
  ],
};

/** Each with another password; no reply is waited for before the next is sent. */
async function startFlood(server: Server, seconds: number): Promise<void> {
  const agent = new Agent({ keepAlive: true, maxSockets: 1_000 });
  const sent: Promise<unknown>[] = [];
  const total = seconds * WRONG_A_SECOND;
  const startedAt = performance.now();
  for (let n = 0; n < total; n += 1) {
    const wait = startedAt + (n * 1000) / WRONG_A_SECOND - performance.now();
    if (wait > 1) await setTimeout(wait);
    // The server may cut or refuse it: both are allowed.
    sent.push(
      reply(server, '/token', basic('anna', `wrong ${n}`), { agent, localAddress: ATTACKER }).catch(
        () => undefined,
      ),
    );
  }
  await Promise.all(sent);
  agent.destroy();
}

function basic(user: string, password: string): Record<string, string> {
  return { authorization: `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}` };
}

async function bearerOf(
  server: Server,
  user: (typeof USERS)[number] = 'anna',
): Promise<Record<string, string>> {
  const granted = await fetch(`http://127.0.0.1:${server.port}/token`, { headers: basic(user, PASSWORD) });
  return { authorization: `Bearer ${((await granted.json()) as { token: string }).token}` };
}

/** @returns its status; the body is read to its end */
function reply(
  { port }: Server,
  path: string,
  headers: Record<string, string> = {},
  options: { agent?: Agent; localAddress?: string; method?: string } = {},
): Promise<number> {
  return new Promise((resolve, reject) => {
    ask({ host: '127.0.0.1', port, path, headers, ...options }, (message) => {
      message
        .once('end', () => resolve(message.statusCode ?? 0))
        .once('error', reject)
        .resume();
    })
      .once('error', reject)
      .end();
  });
}
