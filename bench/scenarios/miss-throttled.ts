import { coldBlob, MIB, measureDownload } from '../lib/measure.ts';
import type { Scenario } from '../lib/scenario.ts';
import type { Throttle } from '../lib/upstream.ts';

function missThrottled(name: string, limit: string, throttle: Throttle, factor: number): Scenario {
  return {
    name,
    does: `a cold blob of 256 MiB, one client, upstream limited to ${limit}`,
    peers: ['millpond', 'docker-registry', 'nginx', 'direct'],
    prepare: async (lab) => void (await lab.upstream.throttle(throttle)),
    measure: async (lab, server) => {
      const path = await coldBlob(lab, server, lab.smoke ? 4 * MIB : 256 * MIB);
      return measureDownload(lab, server, { path, clients: 1, repeat: 1, verify: false });
    },
    shows: ['wallMs', 'cpuSecondsPerGB', 'firstByteMs', 'peakRssMiB', 'upstreamMiB', 'upstreamRequests'],
    targets: [{ metric: 'wallMs', relation: '≤', limit: { factor, of: 'direct' } }],
  };
}

export const missThrottledTotal = missThrottled(
  'miss-throttled-total',
  '125 MB/s in all',
  { total: 125_000_000 },
  1.05,
);
export const missThrottledConnection = missThrottled(
  'miss-throttled-connection',
  '20 MiB/s a connection',
  { perConnection: 20 * MIB },
  0.35,
);
