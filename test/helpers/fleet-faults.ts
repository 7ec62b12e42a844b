/** What can happen to the node that fetches, and to the engines, while clients pull through all nodes. */
import assert from 'node:assert/strict';
import { cp } from 'node:fs/promises';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { systemClock } from '../../src/clock.ts';
import { S3Store } from '../../src/fleet/objects/s3-store.ts';
import { Clients, fleetOf, slowBlob } from './fleet-processes.ts';
import { uploaded } from './fleet-uploads.ts';
import { noise } from './images.ts';
import { startCoordinator } from './real-coordinator.ts';
import { type RealMirror, startRealMirror } from './real-mirror.ts';
import { type RealObjectStore, STORE_ENVIRONMENT, startObjectStore } from './real-object-store.ts';
import { until } from './real-processes.ts';
import { tempDir } from './temp-dir.ts';

export type Trouble = 'frozen' | 'cut off' | 'slowed';

const CLIENTS = 30;
const SLOWED_BYTES_PER_S = 64 * 1024;

/** Thirty clients of other nodes pull a blob while the node that fetches it is in trouble. @returns figures, in seconds */
export async function troubleTheNodeThatFetches(
  t: TestContext,
  trouble: Trouble,
): Promise<{ longestGap: number; undisturbed: number; disturbed: number }> {
  const { upstream, nodes } = await fleetOf(t, 3, {}, { proxied: true });
  const [fetching, ...others] = nodes;
  assert.ok(fetching);
  const clients = new Clients(t);
  let longestGap = 0;
  const pullAll = async (path: string, blob: Buffer) => {
    const began = performance.now();
    const pulls = Array.from({ length: CLIENTS }, async (_, at) => {
      let last = performance.now();
      await clients.pull(others[at % others.length] as RealMirror, path, blob, () => {
        const now = performance.now();
        longestGap = Math.max(longestGap, now - last);
        last = now;
      });
    });
    await Promise.all(pulls);
    return (performance.now() - began) / 1000;
  };
  const calm = slowBlob(upstream, 'undisturbed');
  const calmOwn = clients.pull(fetching, calm.path, calm.blob);
  const undisturbed = await pullAll(calm.path, calm.blob);
  await calmOwn;
  upstream.clearScripts();
  longestGap = 0;
  const before = upstream.blobBytesSent();
  const gets = upstream.count('blob', 'GET');
  if (trouble === 'slowed') {
    const slowed = (reply: { rate?: number }) => {
      reply.rate = SLOWED_BYTES_PER_S;
    };
    upstream.script({ kind: 'blob' }, slowed, { times: 1 });
  }
  const { blob, path } = slowBlob(upstream, `${trouble} holder`);
  const own = clients.pull(fetching, path, blob);
  const ownEnd = own.catch(() => 'was cut');
  await upstream.waitForBytes(before + 1);
  const pulling = pullAll(path, blob);
  if (trouble !== 'slowed') await upstream.waitForBytes(before + blob.length / 3);
  if (trouble === 'frozen') process.kill(fetching.process.pid, 'SIGSTOP');
  if (trouble === 'cut off' && fetching.toNode !== undefined) fetching.toNode.swallows = true;
  const disturbed = await pulling;
  if (trouble === 'frozen') process.kill(fetching.process.pid, 'SIGCONT');
  if (trouble === 'slowed') await fetching.process.kill();
  else await own;
  await ownEnd;
  assert.ok(upstream.count('blob', 'GET') - gets <= 2, `${upstream.count('blob', 'GET') - gets} fetches`);
  assert.ok(upstream.blobBytesSent() - before <= 2 * blob.length);
  // Whoever was in trouble disturbs nobody later.
  for (const node of others) await clients.pull(node, path, blob);
  assert.ok(upstream.count('blob', 'GET') - gets <= 2);
  return { longestGap: longestGap / 1000, undisturbed, disturbed };
}

export type EngineTrouble = 'frozen' | 'stopped';

/** An engine is away for `seconds`, under warm pulls, cold pulls and revalidations: none fails, and the fleet is whole again. */
export async function troubleAnEngine(
  t: TestContext,
  engine: 'coordinator' | 'store',
  trouble: EngineTrouble,
  seconds: number,
): Promise<{ pulls: number; wholeAfter: number }> {
  const fleet = await fleetOf(t, 3, { freshness: { tagTtl: '0s' } });
  const { upstream, nodes, store, coordinator } = fleet;
  const clients = new Clients(t);
  const image = upstream.addImage('org/app', '1', { layers: [100_000] });
  const digests = new Set<string>();
  const warm = noise(300_000, 'warm');
  const warmPath = `org/app/blobs/${upstream.addContent(warm)}`;
  for (const node of nodes) {
    await clients.pull(node, 'org/app/manifests/1', image.top.bytes);
    await clients.pull(node, warmPath, warm);
  }
  const load = { isOver: false, pulls: 0, wasDown: false };
  const again = async (at: number, pull: (node: RealMirror, round: number) => Promise<void>) => {
    for (let round = 0; !load.isOver; round += 1) {
      await pull(nodes[(at + round) % nodes.length] as RealMirror, round);
      load.pulls += 1;
    }
  };
  const lanes = [0, 1].flatMap((at) => [
    again(at, (node) => clients.pull(node, warmPath, warm)),
    again(at, (node) => clients.pull(node, 'org/app/manifests/1', image.top.bytes)),
    again(at, async (node, round) => {
      const cold = noise(200_000, `${at} ${round}`);
      const digest = upstream.addContent(cold);
      digests.add(digest);
      await clients.pull(node, `org/app/blobs/${digest}`, cold);
    }),
  ]);
  const away = async () => {
    const { process: running } = fleet[engine];
    if (trouble === 'frozen') process.kill(running.pid, 'SIGSTOP');
    else await running.kill();
    for (const until = performance.now() + seconds * 1000; performance.now() < until; ) {
      load.wasDown ||= (await Promise.all(nodes.map((node) => isUp(node, engine)))).includes(false);
      await setTimeout(200);
    }
    if (trouble === 'frozen') process.kill(running.pid, 'SIGCONT');
    else if (engine === 'store') await startObjectStore(t, store);
    else await startCoordinator(t, coordinator.port);
    const began = performance.now();
    await until('the fleet', nodes[0]?.process ?? running, async () =>
      (await Promise.all(nodes.map((node) => isUp(node, engine)))).every(Boolean),
    );
    return (performance.now() - began) / 1000;
  };
  const wholeAfter = await away();
  load.isOver = true;
  await Promise.all(lanes);
  assert.ok(load.wasDown, 'a metric shows the gap');
  await Promise.all(nodes.map(uploaded));
  const stored = await storedDigests(store);
  const missing = [...digests].filter((digest) => !stored.has(digest));
  assert.deepEqual(missing, [], 'what was fetched meanwhile is in the store');
  return { pulls: load.pulls, wholeAfter };
}

async function isUp({ operationsPort }: RealMirror, engine: 'coordinator' | 'store'): Promise<boolean> {
  const metrics = await (await fetch(`http://127.0.0.1:${operationsPort}/metrics`)).text();
  const name = engine === 'store' ? 'objects' : engine;
  return metrics.includes(`\nmillpond_fleet_up{engine="${name}"} 1\n`);
}

export async function storedDigests({ url }: RealObjectStore): Promise<Set<string>> {
  const { FLEET_KEY_ID: accessKeyId, FLEET_KEY: secretAccessKey } = STORE_ENVIRONMENT;
  const objects = new S3Store({
    ...{ bucket: 'millpond', endpoint: url, region: 'us-east-1', prefix: 'millpond/', ca: undefined },
    credentials: async () => ({ accessKeyId, secretAccessKey }),
    clock: systemClock,
  });
  const found = new Set<string>();
  for await (const page of objects.list('blobs/', new AbortController().signal))
    for (const { name } of page) found.add(`sha256:${name.split('/').at(-1)}`);
  objects.close();
  return found;
}

const JOINING_BYTES = 64 * 1024;

/** Three nodes that hold the same join an empty store at once. */
export async function joinAtOnce(t: TestContext, count: number): Promise<void> {
  const { upstream, toStore, start } = await fleetOf(t, 0, {}, { proxied: true });
  assert.ok(toStore);
  const alone = await tempDir(t);
  const single = await startRealMirror(t, alone, { upstreams: { 'docker.io': { url: upstream.url } } });
  const clients = new Clients(t);
  const left = Array.from({ length: count }, (_, at) => noise(JOINING_BYTES, `joins ${at}`)).values();
  const lane = async () => {
    for (const blob of left) await clients.pull(single, `org/app/blobs/${upstream.addContent(blob)}`, blob);
  };
  await Promise.all(Array.from({ length: 8 }, lane));
  await single.stop();
  const directories = await Promise.all(Array.from({ length: 3 }, () => tempDir(t)));
  for (const directory of directories)
    await cp(join(alone, 'data'), join(directory, 'data'), { recursive: true });
  const nodes = await Promise.all(directories.map((directory) => start({ directory })));
  await Promise.all(nodes.map(uploaded));
  const sent = toStore.heads
    .filter(({ method, path }) => method === 'PUT' && path.includes('/blobs/'))
    .reduce((sum, { headers }) => sum + Number(headers.get('content-length')), 0);
  const lists = toStore.heads.filter(({ path }) => path.includes('list-type=2')).length;
  t.diagnostic(`${(sent / (count * JOINING_BYTES)).toFixed(3)} of the bytes went up, ${lists} lists`);
  assert.ok(sent >= count * JOINING_BYTES && sent <= 1.02 * count * JOINING_BYTES);
  assert.ok(lists <= 20);
}
