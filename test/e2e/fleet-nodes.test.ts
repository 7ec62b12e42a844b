/** Nodes that fetch a cold blob once for all of them, with what can happen to the one that does. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { digestOf } from '../../src/oci/digest.ts';
import {
  Clients,
  endTheNodeThatFetches,
  fleetOf,
  missingForFleet,
  pullColdBlobOnce,
  slowBlob,
} from '../helpers/fleet-processes.ts';
import { uploaded } from '../helpers/fleet-uploads.ts';
import { noise, type TestImage } from '../helpers/images.ts';
import { type RealMirror, startRealMirror } from '../helpers/real-mirror.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { tempDir } from '../helpers/temp-dir.ts';

const skip = missingForFleet();
const MIB = 1024 * 1024;

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

test('the node that fetches is frozen: the others are done without it, with at most a second fetch, and its end is as clean', {
  skip,
}, async (t) => {
  const { upstream, nodes } = await fleetOf(t, 3);
  const [fetching, ...others] = nodes;
  assert.ok(fetching);
  const clients = new Clients(t);
  const { blob, path } = slowBlob(upstream, 'frozen');
  const own = clients.pull(fetching, path, blob);
  await upstream.waitForBytes(1);
  const pulls = others.flatMap((node) => Array.from({ length: 15 }, () => clients.pull(node, path, blob)));
  await upstream.waitForBytes(blob.length / 3);
  process.kill(fetching.process.pid, 'SIGSTOP');
  await Promise.all(pulls);
  process.kill(fetching.process.pid, 'SIGCONT');
  await own;
  assert.ok(upstream.blobBytesSent() <= 2 * blob.length);
});

test('the node that fetches is slow: the others are done without it, with one fetch more', {
  skip,
}, async (t) => {
  const { upstream, nodes } = await fleetOf(t, 3);
  const [fetching, ...others] = nodes;
  assert.ok(fetching);
  const clients = new Clients(t);
  const blob = noise(8 * MIB, 'slow');
  const path = `org/app/blobs/${upstream.addContent(blob)}`;
  upstream.script(
    { kind: 'blob' },
    (reply) => {
      reply.rate = 64 * 1024;
    },
    { times: 1 },
  );
  const own = clients.pull(fetching, path, blob).catch(() => 'it is still at it when the test ends');
  await upstream.waitForBytes(1);
  await Promise.all(
    others.flatMap((node) => Array.from({ length: 15 }, () => clients.pull(node, path, blob))),
  );
  assert.equal(upstream.count('blob', 'GET'), 2);
  await fetching.process.kill();
  await own;
});

for (const engine of ['coordinator', 'store'] as const) {
  test(`the ${engine} is frozen, and then killed: no pull fails`, { skip }, async (t) => {
    const fleet = await fleetOf(t, 3);
    const clients = new Clients(t);
    const pullAll = async (seed: string) => {
      const blob = noise(MIB, seed);
      const path = `org/app/blobs/${fleet.upstream.addContent(blob)}`;
      await Promise.all(fleet.nodes.map((node) => clients.pull(node, path, blob)));
    };
    await pullAll('before');
    process.kill(fleet[engine].process.pid, 'SIGSTOP');
    for (let at = 0; at < 5; at += 1) await pullAll(`frozen ${at}`);
    process.kill(fleet[engine].process.pid, 'SIGCONT');
    await pullAll('thawed');
    await fleet[engine].process.kill();
    for (let at = 0; at < 5; at += 1) await pullAll(`killed ${at}`);
  });
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
  const { upstream, nodes, coordinator } = await fleetOf(t, 2);
  const image = upstream.addImage('org/app', '1', { layers: Array.from({ length: 20 }, () => 100_000) });
  const [a, b] = nodes;
  assert.ok(a && b);
  const cost = async (node: RealMirror) => {
    const before = await coordinator.commands();
    for (const path of requestsOf(image)) {
      const reply = await fetch(`http://127.0.0.1:${node.port}/v2/${path}`);
      assert.equal(reply.status, 200);
      await reply.arrayBuffer();
    }
    await uploaded(node);
    const after = await coordinator.commands();
    return (after.get('eval') ?? 0) - (before.get('eval') ?? 0);
  };
  const [fetching, following] = [await cost(a), await cost(b)];
  t.diagnostic(`commands: ${fetching} on the node that fetched, ${following} on one that found it`);
  assert.ok(fetching <= 3 * 20, `${fetching} commands`);
  assert.ok(following <= 2 * 20, `${following} commands`);
});
