import { coldBlob, download, MIB, measureDownload } from '../lib/measure.ts';
import type { Scenario } from '../lib/scenario.ts';

const CLIENTS = 50;

export const herd: Scenario = {
  name: 'herd',
  does: `${CLIENTS} clients at once, one cold blob of 64 MiB, upstream limited to 40 MiB/s a connection`,
  peers: ['millpond', 'docker-registry', 'nginx', 'direct'],
  prepare: async (lab) => void (await lab.upstream.throttle({ perConnection: 40 * MIB })),
  measure: async (lab, server) => {
    const size = lab.smoke ? 4 * MIB : 64 * MIB;
    const newPath = () => coldBlob(lab, server, size);
    const job = { repeat: 1, verify: false };
    const alone = await download({ ...job, port: server.port, path: await newPath(), clients: 1 });
    const sample = await measureDownload(lab, server, { ...job, path: await newPath(), clients: CLIENTS });
    return {
      ...sample,
      oneClientWallMs: alone.wallMs,
      wallOverOneClient: (sample['wallMs'] ?? Number.NaN) / alone.wallMs,
      upstreamBlobs: ((sample['upstreamMiB'] ?? Number.NaN) * MIB) / size,
    };
  },
  shows: [
    'upstreamBlobs',
    'wallMs',
    'wallOverOneClient',
    'firstByteAfterUpstreamMs',
    'cpuSecondsPerGB',
    'peakRssMiB',
    'loopP99Ms',
  ],
  targets: [
    { metric: 'upstreamBlobs', relation: '≤', limit: { value: 1 } },
    { metric: 'wallOverOneClient', relation: '≤', limit: { value: 1.1 } },
    { metric: 'firstByteAfterUpstreamMs', relation: '≤', limit: { value: 100 } },
    { metric: 'loopP99Ms', relation: '≤', limit: { value: 50 } },
  ],
};
