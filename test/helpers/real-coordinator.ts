/** A real coordinator: Debian's redis-server, which speaks what Valkey speaks. */
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { createClient } from '@redis/client';
import { cleanUp } from './cleanup.ts';
import { freePort, type RunningProcess, startProcess, until } from './real-processes.ts';
import { tempDir } from './temp-dir.ts';

export interface RealCoordinator {
  url: string;
  process: RunningProcess;
  port: number;
  /** Forgets all. */
  flush(): Promise<void>;
  /** Commands that were carried out so far, by name in lower case. */
  commands(): Promise<Map<string, number>>;
}

/** @param at the port of one that has ended, to come back there with nothing in it */
export async function startCoordinator(t: TestContext, at?: number): Promise<RealCoordinator> {
  const port = at ?? (await freePort());
  const directory = await tempDir(t);
  const options = ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--dir', directory];
  const server = startProcess(t, 'redis-server', [...options, '--pidfile', join(directory, 'pid')]);
  const url = `redis://127.0.0.1:${port}`;
  const client = createClient({ url });
  client.on('error', () => undefined);
  await until('redis-server', server, async () => {
    if (!client.isOpen) await client.connect();
    return (await client.ping()) === 'PONG';
  });
  cleanUp(t, () => client.destroy());
  return {
    url: url.replace('redis:', 'valkey:'),
    ...{ port, process: server },
    flush: async () => void (await client.flushAll()),
    commands: async () => {
      const stats = await client.info('commandstats');
      const found = stats.matchAll(/^cmdstat_([a-z|]+):calls=(\d+)/gm);
      return new Map([...found].map(([, name = '', calls]) => [name, Number(calls)]));
    },
  };
}
