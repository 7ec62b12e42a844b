import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { connect, type Socket } from 'node:net';
import { test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import type { Digest } from '../../src/oci/digest.ts';
import { OCI_MANIFEST } from '../../src/oci/manifest.ts';
import { cleanUp } from '../helpers/cleanup.ts';
import { noise } from '../helpers/images.ts';
import { startRealMirror } from '../helpers/real-mirror.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { tempDir } from '../helpers/temp-dir.ts';

const MIB = 1024 * 1024;
const LIMIT = 20 * MIB;
const SECONDS = 20;
/** More than comes meanwhile, and large enough to be fetched in segments. */
const BLOB_BYTES = 1024 * MIB;

for (const count of [1, 4, 16]) {
  test(`maxBandwidth is held within 5 % over ${SECONDS} s of ${count} pulls, and each has its part`, async (t) => {
    const upstream = await ScriptedUpstream.start(t);
    const piece = noise(MIB, 'bandwidth');
    // Never comes to its end, so the digest need not be right.
    const digests = Array.from({ length: count }, () => {
      const digest = `sha256:${randomBytes(32).toString('hex')}` as Digest;
      const slice = (start: number, end: number) =>
        piece.subarray(start % MIB, Math.min(MIB, (start % MIB) + end - start));
      upstream.addSource(digest, { size: BLOB_BYTES, slice });
      return digest;
    });
    upstream.addManifest('a/b', manifestOf(digests), OCI_MANIFEST, 'latest');
    const mirror = await startRealMirror(t, await tempDir(t), {
      upstreams: { 'docker.io': { url: upstream.url, maxBandwidth: '20MiB' } },
    });
    const registry = `http://127.0.0.1:${mirror.port}/v2/a/b`;
    assert.equal((await fetch(`${registry}/manifests/latest`)).status, 200);
    const clients = digests.map((digest) => pull(mirror.port, `/v2/a/b/blobs/${digest}`));
    cleanUp(t, () => clients.forEach(({ socket }) => socket.destroy()));
    while (clients.some(({ received }) => received === 0)) await setTimeout(10);

    const look = async () => ({
      at: performance.now(),
      read: await metric(
        mirror.operationsPort,
        'millpond_upstream_bytes_total{upstream="docker.io",kind="blob"}',
      ),
      sent: upstream.blobBytesSent(),
      received: clients.map(({ received }) => received),
    });
    const before = await look();
    await setTimeout(SECONDS * 1000);
    const after = await look();

    const expected = (LIMIT * (after.at - before.at)) / 1000;
    const received = after.received.map((bytes, at) => bytes - (before.received[at] ?? 0));
    const ofLimit = {
      read: (after.read - before.read) / expected,
      sent: (after.sent - before.sent) / expected,
      received: received.reduce((sum, bytes) => sum + bytes, 0) / expected,
    };
    const parts = received.map((bytes) => (bytes * count) / expected);
    const requests = upstream.count('blob', 'GET');
    const figures = Object.entries(ofLimit).map(([what, part]) => `${what} ${part.toFixed(3)}`);
    t.diagnostic(
      `of the limit: ${figures.join(', ')}; of its part: ${Math.min(...parts).toFixed(3)} to ${Math.max(...parts).toFixed(3)}; requests: ${requests}`,
    );
    assert.ok(Math.abs(ofLimit.read - 1) < 0.05, `read ${ofLimit.read}`);
    assert.ok(Math.min(...parts) >= 0.8, `parts ${parts.join(', ')}`);
  });
}

function manifestOf(digests: readonly Digest[]): Buffer {
  const config = { digest: digests[0], size: BLOB_BYTES, mediaType: 'c' };
  const layers = digests.map((digest) => ({ digest, size: BLOB_BYTES, mediaType: 'l' }));
  return Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers }));
}

function pull(port: number, path: string): { socket: Socket; received: number } {
  const socket = connect(port, '127.0.0.1');
  const client = { socket, received: 0 };
  socket.on('error', () => undefined);
  socket.on('data', (chunk: Buffer) => {
    client.received += chunk.length;
  });
  socket.write(`GET ${path} HTTP/1.1\r\nHost: mirror\r\n\r\n`);
  return client;
}

async function metric(port: number, name: string): Promise<number> {
  const text = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
  return Number(
    text
      .split('\n')
      .find((line) => line.startsWith(`${name} `))
      ?.split(' ')
      .at(-1) ?? 0,
  );
}
