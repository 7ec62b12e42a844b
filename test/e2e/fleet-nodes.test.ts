/** Nodes that fetch a cold blob once for all of them, with what can happen to the one that does. */
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Agent, request } from 'undici';
import { cleanUp } from '../helpers/cleanup.ts';
import { missingEngines } from '../helpers/engines.ts';
import { noise } from '../helpers/images.ts';
import { startCoordinator } from '../helpers/real-coordinator.ts';
import { type RealMirror, startRealMirror } from '../helpers/real-mirror.ts';
import { STORE_ENVIRONMENT, startObjectStore } from '../helpers/real-object-store.ts';
import { missingPrograms } from '../helpers/real-processes.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { tempDir } from '../helpers/temp-dir.ts';

const skip = missingPrograms('redis-server') || missingEngines('versitygw');
const MIB = 1024 * 1024;
const CLIENTS = 60;

async function fleetOf(t: TestContext, count: number) {
  const [upstream, store, coordinator] = [
    await ScriptedUpstream.start(t),
    await startObjectStore(t),
    await startCoordinator(t),
  ];
  const start = async () => {
    const directory = await tempDir(t);
    const secretFile = join(directory, 'secret');
    await writeFile(secretFile, 'a secret that all the nodes of this fleet share\n', { mode: 0o600 });
    const fleet = {
      ...store.config(secretFile),
      coordinator: { url: coordinator.url },
      listen: '127.0.0.1:0',
    };
    return startRealMirror(
      t,
      directory,
      { upstreams: { 'docker.io': { url: upstream.url } }, fleet },
      STORE_ENVIRONMENT,
    );
  };
  const nodes = await Promise.all(Array.from({ length: count }, start));
  return { upstream, store, coordinator, nodes, start };
}

class Clients {
  readonly #agent = new Agent({ connections: 500 });

  constructor(t: TestContext) {
    cleanUp(t, () => this.#agent.destroy());
  }

  /**
   * Pulls a blob, and compares each byte as it comes.
   *
   * @param onBytes called with how many have come
   */
  async pull(
    { port }: RealMirror,
    path: string,
    expected: Buffer,
    onBytes: (count: number) => void = () => undefined,
  ): Promise<void> {
    const reply = await request(`http://127.0.0.1:${port}/v2/${path}`, { dispatcher: this.#agent });
    assert.equal(reply.statusCode, 200);
    let at = 0;
    for await (const chunk of reply.body as AsyncIterable<Buffer>) {
      assert.ok(chunk.equals(expected.subarray(at, at + chunk.length)), `wrong bytes after ${at}`);
      at += chunk.length;
      onBytes(at);
    }
    assert.equal(at, expected.length);
  }
}

test('three nodes and sixty clients: a cold blob is fetched once, and all have its first byte before its second half has come', {
  skip,
}, async (t) => {
  const { upstream, nodes } = await fleetOf(t, 3);
  const blob = noise(256 * MIB, 'cold');
  const digest = upstream.addContent(blob);
  const clients = new Clients(t);
  const all = Promise.withResolvers<void>();
  upstream.script({ kind: 'blob' }, (reply) => {
    if (reply.start >= blob.length / 2) reply.delay = all.promise;
  });
  const begun = new Set<number>();
  const pulls = Array.from({ length: CLIENTS }, async (_, at) => {
    const node = nodes[at % nodes.length];
    assert.ok(node);
    await clients.pull(node, `org/app/blobs/${digest}`, blob, () => {
      begun.add(at);
      if (begun.size === CLIENTS) all.resolve();
    });
  });
  await Promise.all(pulls);
  t.diagnostic(`upstream sent ${(upstream.blobBytesSent() / blob.length).toFixed(3)} of the blob`);
  assert.ok(upstream.blobBytesSent() <= 1.02 * blob.length);
  assert.equal(upstream.count('blob', 'GET') > 0, true);
});

const SLOW_BLOB_BYTES = 48 * MIB;
const KILLS = 10;
/** What a kill may cost: what had come to the dead node and not yet to those that followed it. */
const LOST_BYTES = 32 * MIB;

/** A blob that takes about two seconds. */
function slowBlob(upstream: ScriptedUpstream, seed: string) {
  const blob = noise(SLOW_BLOB_BYTES, seed);
  upstream.script({ kind: 'blob' }, (reply) => {
    reply.rate = SLOW_BLOB_BYTES / 2;
  });
  return { blob, path: `org/app/blobs/${upstream.addContent(blob)}` };
}

test('the node that fetches is killed, ten times: every client of the others gets a whole right blob', {
  skip,
}, async (t) => {
  const { upstream, nodes, start } = await fleetOf(t, 2);
  const clients = new Clients(t);
  for (let kill = 0; kill < KILLS; kill += 1) {
    upstream.clearScripts();
    const { blob, path } = slowBlob(upstream, `kill ${kill}`);
    const before = upstream.blobBytesSent();
    const fetching = await start();
    const own = clients.pull(fetching, path, blob).catch(() => 'was cut');
    await upstream.waitForBytes(before + 1);
    const others = nodes.flatMap((node) => Array.from({ length: 5 }, () => clients.pull(node, path, blob)));
    await upstream.waitForBytes(before + Math.floor((blob.length * (kill + 0.5)) / KILLS));
    await fetching.process.kill();
    await Promise.all(others);
    await own;
    const sent = upstream.blobBytesSent() - before;
    assert.ok(sent <= blob.length + LOST_BYTES, `${sent / MIB} MiB were sent`);
  }
});

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

test('the coordinator is frozen, and then killed: no pull fails', { skip }, async (t) => {
  const { upstream, nodes, coordinator } = await fleetOf(t, 3);
  const clients = new Clients(t);
  const pullAll = async (seed: string) => {
    const blob = noise(MIB, seed);
    const path = `org/app/blobs/${upstream.addContent(blob)}`;
    await Promise.all(nodes.map((node) => clients.pull(node, path, blob)));
  };
  await pullAll('before');
  process.kill(coordinator.process.pid, 'SIGSTOP');
  for (let at = 0; at < 5; at += 1) await pullAll(`frozen ${at}`);
  process.kill(coordinator.process.pid, 'SIGCONT');
  await pullAll('thawed');
  await coordinator.process.kill();
  for (let at = 0; at < 5; at += 1) await pullAll(`killed ${at}`);
});

test('the object store is frozen, and then killed: no pull fails', { skip }, async (t) => {
  const { upstream, nodes, store } = await fleetOf(t, 3);
  const clients = new Clients(t);
  const pullAll = async (seed: string) => {
    const blob = noise(MIB, seed);
    const path = `org/app/blobs/${upstream.addContent(blob)}`;
    await Promise.all(nodes.map((node) => clients.pull(node, path, blob)));
  };
  await pullAll('before');
  process.kill(store.process.pid, 'SIGSTOP');
  for (let at = 0; at < 5; at += 1) await pullAll(`frozen ${at}`);
  process.kill(store.process.pid, 'SIGCONT');
  await store.process.kill();
  for (let at = 0; at < 5; at += 1) await pullAll(`killed ${at}`);
});
