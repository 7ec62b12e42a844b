import { blobPath, MIB, measureDownload, warmUp } from '../lib/measure.ts';
import type { Lab, Scenario } from '../lib/scenario.ts';

const DOWNLOADS = 8;
const CROWD = 200;

const pathByLab = new WeakMap<Lab, string>();

async function addBlob(lab: Lab, size: number): Promise<void> {
  const path = blobPath(await lab.upstream.newBlob(lab.smoke ? MIB : size));
  pathByLab.set(lab, path);
  await warmUp(lab, path);
}

export const hitBlobLarge: Scenario = {
  name: 'hit-blob-large',
  does: `a warm blob of 256 MiB, one client, ${DOWNLOADS} times in a row`,
  peers: ['millpond', 'accel', 'docker-registry', 'nginx', 'direct'],
  prepare: (lab) => addBlob(lab, 256 * MIB),
  measure: async (lab, server) => {
    const path = pathByLab.get(lab) ?? '';
    return measureDownload(lab, server, { path, clients: 1, repeat: DOWNLOADS, verify: false });
  },
  shows: ['MiBps', 'cpuSecondsPerGB', 'firstByteMs', 'peakRssMiB', 'upstreamRequests'],
  targets: [
    { metric: 'cpuSecondsPerGB', relation: '≤', limit: { factor: 0.75, of: 'docker-registry' } },
    { metric: 'cpuSecondsPerGB', relation: '≤', limit: { factor: 1.5, of: 'nginx' } },
    { of: 'accel', metric: 'cpuSecondsPerGB', relation: '≤', limit: { factor: 1.1, of: 'nginx' } },
  ],
};

export const hitBlobTls: Scenario = {
  name: 'hit-blob-tls',
  does: `a warm blob of 256 MiB over TLS, one client, ${DOWNLOADS} times in a row`,
  peers: ['millpond-tls', 'nginx-tls'],
  prepare: (lab) => addBlob(lab, 256 * MIB),
  measure: async (lab, server) => {
    const path = pathByLab.get(lab) ?? '';
    return measureDownload(lab, server, { path, clients: 1, repeat: DOWNLOADS, verify: false });
  },
  shows: ['MiBps', 'cpuSecondsPerGB', 'firstByteMs', 'peakRssMiB'],
  targets: [],
};

export const hitBlobCrowd: Scenario = {
  name: 'hit-blob-crowd',
  does: `a warm blob of 32 MiB, ${CROWD} clients at once`,
  peers: ['millpond', 'docker-registry', 'nginx'],
  prepare: (lab) => addBlob(lab, 32 * MIB),
  measure: async (lab, server) => {
    const path = pathByLab.get(lab) ?? '';
    return measureDownload(lab, server, { path, clients: CROWD, repeat: 1, verify: false });
  },
  shows: ['MiBps', 'cpuSecondsPerGB', 'firstByteMs', 'peakRssMiB', 'loopP99Ms'],
  targets: [{ metric: 'peakRssMiB', relation: '≤', limit: { value: 250 } }],
};
