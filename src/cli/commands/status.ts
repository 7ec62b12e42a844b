/** `millpond status`. */
import type { Command } from 'commander';
import { type ServerOptions, withServerOptions } from '../io/options.ts';
import { humanSize, isTerminal } from '../io/output.ts';
import { operationsClient } from '../io/server-address.ts';
import type { Surroundings } from '../io/surroundings.ts';
import { ago, humanDuration, writeTable } from '../io/tables.ts';

const LOOK_AGAIN_MS = 2_000;
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
    objects: {
      trouble: string | null;
      waiting: number;
      content?: { bytes: number; objects: number; leavingBytes: number; maxBytes: number };
    };
    coordinator?: { trouble: string | null };
    members?: { address: string; version: string; isOwn: boolean }[];
  };
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
  for (const [at, line] of [...troubles(status, now)].entries())
    stdout.write(`${at === 0 ? '\n' : ''}${line}\n`);
}

function* summary(status: Status, now: number): Generator<string> {
  const { version, startedAt, sealed, configuration, store, requests, fleet } = status;
  const share = store.capacityBytes === 0 ? 0 : store.bytes / store.capacityBytes;
  const free = store.freeBytes === null ? '' : `, ${humanSize(store.freeBytes)} free on its file system`;
  const up = humanDuration(now - Date.parse(startedAt));
  yield `Millpond ${version}, up for ${up}${sealed ? ', sealed: it sends no requests to upstreams' : ''}`;
  yield `config     ${configuration.file ?? 'none, built-in defaults'}`;
  yield `directory  ${store.directory}${free}`;
  yield `store      ${humanSize(store.bytes)} of ${humanSize(store.capacityBytes)} (${percent(share)}), ${store.objects} objects, ${store.evictions} evicted`;
  if (fleet !== undefined) yield `fleet      ${fleet.objects.waiting} objects wait to be uploaded`;
  const content = fleet?.objects.content;
  if (content !== undefined)
    yield `objects    ${humanSize(content.bytes)} of ${humanSize(content.maxBytes)} in the object store, ${content.objects} objects, ${humanSize(content.leavingBytes)} leaving`;
  for (const { address, version: its, isOwn } of fleet?.members ?? [])
    yield `node       ${address}, Millpond ${its}${isOwn ? ', this one' : ''}`;
  yield `requests   ${requests.total} since the start, hit rate ${percent(requests.hitRate)}, byte hit rate ${percent(requests.byteHitRate)}`;
}

/** What somebody should know, or do something about. */
function* troubles({ upstreams, warm, configuration, fleet }: Status, now: number): Generator<string> {
  if (fleet !== undefined && fleet.objects.trouble !== null)
    yield `fleet: the object store is not used: ${fleet.objects.trouble}`;
  if (fleet?.coordinator !== undefined && fleet.coordinator.trouble !== null)
    yield `fleet: the coordinator is not used: ${fleet.coordinator.trouble}`;
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
