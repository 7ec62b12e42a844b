/** Nodes that fetch a cold blob once for all of them, with what can happen to the one that does. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { digestOf } from '../../src/oci/digest.ts';
import { joinAtOnce, troubleAnEngine, troubleTheNodeThatFetches } from '../helpers/fleet-faults.ts';
import {
  endTheNodeThatFetches,
  fleetOf,
  missingForFleet,
  pullColdBlobOnce,
} from '../helpers/fleet-processes.ts';
import { uploaded } from '../helpers/fleet-uploads.ts';
import type { TestImage } from '../helpers/images.ts';
import { type RealMirror, startRealMirror } from '../helpers/real-mirror.ts';
import { startObjectStore } from '../helpers/real-object-store.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { tempDir } from '../helpers/temp-dir.ts';

const skip = missingForFleet();

// The whole figures are in test/soak.
test(
  'three nodes and sixty clients: a cold blob is fetched once, and all have its first byte before its second half has come',
  {
    skip,
  },
  (t) => pullColdBlobOnce(t, { mebibytes: 64, clients: 60 }),
);

test(
  'the node that fetches is killed, ten times: every client of the others gets a whole right blob',
  {
    skip,
  },
  (t) => endTheNodeThatFetches(t, 'SIGKILL', 10),
);

test(
  'the node that fetches is stopped, five times: its own clients and those of the others get whole right blobs',
  {
    skip,
  },
  (t) => endTheNodeThatFetches(t, 'SIGTERM', 5),
);

for (const trouble of ['frozen', 'cut off', 'slowed'] as const) {
  test(`the node that fetches is ${trouble}: thirty clients of the others are done with at most a second fetch, and are not disturbed when it is back`, {
    skip,
  }, async (t) => {
    t.diagnostic(JSON.stringify(await troubleTheNodeThatFetches(t, trouble)));
  });
}

for (const engine of ['coordinator', 'store'] as const) {
  for (const trouble of ['frozen', 'stopped'] as const) {
    test(`the ${engine} is ${trouble} for six seconds under load: no pull fails, and the store has all afterwards`, {
      skip,
    }, async (t) => {
      t.diagnostic(JSON.stringify(await troubleAnEngine(t, engine, trouble, 6)));
    });
  }
}

/** What a client asks for in a pull of one platform. */
function requestsOf({ top, manifests: [platform], blobs }: TestImage): string[] {
  const own = blobs.filter((blob) => platform?.bytes.includes(digestOf(blob)));
  return [
    'org/app/manifests/1',
    `org/app/manifests/${platform?.digest ?? top.digest}`,
    ...own.map((blob) => `org/app/blobs/${digestOf(blob)}`),
  ];
}

function seenBy(upstream: ScriptedUpstream): string[] {
  return upstream.requests.map(({ method, kind, path }) => `${method} ${kind} ${path}`).toSorted();
}

test('each request of a pull goes to the next node: upstream sees exactly what it sees of a pull through one node', {
  skip,
}, async (t) => {
  const options = { layers: [50_000, 60_000, 70_000], platforms: ['amd64', 'arm64'] };
  const alone = await ScriptedUpstream.start(t);
  const image = alone.addImage('org/app', '1', options);
  const config = { upstreams: { 'docker.io': { url: alone.url } } };
  const single = await startRealMirror(t, await tempDir(t), config);
  const { upstream, nodes } = await fleetOf(t, 3);
  upstream.addImage('org/app', '1', options);
  for (const round of ['cold', 'warm']) {
    for (const [at, path] of requestsOf(image).entries()) {
      const node = nodes[(at + (round === 'warm' ? 1 : 0)) % nodes.length];
      for (const { port } of [single, node ?? single]) {
        const reply = await fetch(`http://127.0.0.1:${port}/v2/${path}`);
        assert.equal(reply.status, 200);
        await reply.arrayBuffer();
      }
    }
    assert.deepEqual(seenBy(upstream), seenBy(alone), round);
  }
});

test('each request of a pull goes to the next node, and the disk of one is full: a cold pull costs upstream what it costs through one node', {
  skip,
}, async (t) => {
  const options = { layers: [500_000, 600_000, 700_000], platforms: ['amd64', 'arm64'] };
  const alone = await ScriptedUpstream.start(t);
  const image = alone.addImage('org/app', '1', options);
  const config = { upstreams: { 'docker.io': { url: alone.url } } };
  const single = await startRealMirror(t, await tempDir(t), config);
  const { upstream, nodes, start } = await fleetOf(t, 2);
  const directory = await tempDir(t);
  const full = await start({ directory, cache: { directory: join(directory, 'data'), maxSize: '64KiB' } });
  const all = [nodes[0], full, nodes[1]];
  upstream.addImage('org/app', '1', options);
  const bypassed = new Set<string>();
  const pull = async (shift: number) => {
    for (const [at, path] of requestsOf(image).entries()) {
      for (const { port } of [single, all[(at + shift) % all.length] ?? single]) {
        const reply = await fetch(`http://127.0.0.1:${port}/v2/${path}`);
        assert.equal(reply.status, 200);
        if (reply.headers.get('cache-status')?.includes('bypass') === true) bypassed.add(path);
        await reply.arrayBuffer();
      }
    }
  };
  await pull(0);
  assert.deepEqual(seenBy(upstream), seenBy(alone));
  // What passed a full disk is nowhere: the next node that is asked for it fetches it once.
  const bypassedCold = new Set(bypassed);
  assert.ok(bypassedCold.size > 0);
  await pull(2);
  const more = upstream.requests.length - alone.requests.length;
  assert.ok(more <= bypassedCold.size, `${more} requests more`);
});

test('one tag past its TTL, asked of all nodes by fifty clients: upstream gets one HEAD', {
  skip,
}, async (t) => {
  const freshness = { tagTtl: '0s' };
  const { upstream, nodes } = await fleetOf(t, 3, { freshness });
  upstream.addImage('org/app', '1');
  const get = async ({ port }: RealMirror) => {
    const reply = await fetch(`http://127.0.0.1:${port}/v2/org/app/manifests/1`);
    assert.equal(reply.status, 200);
    await reply.arrayBuffer();
  };
  for (const node of nodes) await get(node);
  await new Promise((resolve) => setTimeout(resolve, 2_100)); // what was said just now is no longer just now
  upstream.requests.length = 0;
  upstream.script({ kind: 'manifest' }, (reply) => {
    reply.delay = new Promise((resolve) => setTimeout(resolve, 200));
  });
  await Promise.all(Array.from({ length: 50 }, (_, at) => get(nodes[at % nodes.length] as RealMirror)));
  assert.deepEqual(
    upstream.requests.map(({ method, kind }) => `${method} ${kind}`),
    ['HEAD manifest'],
  );
});

test('a cold image of twenty layers costs few commands and few requests to the store', {
  skip,
}, async (t) => {
  const { upstream, nodes, coordinator, toStore } = await fleetOf(t, 2, {}, { proxied: true });
  const image = upstream.addImage('org/app', '1', { layers: Array.from({ length: 20 }, () => 100_000) });
  const [a, b] = nodes;
  assert.ok(a && b && toStore);
  const layers = image.blobs.filter(({ length }) => length === 100_000).map((blob) => digestOf(blob));
  const storeRequests = () =>
    toStore.heads.filter(({ path }) => layers.some((digest) => path.includes(digest.slice(7)))).length;
  const cost = async (node: RealMirror) => {
    const before = await coordinator.commands();
    const requestsBefore = storeRequests();
    for (const path of requestsOf(image)) {
      const reply = await fetch(`http://127.0.0.1:${node.port}/v2/${path}`);
      assert.equal(reply.status, 200);
      await reply.arrayBuffer();
    }
    await uploaded(node);
    const after = await coordinator.commands();
    const commands = (after.get('eval') ?? 0) - (before.get('eval') ?? 0);
    return { commands, requests: storeRequests() - requestsBefore };
  };
  const [fetching, following] = [await cost(a), await cost(b)];
  const warm = await cost(b);
  t.diagnostic(JSON.stringify({ fetching, following, warm }));
  assert.ok(fetching.commands <= 3 * 20 && fetching.requests <= 2 * 20);
  assert.ok(following.commands <= 2 * 20 && following.requests <= 2 * 20);
  assert.equal(warm.requests, 0);
});

test('the store is away while an image is pulled: when it is back the image comes out of it, with its node and upstream gone', {
  skip,
}, async (t) => {
  const { upstream, store, nodes, start } = await fleetOf(t, 1);
  const image = upstream.addImage('org/app', '1', { layers: Array.from({ length: 20 }, () => 50_000) });
  const [a] = nodes;
  assert.ok(a);
  await store.process.kill();
  for (const path of requestsOf(image)) await pulled(a, path);
  await startObjectStore(t, store);
  await uploaded(a);
  await a.process.kill();
  await upstream.close();
  const d = await start();
  for (const path of requestsOf(image)) await pulled(d, path);
});

test('the coordinator forgets all, all nodes are replaced and sealed: they serve the image, and nothing in another repository', {
  skip,
}, async (t) => {
  const { upstream, coordinator, nodes, start } = await fleetOf(t, 2);
  const image = upstream.addImage('org/app', '1', { layers: Array.from({ length: 20 }, () => 50_000) });
  const [a] = nodes;
  assert.ok(a);
  for (const path of requestsOf(image)) await pulled(a, path);
  await uploaded(a);
  await Promise.all(nodes.map((node) => node.process.kill()));
  await upstream.close();
  await coordinator.flush();
  for (const node of await Promise.all([start({ sealed: true }), start({ sealed: true })])) {
    for (const path of requestsOf(image)) {
      await pulled(node, path);
      const other = path.replace('org/app', 'org/other');
      assert.notEqual((await fetch(`http://127.0.0.1:${node.port}/v2/${other}`)).status, 200);
    }
  }
});

async function pulled({ port }: RealMirror, path: string): Promise<void> {
  const reply = await fetch(`http://127.0.0.1:${port}/v2/${path}`);
  assert.equal(reply.status, 200, `${path}: ${await reply.clone().text()}`);
  await reply.arrayBuffer();
}

test('three nodes with the same objects join an empty store at once: each goes up once', {
  skip,
}, async (t) => {
  await joinAtOnce(t, 200);
});
