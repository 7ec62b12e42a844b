/** A real coordinator: Debian's redis-server, which speaks what Valkey speaks. */
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { createClient } from '@redis/client';
import { useGroup } from '../../src/fleet/coordinator/coordinator.ts';
import { type Digest, digestHex } from '../../src/oci/digest.ts';
import { cleanUp } from './cleanup.ts';
import { freePort, type RunningProcess, startProcess, until } from './real-processes.ts';
import { tempDir } from './temp-dir.ts';

export interface RealCoordinator {
  url: string;
  process: RunningProcess;
  /** Commands that were carried out so far, by name in lower case. */
  commands(): Promise<Map<string, number>>;
  /** Lets time pass for what is kept about content, and ends the lease of whoever evicts. */
  pass(ms: number): Promise<void>;
  /** What is kept of the last use of a digest. */
  keptOfUse(digest: Digest): Promise<string | null>;
  keepOfUse(digest: Digest, kept: string): Promise<void>;
  /** Its time; milliseconds since the epoch. */
  now(): Promise<number>;
}

const NOW = "local time = redis.call('TIME') return time[1] * 1000 + math.floor(time[2] / 1000)";

export async function startCoordinator(t: TestContext): Promise<RealCoordinator> {
  const port = await freePort();
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
  const pass = async (ms: number) => {
    const rewind = async (key: string) => {
      const kept = (await client.get(key)) ?? '';
      const rewound = kept.replaceAll(/\d+/g, (time) => String(Number(time) - ms));
      await client.set(key, rewound, { expiration: 'KEEPTTL' });
    };
    await Promise.all((await client.keys('*{use*')).map(rewind));
    for (const key of await client.keys('*:lease:eviction')) await client.del(key);
  };
  const keptOfUse = async (digest: Digest) => {
    const [key = ''] = await client.keys(`*{use${useGroup(digest)}}:${digestHex(digest)}`);
    return client.get(key);
  };
  return {
    pass,
    keptOfUse,
    keepOfUse: async (digest, kept) => {
      await client.set(`millpond/{use${useGroup(digest)}}:${digestHex(digest)}`, kept);
    },
    now: async () => Number(await client.eval(NOW)),
    url: url.replace('redis:', 'valkey:'),
    process: server,
    commands: async () => {
      const stats = await client.info('commandstats');
      const found = stats.matchAll(/^cmdstat_([a-z|]+):calls=(\d+)/gm);
      return new Map([...found].map(([, name = '', calls]) => [name, Number(calls)]));
    },
  };
}
