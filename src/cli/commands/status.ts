/** `millpond status`. */
import type { Command } from 'commander';
import { OperationsClient } from '../io/operations-client.ts';
import { type ServerOptions, withServerOptions } from '../io/options.ts';
import { humanSize, table } from '../io/output.ts';
import type { Surroundings } from '../io/surroundings.ts';

/** The part of the API's answer that is shown. */
interface Status {
  version: string;
  sealed: boolean;
  store: { bytes: number; capacityBytes: number; objects: number; evictions: number };
  requests: { total: number; hitRate: number | null; byteHitRate: number | null };
  upstreams: {
    name: string;
    up: boolean;
    requests: number;
    rateLimit: { limit: number | null; remaining: number | null };
  }[];
}

export function addStatusCommand(program: Command, surroundings: Surroundings): void {
  const { stdout } = surroundings;
  withServerOptions(program.command('status'))
    .description('show upstreams, rate limits, the size of the cache and the hit rate')
    .option('--json', 'print JSON')
    .action(async (options: ServerOptions & { json?: true }) => {
      const status = await new OperationsClient(options, surroundings).json('GET', '/status');
      stdout.write(options.json ? `${JSON.stringify(status, undefined, 2)}\n` : format(status as Status));
    });
}

function format({ version, sealed, store, requests, upstreams }: Status): string {
  const share = store.capacityBytes === 0 ? 0 : store.bytes / store.capacityBytes;
  const lines = [
    `Millpond ${version}${sealed ? ', sealed: it sends no requests to upstreams' : ''}`,
    `store      ${humanSize(store.bytes)} of ${humanSize(store.capacityBytes)} (${percent(share)}), ${store.objects} objects, ${store.evictions} evicted`,
    `requests   ${requests.total} since the start, hit rate ${percent(requests.hitRate)}, byte hit rate ${percent(requests.byteHitRate)}`,
    '',
  ];
  const rows = upstreams.map(({ name, up, requests: sent, rateLimit: { limit, remaining } }) => [
    name,
    up ? 'up' : 'down',
    String(sent),
    remaining === null ? '-' : `${remaining} of ${limit ?? '?'} left`,
  ]);
  return `${lines.join('\n')}\n${table([['UPSTREAM', 'STATE', 'REQUESTS', 'RATE LIMIT'], ...rows])}`;
}

function percent(share: number | null): string {
  return share === null ? '-' : `${Math.round(share * 100)} %`;
}
