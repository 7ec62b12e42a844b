import { mkdir, rm } from 'node:fs/promises';
import { get } from 'node:http';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { blobPath, coldBlob, download, MIB } from '../lib/measure.ts';
import type { Server } from '../lib/peers.ts';
import type { Lab, Sample, Scenario } from '../lib/scenario.ts';
import type { Foreign } from '../lib/upstream.ts';

interface Trouble extends Foreign {
  name: string;
  /** The client of the honest upstream asks when the foreign one has sent this share of the blob. */
  asksAt: number;
}

const TROUBLES: readonly Trouble[] = [
  { name: 'wrong', bytesPerSecond: 4 * MIB, share: 1, asksAt: 0.5 },
  { name: 'hanging', bytesPerSecond: 64 * MIB, share: 0.5, asksAt: 0.5 },
  { name: 'crawling', bytesPerSecond: 1024, share: 1, asksAt: 0 },
];
const POLL_MS = 20;
/** For the foreign upstream to have sent its part: 8 s for the slowest. */
const PATIENCE_MS = 60_000;

export const foreignUpstream: Scenario = {
  name: 'foreign-upstream',
  does: 'a blob of 64 MiB from an honest upstream at 32 MiB/s, while another one sends wrong bytes of the same digest: at 4 MiB/s, hanging in the middle, and at 1 KiB/s',
  peers: ['millpond'],
  startsAnew: true,
  prepare: async (lab) => void (await lab.upstream.throttle({ total: 32 * MIB })),
  // A server of its own for each run: the one before would still be busy with the foreign upstream, or have given it up.
  measure: async (lab, server) => {
    const directory = join(lab.directory, 'foreign');
    await mkdir(directory);
    const fresh = await lab.startAnother(server, directory, {});
    try {
      return await measure(lab, fresh);
    } finally {
      await fresh.stop();
      await rm(directory, { recursive: true });
    }
  },
  shows: ['aloneMs', ...TROUBLES.map(({ name }) => `${name}OverAlone`)],
  targets: TROUBLES.map(({ name }) => ({
    metric: `${name}OverAlone`,
    relation: '≤',
    limit: { value: 1.2 },
  })),
};

async function measure(lab: Lab, server: Server): Promise<Sample> {
  const size = lab.smoke ? 4 * MIB : 64 * MIB;
  const path = await coldBlob(lab, server, size);
  const alone = await download({ port: server.port, path, clients: 1, repeat: 1, verify: true });
  const sample: Sample = { aloneMs: alone.wallMs };
  for (const trouble of TROUBLES) {
    const wallMs = await besides(lab, server, size, trouble);
    sample[`${trouble.name}OverAlone`] = wallMs / alone.wallMs;
  }
  return sample;
}

/** How long the client of the honest upstream takes for its blob, every byte of it right, in ms. */
async function besides(lab: Lab, server: Server, size: number, trouble: Trouble): Promise<number> {
  const path = await coldBlob(lab, server, size);
  const digest = path.slice(path.lastIndexOf('/') + 1);
  await lab.upstream.setForeign(trouble);
  await lab.upstream.reset();
  const foreign = get({ port: server.port, path: blobPath(digest).replace('/v2/', '/v2/foreign.test/') });
  let answered = 'nothing';
  foreign.on('error', () => undefined); // its reply is cut in the end
  foreign.on('response', (reply) => {
    answered = `${reply.statusCode}`;
    reply.on('error', () => undefined).resume();
  });
  try {
    const enough = Math.max(1, size * trouble.asksAt);
    const waitsUntil = performance.now() + PATIENCE_MS;
    for (let sent = 0; sent < enough; sent = (await lab.upstream.stats()).foreignBytes) {
      if (performance.now() > waitsUntil) {
        const what = `${trouble.name}: the foreign upstream has sent ${sent} bytes of ${enough}`;
        throw new Error(`${what}; its client was answered ${answered}`);
      }
      await setTimeout(POLL_MS);
    }
    return (await download({ port: server.port, path, clients: 1, repeat: 1, verify: true })).wallMs;
  } finally {
    foreign.destroy();
  }
}
