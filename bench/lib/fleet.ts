/** A fleet under test: its engines, which are real ones, its nodes, and what they ask of the engines. */
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { createClient } from '@redis/client';
import { engine } from '../../test/helpers/engines.ts';
import type { Server } from './peers.ts';
import { freePort, isOnPath, startProcess, until } from './processes.ts';
import type { Lab } from './scenario.ts';

export interface FleetEngines {
  /** `fleet:` of a node. */
  config: () => Promise<Record<string, unknown>>;
  /** Commands and scripts that the nodes have sent to the coordinator so far. */
  commands: () => Promise<number>;
  stop: () => Promise<void>;
}

/** What a fleet needs and is not here; undefined: nothing. */
export function missingForFleet(): string | undefined {
  if (!isOnPath('redis-server')) return 'redis-server is not installed (apt-get install redis-server)';
  return existsSync(engine('versitygw')) ? undefined : 'versitygw is not built (.ci/engines versitygw)';
}

const KEY = { id: 'bench', secret: 'a secret for a benchmark' };

export async function startEngines(lab: Lab): Promise<FleetEngines> {
  const directory = await mkdtemp(join(lab.directory, 'engines-'));
  const [redisPort, storePort] = [await freePort(), await freePort()];
  const redisOptions = ['--port', String(redisPort), '--bind', '127.0.0.1', '--save', '', '--dir', directory];
  const redis = startProcess('redis-server', redisOptions, join(directory, 'redis.log'));
  const data = join(directory, 'objects');
  await mkdir(join(data, 'millpond'), { recursive: true });
  const storeOptions = ['--port', `127.0.0.1:${storePort}`, '--access', KEY.id, '--secret', KEY.secret];
  const store = startProcess(
    engine('versitygw'),
    [...storeOptions, '--quiet', 'posix', data],
    join(directory, 'versitygw.log'),
  );
  const endpoint = `http://127.0.0.1:${storePort}`;
  await until('versitygw', store, async () => (await fetch(endpoint)).status > 0);
  const client = createClient({ url: `redis://127.0.0.1:${redisPort}` });
  client.on('error', () => undefined);
  await until('redis-server', redis, async () => {
    if (!client.isOpen) await client.connect();
    return (await client.ping()) === 'PONG';
  });
  const files = { id: join(directory, 'id'), key: join(directory, 'key'), secret: join(directory, 'secret') };
  const texts = [KEY.id, KEY.secret, 'a secret that all the nodes of this fleet share'];
  for (const [n, file] of Object.values(files).entries())
    await writeFile(file, `${texts[n]}\n`, { mode: 0o600 });
  const credentials = { accessKeyId: { file: files.id }, secretAccessKey: { file: files.key } };
  return {
    config: async () => ({
      objects: { bucket: 'millpond', endpoint, credentials },
      coordinator: { url: `valkey://127.0.0.1:${redisPort}` },
      listen: `127.0.0.1:${await freePort()}`,
      secret: { file: files.secret },
    }),
    commands: async () => {
      const stats = await client.info('commandstats');
      // A script's own commands are counted beside it. Those are the engine's business.
      const calls = stats.matchAll(/^cmdstat_(?:eval|evalsha|fcall):calls=(\d+)/gm);
      return [...calls].reduce((sum, [, count]) => sum + Number(count), 0);
    },
    stop: async () => {
      client.destroy();
      await Promise.all([redis.stop(), store.stop()]);
    },
  };
}

/** A node with a disk of its own, which the others know. */
export async function startNode(lab: Lab, engines: FleetEngines): Promise<Server> {
  const { millpond: like } = lab.servers;
  if (like === undefined) throw new Error('this scenario needs Millpond');
  const directory = await mkdtemp(join(lab.directory, 'node-'));
  return lab.startAnother(like, directory, { fleet: await engines.config() });
}

/** Resolves when the nodes know each other: a node says every 5 s that it is there. */
export async function acquainted(nodes: readonly Server[]): Promise<void> {
  for (const node of nodes) {
    while ((await metric(node, /^millpond_fleet_members\{[^}]*\} (\d+)/gm)) < nodes.length)
      await setTimeout(100);
  }
}

/** Resolves when all that nodes have fetched is stored and uploaded. */
export async function uploaded(nodes: readonly Server[]): Promise<void> {
  for (const node of nodes) {
    for (;;) {
      const running = await metric(node, /^millpond_ingests_in_progress (\d+)/gm);
      const reply = await fetch((node.metricsUrl ?? '').replace('/metrics', '/api/status'));
      const { fleet } = (await reply.json()) as { fleet: { objects: { up: boolean; waiting: number } } };
      if (running === 0 && fleet.objects.up && fleet.objects.waiting === 0) break;
      await setTimeout(50);
    }
  }
}

/** Requests of all nodes to the object store so far, by kind: `get`, `put`, `list`. */
export async function storeRequests(nodes: readonly Server[]): Promise<Map<string, number>> {
  const counts = new Map<string, number>();
  for (const node of nodes) {
    const found = (await metricsOf(node)).matchAll(
      /^millpond_fleet_request_duration_seconds_count\{engine="objects",operation="([a-z-]+)"\} (\d+)/gm,
    );
    for (const [, kind = '', count] of found) counts.set(kind, (counts.get(kind) ?? 0) + Number(count));
  }
  return counts;
}

async function metric(node: Server, pattern: RegExp): Promise<number> {
  return [...(await metricsOf(node)).matchAll(pattern)].reduce((sum, [, value]) => sum + Number(value), 0);
}

async function metricsOf({ metricsUrl = '' }: Server): Promise<string> {
  return (await fetch(metricsUrl)).text();
}
