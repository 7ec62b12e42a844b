/** What is removed from a fleet of processes, on real engines, with a node stopped and one cut off meanwhile. */
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { digestOf } from '../../src/oci/digest.ts';
import { missingForFleet } from '../helpers/fleet-processes.ts';
import { uploaded } from '../helpers/fleet-uploads.ts';
import { gateTo } from '../helpers/gate.ts';
import { startCoordinator } from '../helpers/real-coordinator.ts';
import { type RealMirror, startRealMirror } from '../helpers/real-mirror.ts';
import { type RealObjectStore, STORE_ENVIRONMENT, startObjectStore } from '../helpers/real-object-store.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { tempDir } from '../helpers/temp-dir.ts';

const skip = missingForFleet();
/** A node serves nothing of it that long after it was removed, or after the node is back. */
const FOLLOW_MS = 5_000;

async function nodeOf(
  t: TestContext,
  { upstream, store, coordinator }: Record<'upstream' | 'store' | 'coordinator', string>,
  engine: RealObjectStore,
) {
  const directory = await tempDir(t);
  const secretFile = join(directory, 'secret');
  await writeFile(secretFile, 'a secret that all the nodes of this fleet share\n', { mode: 0o600 });
  const fleet = engine.config(secretFile);
  const objects = { ...(fleet['objects'] as object), endpoint: store };
  const settings = {
    upstreams: { 'docker.io': { url: upstream } },
    fleet: { ...fleet, objects, coordinator: { url: coordinator }, listen: '127.0.0.1:0' },
  };
  return () => startRealMirror(t, directory, settings, STORE_ENVIRONMENT);
}

test('what is removed is served by no node 5 s later, nor by one that was stopped or cut off, 5 s after it is back, nor is it in the store again', {
  skip,
}, async (t) => {
  const [upstream, store, coordinator] = [
    await ScriptedUpstream.start(t),
    await startObjectStore(t),
    await startCoordinator(t),
  ];
  const gates = { store: await gateTo(t, store.url), coordinator: await gateTo(t, coordinator.url) };
  const direct = { upstream: upstream.url, store: store.url, coordinator: coordinator.url };
  const through = { ...direct, store: gates.store.url, coordinator: gates.coordinator.url };
  const startStopped = await nodeOf(t, direct, store);
  const [a, b, cutOff, stopped] = [
    await (await nodeOf(t, direct, store))(),
    await (await nodeOf(t, direct, store))(),
    await (await nodeOf(t, through, store))(),
    await startStopped(),
  ];
  const image = upstream.addImage('org/app', '1', {
    layers: [100_000, 200_000],
    platforms: ['amd64', 'arm64'],
  });
  const paths = [
    'manifests/1',
    ...[image.top, ...image.manifests].map(({ digest }) => `manifests/${digest}`),
    ...image.blobs.map((blob) => `blobs/${digestOf(blob)}`),
  ];
  const status = async ({ port }: RealMirror, path: string) => {
    const reply = await fetch(`http://127.0.0.1:${port}/v2/org/app/${path}`);
    await reply.arrayBuffer();
    return reply.status;
  };
  const served = async (node: RealMirror) => {
    const found: string[] = [];
    for (const path of paths) if ((await status(node, path)) === 200) found.push(path);
    return found;
  };
  const pass = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
  for (const node of [a, b, cutOff, stopped]) {
    assert.deepEqual(await served(node), paths);
    await uploaded(node);
  }

  await stopped.stop();
  for (const gate of Object.values(gates)) gate.cut();
  const name = encodeURIComponent('org/app:1');
  const removal = await fetch(`http://127.0.0.1:${a.operationsPort}/api/images/docker.io/${name}`, {
    method: 'DELETE',
  });
  const report = (await removal.json()) as { objects: number; fleet: { withinSeconds: number } };
  assert.equal(removal.status, 200, JSON.stringify(report));
  assert.equal(report.fleet.withinSeconds, FOLLOW_MS / 1_000);
  // From now on upstream has nothing of it: what is served comes out of a cache.
  upstream.script({ path: /org\/app/ }, (reply) => {
    reply.status = 404;
  });
  await pass(FOLLOW_MS);
  for (const node of [a, b]) assert.deepEqual(await served(node), []);

  for (const gate of Object.values(gates)) gate.open();
  const back = await startStopped();
  await pass(FOLLOW_MS);
  for (const node of [cutOff, back]) assert.deepEqual(await served(node), []);
  for (const node of [a, b, cutOff, back]) {
    await uploaded(node);
    assert.deepEqual(await served(node), []);
  }
  const fresh = await (await nodeOf(t, direct, store))();
  assert.deepEqual(await served(fresh), []);

  await coordinator.send('FLUSHALL');
  await pass(FOLLOW_MS);
  for (const node of [a, b, cutOff, back, fresh]) assert.deepEqual(await served(node), []);
});
