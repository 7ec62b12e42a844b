/** Nodes of a fleet as processes, on real engines, and what clients pull through them. */
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { Agent, request } from 'undici';
import { cleanUp } from './cleanup.ts';
import { missingEngines } from './engines.ts';
import { noise } from './images.ts';
import { startCoordinator } from './real-coordinator.ts';
import { type RealMirror, startRealMirror } from './real-mirror.ts';
import { STORE_ENVIRONMENT, startObjectStore } from './real-object-store.ts';
import { freePort, missingPrograms } from './real-processes.ts';
import { ScriptedUpstream } from './scripted-upstream.ts';
import { TcpProxy } from './tcp-proxy.ts';
import { tempDir } from './temp-dir.ts';

export const missingForFleet = () => missingPrograms('redis-server') || missingEngines('versitygw');
const MIB = 1024 * 1024;

/**
 * @param settings of the upstream
 * @param more.proxied proxies stand between the nodes, and before the store
 */
export async function fleetOf(
  t: TestContext,
  count: number,
  settings: Record<string, unknown> = {},
  more: { proxied?: boolean } = {},
) {
  const [upstream, store, coordinator] = [
    await ScriptedUpstream.start(t),
    await startObjectStore(t),
    await startCoordinator(t),
  ];
  const { url } = upstream; // also when it is closed
  const isProxied = more.proxied === true;
  const toStore = isProxied ? await TcpProxy.start(t, store.port) : undefined;
  const endpoint = toStore === undefined ? store.url : `http://127.0.0.1:${toStore.port}`;
  const start = async (
    others: { directory?: string } & Record<string, unknown> = {},
  ): Promise<RealMirror & { toNode: TcpProxy | undefined }> => {
    const { directory = await tempDir(t), ...config } = others;
    const secretFile = join(directory, 'secret');
    await writeFile(secretFile, 'a secret that all the nodes of this fleet share\n', { mode: 0o600 });
    const port = isProxied ? await freePort() : 0;
    const toNode = isProxied ? await TcpProxy.start(t, port) : undefined;
    const fleet = {
      ...store.config(secretFile, endpoint),
      coordinator: { url: coordinator.url },
      listen: `127.0.0.1:${port}`,
      ...(toNode === undefined ? {} : { advertise: `http://127.0.0.1:${toNode.port}` }),
    };
    const mirror = await startRealMirror(
      t,
      directory,
      { upstreams: { 'docker.io': { url, ...settings } }, fleet, ...config },
      STORE_ENVIRONMENT,
    );
    return { ...mirror, toNode };
  };
  const nodes = await Promise.all(Array.from({ length: count }, () => start()));
  return { upstream, store, toStore, coordinator, nodes, start };
}

export class Clients {
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

/** Three nodes and many clients ask for one cold blob. Upstream holds its second half back until all have begun. */
export async function pullColdBlobOnce(
  t: TestContext,
  { mebibytes, clients: clientCount }: { mebibytes: number; clients: number },
): Promise<void> {
  const { upstream, nodes } = await fleetOf(t, 3, {}, { proxied: true });
  const blob = noise(mebibytes * MIB, 'cold');
  const digest = upstream.addContent(blob);
  const clients = new Clients(t);
  const all = Promise.withResolvers<void>();
  upstream.script({ kind: 'blob' }, (reply) => {
    if (reply.start >= blob.length / 2) reply.delay = all.promise;
  });
  const begun = new Set<number>();
  const pulls = Array.from({ length: clientCount }, async (_, at) => {
    const node = nodes[at % nodes.length];
    assert.ok(node);
    await clients.pull(node, `org/app/blobs/${digest}`, blob, () => {
      begun.add(at);
      if (begun.size === clientCount) all.resolve();
    });
  });
  await Promise.all(pulls);
  t.diagnostic(`upstream sent ${(upstream.blobBytesSent() / blob.length).toFixed(3)} of the blob`);
  assert.ok(upstream.blobBytesSent() <= 1.02 * blob.length);
  const sent = nodes.flatMap(({ toNode }) => [
    ...Map.groupBy(toNode?.heads ?? [], ({ headers }) => headers.get('millpond-node')).values(),
  ]);
  const bytes = sent.map((heads) => heads.reduce((sum, { bytesBack }) => sum + bytesBack, 0));
  const shares = bytes.map((one) => (one / blob.length).toFixed(3));
  t.diagnostic(`nodes sent each other ${shares.join(', ')} of the blob`);
  assert.ok(bytes.length >= 2 && bytes.every((one) => one <= 1.02 * blob.length));
}

const SLOW_BLOB_BYTES = 48 * MIB;
/** What a kill may cost: what had come to the dead node and not yet to those that followed it. */
const LOST_BYTES = 32 * MIB;

/** A blob that takes about two seconds. */
export function slowBlob(upstream: ScriptedUpstream, seed: string) {
  const blob = noise(SLOW_BLOB_BYTES, seed);
  upstream.script({ kind: 'blob' }, (reply) => {
    reply.rate ??= SLOW_BLOB_BYTES / 2;
  });
  return { blob, path: `org/app/blobs/${upstream.addContent(blob)}` };
}

/**
 * Ends the node that fetches, again and again, at other places of the blob each time.
 *
 * @param how `SIGTERM`: its own clients get all they asked for
 */
export async function endTheNodeThatFetches(
  t: TestContext,
  how: 'SIGKILL' | 'SIGTERM',
  times: number,
): Promise<void> {
  const { upstream, nodes, start } = await fleetOf(t, 2);
  const clients = new Clients(t);
  for (let time = 0; time < times; time += 1) {
    upstream.clearScripts();
    const { blob, path } = slowBlob(upstream, `${how} ${time}`);
    const before = upstream.blobBytesSent();
    const fetching = await start();
    const own = clients.pull(fetching, path, blob);
    const ownEnd = how === 'SIGKILL' ? own.catch(() => 'was cut') : own;
    await upstream.waitForBytes(before + 1);
    const others = nodes.flatMap((node) => Array.from({ length: 5 }, () => clients.pull(node, path, blob)));
    await upstream.waitForBytes(before + Math.floor((blob.length * (time + 0.5)) / times));
    const ended = how === 'SIGKILL' ? fetching.process.kill() : fetching.process.stop();
    await Promise.all([ended, ownEnd, ...others]);
    const sent = upstream.blobBytesSent() - before;
    assert.ok(sent <= blob.length + LOST_BYTES, `${sent / MIB} MiB were sent`);
  }
}
