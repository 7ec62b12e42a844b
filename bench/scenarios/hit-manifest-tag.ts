import { ACCEPT_LINE, addManifest, measureRequests, REPOSITORY, warmUp } from '../lib/measure.ts';
import type { Scenario } from '../lib/scenario.ts';

const PATH = `/v2/${REPOSITORY}/manifests/1`;

export const hitManifestTag: Scenario = {
  name: 'hit-manifest-tag',
  does: 'a warm manifest by tag, 32 connections kept alive, 3 s',
  peers: ['millpond', 'docker-registry', 'nginx', 'direct', 'bare'],
  needs: 'wrk',
  bareExample: async () => PATH,
  prepare: async (lab) => {
    await addManifest(lab);
    await warmUp(lab, PATH);
  },
  measure: (lab, server) => measureRequests(lab, server, PATH, [ACCEPT_LINE]),
  shows: ['requestsPerSecond', 'p50Ms', 'p99Ms', 'cpuSecondsPer1000', 'peakRssMiB', 'upstreamRequests'],
  targets: [
    { metric: 'requestsPerSecond', relation: '≥', limit: { factor: 50, of: 'docker-registry' } },
    { metric: 'requestsPerSecond', relation: '≥', limit: { factor: 0.5, of: 'bare' } },
  ],
};
