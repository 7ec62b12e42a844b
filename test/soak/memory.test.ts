import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import type { Digest } from '../../src/oci/digest.ts';
import { cleanUp } from '../helpers/cleanup.ts';
import { noise } from '../helpers/images.ts';
import { startRealMirror } from '../helpers/real-mirror.ts';
import { ScriptedUpstream, type Source } from '../helpers/scripted-upstream.ts';
import { tempDir } from '../helpers/temp-dir.ts';

const MIB = 1024 * 1024;
const BLOB_BYTES = 2048 * MIB;
const CLIENTS = 100;
const ALLOWED_GROWTH_BYTES = 100 * MIB;
/** The fill takes about 20 s, and all clients are at work all the time. */
const UPSTREAM_BYTES_A_SECOND = 100 * MIB;
const CLIENT_PAUSE_MS = 100;

test('memory stays flat with 100 clients slowly reading a blob of 2 GiB that is still being filled', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const source = repeated(noise(MIB, 'memory'), BLOB_BYTES);
  const digest = digestOfSource(source);
  upstream.addSource(digest, source);
  upstream.script({ kind: 'blob' }, (reply) => {
    reply.rate = UPSTREAM_BYTES_A_SECOND;
  });
  const upstreams = { 'docker.io': { url: upstream.url } };
  const mirror = await startRealMirror(t, await tempDir(t), { upstreams });
  await fetch(`http://127.0.0.1:${mirror.port}/v2/`);

  const before = residentBytes(mirror.process.pid);
  const clients = Array.from({ length: CLIENTS }, () => slowClient(mirror.port, `/v2/a/b/blobs/${digest}`));
  cleanUp(t, () => clients.forEach(({ socket }) => socket.destroy()));
  let peak = 0;
  while (upstream.blobBytesSent() < BLOB_BYTES) {
    peak = Math.max(peak, residentBytes(mirror.process.pid));
    await setTimeout(200);
  }
  const growth = peak - before;
  t.diagnostic(
    `resident before: ${mib(before)}, growth: ${mib(growth)}; read by clients: ${mib(sum(clients))}`,
  );
  assert.ok(
    clients.every(({ received }) => received > 0),
    'every client is being served',
  );
  assert.equal(upstream.count('blob', 'GET'), 1);
  assert.ok(growth <= ALLOWED_GROWTH_BYTES, `grew by ${mib(growth)}`);
});

function repeated(piece: Buffer, size: number): Source {
  return {
    size,
    slice: (start, end) => {
      const at = start % piece.length;
      return piece.subarray(at, Math.min(piece.length, at + end - start));
    },
  };
}

function digestOfSource(source: Source): Digest {
  const hash = createHash('sha256');
  for (let at = 0; at < source.size; at += MIB) hash.update(source.slice(at, at + MIB));
  return `sha256:${hash.digest('hex')}` as Digest;
}

interface SlowClient {
  socket: Socket;
  received: number;
}

function slowClient(port: number, path: string): SlowClient {
  const socket = connect(port, '127.0.0.1');
  const client = { socket, received: 0 };
  socket.on('error', () => undefined);
  socket.on('data', (chunk: Buffer) => {
    client.received += chunk.length;
    socket.pause();
    void setTimeout(CLIENT_PAUSE_MS).then(() => socket.resume());
  });
  socket.write(`GET ${path} HTTP/1.1\r\nHost: mirror\r\n\r\n`);
  return client;
}

function residentBytes(pid: number): number {
  const match = /VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
  return Number(match?.[1]) * 1024;
}

function sum(clients: SlowClient[]): number {
  return clients.reduce((total, { received }) => total + received, 0);
}

function mib(bytes: number): string {
  return `${Math.round(bytes / MIB)} MiB`;
}
