import { blobPath, measureRequests, REPOSITORY, warmUp } from '../lib/measure.ts';
import type { Lab, Scenario } from '../lib/scenario.ts';

const BYTES = Buffer.alloc(4096, `a small blob of ${REPOSITORY} `);

/** The same bytes have the same digest, however often they are added. */
const pathOf = async (lab: Lab) => blobPath(await lab.upstream.addBlob(BYTES));

export const hitBlobSmall: Scenario = {
  name: 'hit-blob-small',
  does: 'a warm blob of 4 KiB, 32 connections kept alive, 3 s',
  peers: ['millpond', 'docker-registry', 'nginx', 'direct', 'bare'],
  needs: 'wrk',
  bareExample: pathOf,
  prepare: async (lab) => warmUp(lab, await pathOf(lab)),
  measure: async (lab, server) => measureRequests(lab, server, await pathOf(lab)),
  shows: ['requestsPerSecond', 'p50Ms', 'p99Ms', 'cpuSecondsPer1000', 'peakRssMiB', 'upstreamRequests'],
  targets: [],
};
