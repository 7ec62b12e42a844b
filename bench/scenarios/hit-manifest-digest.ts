import { ACCEPT_LINE, addManifest, measureRequests, REPOSITORY, warmUp } from '../lib/measure.ts';
import type { Lab, Scenario } from '../lib/scenario.ts';

const pathOf = async (lab: Lab) => `/v2/${REPOSITORY}/manifests/${await addManifest(lab)}`;

export const hitManifestDigest: Scenario = {
  name: 'hit-manifest-digest',
  does: 'a warm manifest by digest, 32 connections kept alive, 3 s',
  peers: ['millpond', 'docker-registry', 'nginx', 'direct', 'bare'],
  needs: 'wrk',
  bareExample: pathOf,
  prepare: async (lab) => warmUp(lab, await pathOf(lab)),
  measure: async (lab, server) => measureRequests(lab, server, await pathOf(lab), [ACCEPT_LINE]),
  shows: ['requestsPerSecond', 'p50Ms', 'p99Ms', 'cpuSecondsPer1000', 'peakRssMiB', 'upstreamRequests'],
  targets: [{ metric: 'requestsPerSecond', relation: '≥', limit: { factor: 15, of: 'docker-registry' } }],
};
