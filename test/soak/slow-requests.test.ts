import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { cleanUp } from '../helpers/cleanup.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { startMirror } from '../helpers/start-mirror.ts';

const SOCKETS = 500;
const PATIENCE_MS = 40_000;

test('requests that come a byte a second are cut, and others are served meanwhile', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  let open = SOCKETS;
  const sockets = Array.from({ length: SOCKETS }, () => {
    const socket = connect(Number(new URL(mirror.url).port), '127.0.0.1');
    socket
      .on('error', () => undefined)
      .once('close', () => {
        open -= 1;
      });
    cleanUp(t, () => socket.destroy());
    socket.resume();
    return socket;
  });
  const head = 'GET /v2/ HTTP/1.1\r\nHost: mirror\r\nX-Slow: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa';
  for (let at = 0; at * 1000 < PATIENCE_MS && sockets.some((socket) => !socket.destroyed); at += 1) {
    for (const socket of sockets) if (!socket.destroyed) socket.write(head[at] ?? 'a');
    assert.equal((await mirror.get('/v2/')).status, 200);
    await setTimeout(1000);
  }
  assert.equal(open, 0);
});
