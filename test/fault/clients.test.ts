import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { abortAgainAndAgain, openPull } from '../helpers/aborts.ts';
import { cleanUp } from '../helpers/cleanup.ts';
import { noise } from '../helpers/images.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { startMirror } from '../helpers/start-mirror.ts';

const MIB = 1024 * 1024;

test('aborted pulls leave no descriptor, no connection and no follower behind', async (t) => {
  await abortAgainAndAgain(t, 50);
});

test('a client that takes no byte for clientTimeout is cut, and others are not', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const size = 32 * MIB; // more than the kernel buffers on both sides
  const digest = upstream.addContent(noise(size, 'stalled client'));
  const mirror = await startMirror(t, {
    upstreams: { 'docker.io': upstream.url },
    server: { clientTimeout: '200ms' },
  });
  const stalled = openPull(t, mirror, `/v2/a/b/blobs/${digest}`);
  stalled.pause();
  const other = await mirror.get(`/v2/a/b/blobs/${digest}`);
  assert.equal(other.body.length, size);
  while (!mirror.log.some(({ aborted }) => aborted === true))
    await new Promise((resolve) => setImmediate(resolve));
  const line = mirror.log.find(({ aborted }) => aborted === true);
  assert.ok(Number(line?.['bytes']) < size);
});

test('a client that waits for a slow upstream is not cut, even if it waits longer than clientTimeout', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const blob = noise(MIB, 'patient client');
  const digest = upstream.addContent(blob);
  const clientTimeoutMs = 100;
  upstream.script({ kind: 'blob' }, (reply) => {
    reply.stall = { after: MIB / 2, until: setTimeout(3 * clientTimeoutMs) };
  });
  const mirror = await startMirror(t, {
    upstreams: { 'docker.io': upstream.url },
    server: { clientTimeout: `${clientTimeoutMs}ms` },
  });
  assert.ok((await mirror.get(`/v2/a/b/blobs/${digest}`)).body.equals(blob));
});

test('containerd’s parallel ranges: clients that read one piece each and leave cost one fetch, which completes', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const blob = noise(8 * MIB, 'parallel');
  const digest = upstream.addContent(blob);
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  const port = Number(new URL(mirror.url).port);
  await Promise.all(
    Array.from({ length: 8 }, async (_, at) => {
      const socket = connect(port, '127.0.0.1');
      socket.on('error', () => undefined);
      cleanUp(t, () => socket.destroy());
      socket.write(`GET /v2/a/b/blobs/${digest} HTTP/1.1\r\nHost: m\r\nRange: bytes=${at * MIB}-\r\n\r\n`);
      const [head] = (await once(socket, 'data')) as [Buffer];
      assert.match(
        head.toString('latin1'),
        /^HTTP\/1\.1 206 [\s\S]*content-range: bytes \d+-8388607\/8388608/i,
      );
      socket.destroy();
    }),
  );
  const whole = await mirror.get(`/v2/a/b/blobs/${digest}`);
  assert.ok(whole.body.equals(blob));
  assert.equal(upstream.count('blob', 'GET'), 1);
});

test('SIGTERM while a reply runs: it finishes, new connections are refused', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const blob = noise(2 * MIB, 'drain');
  const digest = upstream.addContent(blob);
  const gate = Promise.withResolvers<void>();
  upstream.script({ kind: 'blob' }, (reply) => {
    reply.stall = { after: MIB, until: gate.promise };
  });
  const mirror = await startMirror(t, {
    upstreams: { 'docker.io': upstream.url },
    // It does not take that long: the client keeps its connection, and we close it after the reply.
    server: { drainTimeout: '1h' },
  });
  const running = mirror.get(`/v2/a/b/blobs/${digest}`);
  await upstream.waitForBytes(MIB);
  const closed = mirror.app.close();
  await assert.rejects(once(connect(Number(new URL(mirror.url).port), '127.0.0.1'), 'connect'));
  gate.resolve();
  assert.ok((await running).body.equals(blob));
  await closed;
});
