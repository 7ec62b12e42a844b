/** `millpond status`. */
import type { Command } from 'commander';
import { type ServerOptions, withServerOptions } from '../io/options.ts';
import { humanSize, isTerminal } from '../io/output.ts';
import { operationsClient } from '../io/server-address.ts';
import type { Surroundings } from '../io/surroundings.ts';
import { ago, type Cell, humanDuration, writeTable } from '../io/tables.ts';

const LOOK_AGAIN_MS = 2_000;
/** People tell digests apart by less than their whole length. */
const DIGEST_SHOWN = 'sha256:'.length + 12;
const CLEAR_SCREEN = '\x1b[H\x1b[2J';

/** The part of the API's answer that is shown. Times are in ISO 8601. */
interface Status {
  version: string;
  startedAt: string;
  sealed: boolean;
  configuration: {
    file: string | null;
    lastReload: { at: string; successful: boolean } | null;
    waitsForRestart: string[];
  };
  store: {
    directory: string;
    bytes: number;
    capacityBytes: number;
    freeBytes: number | null;
    objects: number;
    evictions: number;
  };
  requests: { total: number; hitRate: number | null; byteHitRate: number | null };
  upstreams: {
    name: string;
    up: boolean;
    outage: { reason: string; since: string; retryAt: string } | null;
    pausedUntil: string | null;
    requests: number;
    rateLimit: { limit: number | null; remaining: number | null; resetsAt: string | null };
  }[];
  warm: { images: string[]; last: { at: string; images: number; failed: number } | null }[];
  fleet?: {
    objects: { trouble: string | null; waiting: number };
    sealed: boolean;
    coordinator?: { trouble: string | null };
    members?: Member[];
  };
}

/** A node of the fleet. */
interface Member {
  address: string;
  version: string;
  isOwn: boolean;
  /** Null: the coordinator does not answer. */
  lastSeen: string | null;
  /** Null: no other node has called it back yet. */
  reachable: boolean | null;
  trouble: string | null;
  /** The first of the digests that it fetches, and how many there are. */
  fetching: string[];
  fetches: number;
}

interface StatusOptions extends ServerOptions {
  json?: true;
  watch?: true;
}

export function addStatusCommand(program: Command, surroundings: Surroundings): void {
  const { stdout, clock } = surroundings;
  withServerOptions(program.command('status'))
    .description('show upstreams, rate limits, the cache, the hit rate, warm schedules and the configuration')
    .option('--watch', 'show it again every two seconds, until Ctrl-C')
    .option('--json', 'print JSON')
    .action(async (options: StatusOptions) => {
      const client = await operationsClient(options, surroundings);
      for (;;) {
        const status = (await client.json('GET', '/status')) as Status;
        if (options.watch === true && isTerminal(stdout)) stdout.write(CLEAR_SCREEN);
        if (options.json === true) stdout.write(`${JSON.stringify(status, undefined, 2)}\n`);
        else writeStatus(status, surroundings);
        if (options.watch === undefined) return;
        await clock.sleep(LOOK_AGAIN_MS);
      }
    });
}

function writeStatus(status: Status, { stdout, clock }: Surroundings): void {
  const now = clock.now();
  for (const line of summary(status, now)) stdout.write(`${line}\n`);
  stdout.write('\n');
  const rows = status.upstreams.map(({ name, up, requests, rateLimit: { limit, remaining, resetsAt } }) => [
    name,
    status.sealed ? 'sealed' : up ? 'up' : 'down',
    String(requests),
    remaining === null ? '-' : `${remaining} of ${limit ?? '?'} left`,
    resetsAt === null ? '-' : `in ${humanDuration(Date.parse(resetsAt) - now)}`,
  ]);
  writeTable(stdout, ['UPSTREAM', 'STATE', 'REQUESTS', 'RATE LIMIT', 'WINDOW ENDS'], rows);
  if (status.fleet?.members !== undefined) {
    stdout.write('\n');
    const nodes = status.fleet.members.map((member) => memberRow(member, now));
    writeTable(stdout, ['NODE', 'VERSION', 'LAST SEEN', 'REACHABLE', 'FETCHES'], nodes);
  }
  for (const [at, line] of [...troubles(status, now)].entries())
    stdout.write(`${at === 0 ? '\n' : ''}${line}\n`);
}

function memberRow(member: Member, now: number): Cell[] {
  const { address, version, isOwn, lastSeen, reachable, fetching, fetches } = member;
  const seen = lastSeen === null ? '-' : ago(now - Date.parse(lastSeen));
  const [first] = fetching;
  const more = fetches > 1 ? ` and ${fetches - 1} more` : '';
  return [
    address,
    version,
    isOwn ? `${seen}, this node` : seen,
    reachable === null ? '-' : reachable ? 'yes' : 'no',
    first === undefined ? '-' : { value: `${first}${more}`, text: `${first.slice(0, DIGEST_SHOWN)}${more}` },
  ];
}

function* summary(status: Status, now: number): Generator<string> {
  const { version, startedAt, sealed, configuration, store, requests, fleet } = status;
  const share = store.capacityBytes === 0 ? 0 : store.bytes / store.capacityBytes;
  const free = store.freeBytes === null ? '' : `, ${humanSize(store.freeBytes)} free on its file system`;
  const up = humanDuration(now - Date.parse(startedAt));
  const by = fleet?.sealed === true ? ' by the fleet' : '';
  yield `Millpond ${version}, up for ${up}${sealed ? `, sealed${by}: it sends no requests to upstreams` : ''}`;
  yield `config     ${configuration.file ?? 'none, built-in defaults'}`;
  yield `directory  ${store.directory}${free}`;
  yield `store      ${humanSize(store.bytes)} of ${humanSize(store.capacityBytes)} (${percent(share)}), ${store.objects} objects, ${store.evictions} evicted`;
  if (fleet !== undefined) yield `fleet      ${fleet.objects.waiting} objects wait to be uploaded`;
  yield `requests   ${requests.total} since the start, hit rate ${percent(requests.hitRate)}, byte hit rate ${percent(requests.byteHitRate)}`;
}

/** What somebody should know, or do something about. */
function* troubles({ upstreams, warm, configuration, fleet }: Status, now: number): Generator<string> {
  if (fleet !== undefined && fleet.objects.trouble !== null)
    yield `fleet: the object store is not used: ${fleet.objects.trouble}`;
  if (fleet?.coordinator !== undefined && fleet.coordinator.trouble !== null)
    yield `fleet: the coordinator is not used: ${fleet.coordinator.trouble}`;
  for (const { address, trouble } of fleet?.members ?? [])
    if (trouble !== null) yield `fleet: ${address} cannot be reached by another node: ${trouble}`;
  for (const { name, outage, pausedUntil } of upstreams) {
    if (outage !== null)
      yield `${name}: down for ${humanDuration(now - Date.parse(outage.since))}, asked again ${moment(outage.retryAt, now)}: ${outage.reason}`;
    if (pausedUntil !== null)
      yield `${name}: answered 429, some requests are sent again ${moment(pausedUntil, now)}`;
  }
  for (const { images, last } of warm) {
    const result =
      last === null
        ? 'not done yet'
        : `${last.images} fetched, ${last.failed} failed, ${ago(now - Date.parse(last.at))}`;
    yield `warm ${images.join(' ')}: ${result}`;
  }
  const { lastReload, waitsForRestart } = configuration;
  if (lastReload?.successful === false)
    yield `the last reload failed ${ago(now - Date.parse(lastReload.at))}: run millpond config check`;
  if (waitsForRestart.length > 0) yield `waits for a restart: ${waitsForRestart.join(', ')}`;
}

/** A time that has passed means the next request. */
function moment(time: string, now: number): string {
  const left = Date.parse(time) - now;
  return left <= 0 ? 'by the next pull' : `in ${humanDuration(left)}`;
}

function percent(share: number | null): string {
  return share === null ? '-' : `${Math.round(share * 100)} %`;
}
