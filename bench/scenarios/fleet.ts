/** What a fleet asks of its upstream and its engines, how long its clients wait, and what it costs a hit. */
import { mkdtemp } from 'node:fs/promises';
import { join } from 'node:path';
import {
  acquainted,
  type FleetEngines,
  missingForFleet,
  startEngines,
  startNode,
  storeRequests,
  uploaded,
} from '../lib/fleet.ts';
import type { LoadResult } from '../lib/load.ts';
import {
  ACCEPT_LINE,
  addManifest,
  blobPath,
  coldBlob,
  download,
  MIB,
  measureRequests,
  OCI_CONFIG,
  OCI_LAYER,
  OCI_MANIFEST,
  REPOSITORY,
} from '../lib/measure.ts';
import type { Server } from '../lib/peers.ts';
import { summarise } from '../lib/report.ts';
import type { Lab, Sample, Scenario } from '../lib/scenario.ts';

const CLIENTS = 60;
const LAYERS = 20;
/** Of an image that one client of each node pulls: as containerd does. */
const LAYERS_AT_A_TIME = 3;

/** What was asked while `work` ran, and until all is uploaded. */
async function counted(
  lab: Lab,
  nodes: readonly Server[],
  engines: FleetEngines,
  work: () => Promise<readonly LoadResult[]>,
): Promise<{ upstreamBytes: number; firstBytes: number[]; commands: number; store: Map<string, number> }> {
  await lab.upstream.reset();
  const [commandsBefore, storeBefore] = [await engines.commands(), await storeRequests(nodes)];
  const firstBytes = (await work()).flatMap(({ firstByteMs }) => firstByteMs);
  await uploaded(nodes);
  const [commands, store] = [await engines.commands(), await storeRequests(nodes)];
  for (const [kind, count] of store) store.set(kind, count - (storeBefore.get(kind) ?? 0));
  const { bytes: upstreamBytes } = await lab.upstream.stats();
  return { upstreamBytes, firstBytes, commands: commands - commandsBefore, store };
}

/** A cold blob that the clients of all nodes want at once. */
async function pullBlob(lab: Lab, nodes: readonly Server[], engines: FleetEngines): Promise<Sample> {
  const size = lab.smoke ? 4 * MIB : 64 * MIB;
  const [first] = nodes;
  if (first === undefined) throw new Error('a fleet needs a node');
  const path = await coldBlob(lab, first, size);
  const clients = Math.floor((lab.smoke ? 6 : CLIENTS) / nodes.length);
  const seen = await counted(lab, nodes, engines, () =>
    Promise.all(nodes.map(({ port }) => download({ port, path, clients, repeat: 1, verify: lab.smoke }))),
  );
  const { median, max } = summarise(seen.firstBytes);
  return {
    blobFromUpstream: seen.upstreamBytes / size,
    blobFirstByteMs: median,
    blobLastFirstByteMs: max,
    blobCommands: seen.commands,
    blobStoreGets: seen.store.get('get') ?? 0,
    blobStorePuts: seen.store.get('put') ?? 0,
  };
}

/** A cold image that one client of each node pulls at once. */
async function pullImage(lab: Lab, nodes: readonly Server[], engines: FleetEngines): Promise<Sample> {
  const size = lab.smoke ? 100_000 : 4 * MIB;
  const config = await lab.upstream.newBlob(1000);
  const layers = await Promise.all(Array.from({ length: LAYERS }, () => lab.upstream.newBlob(size)));
  await lab.upstream.addManifest(REPOSITORY, 'image', OCI_MANIFEST, {
    ...{ schemaVersion: 2, mediaType: OCI_MANIFEST },
    config: { mediaType: OCI_CONFIG, digest: config, size: 1000 },
    layers: layers.map((digest) => ({ mediaType: OCI_LAYER, digest, size })),
  });
  const pull = async ({ port }: Server): Promise<LoadResult[]> => {
    const url = `http://127.0.0.1:${port}/v2/${REPOSITORY}/manifests/image`;
    const reply = await fetch(url, { headers: { accept: OCI_MANIFEST } });
    if (!reply.ok) throw new Error(`the image cannot be pulled: ${reply.status}`);
    await reply.arrayBuffer();
    const left = [config, ...layers].values();
    const results: LoadResult[] = [];
    const lane = async () => {
      for (const digest of left)
        results.push(
          await download({ port, path: blobPath(digest), clients: 1, repeat: 1, verify: lab.smoke }),
        );
    };
    await Promise.all(Array.from({ length: LAYERS_AT_A_TIME }, lane));
    return results;
  };
  const seen = await counted(lab, nodes, engines, async () => (await Promise.all(nodes.map(pull))).flat());
  const { median, max } = summarise(seen.firstBytes);
  const pulls = nodes.length * LAYERS;
  return {
    imageFromUpstream: seen.upstreamBytes / (LAYERS * size),
    imageFirstByteMs: median,
    imageLastFirstByteMs: max,
    imageCommands: seen.commands,
    commandsPerLayerAndNode: seen.commands / pulls,
    imageStoreGets: seen.store.get('get') ?? 0,
    imageStorePuts: seen.store.get('put') ?? 0,
    storeRequestsPerLayerAndNode: [...seen.store.values()].reduce((sum, count) => sum + count, 0) / pulls,
  };
}

function fleetOf(count: number): Scenario {
  return {
    name: `fleet-${count}`,
    does: `${count === 1 ? 'one node' : `${count} nodes`}: a cold blob of 64 MiB, ${CLIENTS} clients over all nodes at once, and a cold image of ${LAYERS} layers of 4 MiB, one client a node; upstream limited to 40 MiB/s a connection`,
    peers: ['millpond'],
    missing: missingForFleet,
    startsAnew: true,
    prepare: async (lab) => void (await lab.upstream.throttle({ perConnection: 40 * MIB })),
    measure: async (lab) => {
      const engines = await startEngines(lab);
      const nodes: Server[] = [];
      try {
        for (let n = 0; n < count; n += 1) nodes.push(await startNode(lab, engines));
        await acquainted(nodes);
        return { ...(await pullBlob(lab, nodes, engines)), ...(await pullImage(lab, nodes, engines)) };
      } finally {
        await Promise.all(nodes.map((node) => node.stop()));
        await engines.stop();
      }
    },
    shows: [
      'blobFromUpstream',
      'blobFirstByteMs',
      'blobLastFirstByteMs',
      'blobCommands',
      'blobStoreGets',
      'blobStorePuts',
      'imageFromUpstream',
      'imageFirstByteMs',
      'imageLastFirstByteMs',
      'imageCommands',
      'commandsPerLayerAndNode',
      'imageStoreGets',
      'imageStorePuts',
      'storeRequestsPerLayerAndNode',
    ],
    targets: [
      { metric: 'blobFromUpstream', relation: '≤', limit: { value: 1.02 } },
      { metric: 'imageFromUpstream', relation: '≤', limit: { value: 1.02 } },
      { metric: 'commandsPerLayerAndNode', relation: '≤', limit: { value: 3 } },
    ],
  };
}

export const [fleet1, fleet2, fleet3] = [fleetOf(1), fleetOf(2), fleetOf(3)];

const MANIFEST = `/v2/${REPOSITORY}/manifests/1`;
const enginesOf = new WeakMap<Lab, FleetEngines>();
let turn = 0;

/** CPU seconds for 1000 requests: of a warm manifest by tag, and of a warm blob of 4 KiB. */
async function hitCosts(lab: Lab, server: Server, blob: string): Promise<{ manifest: number; blob: number }> {
  const cpu = async (path: string) => {
    const sample = await measureRequests(lab, server, path, [ACCEPT_LINE]);
    return sample['cpuSecondsPer1000'] ?? Number.NaN;
  };
  return { manifest: await cpu(MANIFEST), blob: await cpu(blob) };
}

export const fleetHit: Scenario = {
  name: 'fleet-hit',
  does: 'a warm manifest by tag and a warm blob of 4 KiB, 32 connections kept alive, 3 s each: on a node of a fleet, and on a mirror that is alone',
  peers: ['millpond'],
  needs: 'wrk',
  missing: missingForFleet,
  prepare: async (lab) => {
    await addManifest(lab);
    enginesOf.set(lab, await startEngines(lab));
  },
  measure: async (lab) => {
    const [{ millpond: like }, engines] = [lab.servers, enginesOf.get(lab)];
    if (like === undefined || engines === undefined) throw new Error('not prepared');
    // New ones for each run: what a hit costs differs from process to process by more than a fleet costs.
    const alone = await lab.startAnother(like, await mkdtemp(join(lab.directory, 'alone-')), {});
    const node = await startNode(lab, engines);
    try {
      const blob = blobPath(await lab.upstream.addBlob(Buffer.alloc(4096, 'a small blob')));
      for (const { port } of [alone, node]) {
        for (const path of [MANIFEST, blob]) {
          const reply = await fetch(`http://127.0.0.1:${port}${path}`);
          if (!reply.ok) throw new Error(`not warm: ${path} got ${reply.status}`);
          await reply.arrayBuffer();
        }
      }
      await uploaded([node]);
      turn += 1;
      const isAloneFirst = turn % 2 === 0;
      const before = isAloneFirst ? await hitCosts(lab, alone, blob) : undefined;
      const inFleet = await hitCosts(lab, node, blob);
      const without = before ?? (await hitCosts(lab, alone, blob));
      return {
        manifestCpuSecondsPer1000: inFleet.manifest,
        aloneManifestCpuSecondsPer1000: without.manifest,
        manifestFleetOverAlone: inFleet.manifest / without.manifest,
        blobCpuSecondsPer1000: inFleet.blob,
        aloneBlobCpuSecondsPer1000: without.blob,
        blobFleetOverAlone: inFleet.blob / without.blob,
      };
    } finally {
      await Promise.all([alone.stop(), node.stop()]);
    }
  },
  finish: async (lab) => enginesOf.get(lab)?.stop(),
  shows: [
    'aloneManifestCpuSecondsPer1000',
    'manifestCpuSecondsPer1000',
    'manifestFleetOverAlone',
    'aloneBlobCpuSecondsPer1000',
    'blobCpuSecondsPer1000',
    'blobFleetOverAlone',
  ],
  targets: [
    { metric: 'manifestFleetOverAlone', relation: '≤', limit: { value: 1.05 } },
    { metric: 'blobFleetOverAlone', relation: '≤', limit: { value: 1.05 } },
  ],
};
