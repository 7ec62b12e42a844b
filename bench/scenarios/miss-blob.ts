import { coldBlob, MIB, measureDownload } from '../lib/measure.ts';
import type { Scenario } from '../lib/scenario.ts';

export const missBlob: Scenario = {
  name: 'miss-blob',
  does: 'a cold blob of 256 MiB, one client, upstream as fast as loopback goes',
  peers: ['millpond', 'docker-registry', 'nginx', 'direct'],
  measure: async (lab, server) => {
    const path = await coldBlob(lab, server, lab.smoke ? 4 * MIB : 256 * MIB);
    return measureDownload(lab, server, { path, clients: 1, repeat: 1, verify: lab.smoke });
  },
  shows: ['wallMs', 'cpuSecondsPerGB', 'firstByteMs', 'peakRssMiB', 'upstreamMiB', 'upstreamRequests'],
  targets: [
    { metric: 'cpuSecondsPerGB', relation: '≤', limit: { factor: 0.6, of: 'docker-registry' } },
    { metric: 'wallMs', relation: '≤', limit: { factor: 1, of: 'nginx' } },
    { metric: 'wallMs', relation: '≤', limit: { factor: 1.5, of: 'docker-registry' } },
  ],
};
