import { coldBlob, MIB, measureDownload } from '../lib/measure.ts';
import type { Scenario } from '../lib/scenario.ts';

const CLIENTS = 100;
const LEAVE_AFTER_MS = 8000;

export const slowClient: Scenario = {
  name: 'slow-client',
  does: `${CLIENTS} clients that read 1 MiB/s each for ${LEAVE_AFTER_MS / 1000} s, a blob of 256 MiB that comes at 40 MiB/s a connection`,
  peers: ['millpond', 'docker-registry', 'nginx'],
  prepare: async (lab) => void (await lab.upstream.throttle({ perConnection: 40 * MIB })),
  measure: async (lab, server) => {
    const path = await coldBlob(lab, server, lab.smoke ? 4 * MIB : 256 * MIB);
    return measureDownload(lab, server, {
      path,
      clients: CLIENTS,
      repeat: 1,
      verify: false,
      readRate: MIB,
      leaveAfterMs: lab.smoke ? 1000 : LEAVE_AFTER_MS,
    });
  },
  shows: ['rssGrowthMiB', 'peakRssMiB', 'firstByteMs', 'upstreamMiB', 'cpuSeconds', 'loopP99Ms'],
  targets: [],
};
