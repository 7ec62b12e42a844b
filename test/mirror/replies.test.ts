import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { test } from 'node:test';
import { OCI_INDEX } from '../../src/oci/manifest.ts';
import { cleanUp } from '../helpers/cleanup.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { startMirror } from '../helpers/start-mirror.ts';

function manifestOf(note: string): Buffer {
  return Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: OCI_INDEX, manifests: [], note }));
}

test('a manifest of any size and any characters is upstream’s bytes, cold and warm', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  const empty = manifestOf('').length;
  const notes = ['', 'é€😀\u0000\u00ff', ...[16_383, 16_384, 16_385].map((size) => 'x'.repeat(size - empty))];
  for (const note of [...notes, '€'.repeat(100_000)]) {
    const bytes = manifestOf(note);
    upstream.addManifest('a/b', bytes, OCI_INDEX, `t${bytes.length}`);
    for (const _state of ['cold', 'warm']) {
      const reply = await mirror.get(`/v2/a/b/manifests/t${bytes.length}`);
      assert.deepEqual(reply.headers['content-length'], String(bytes.length));
      assert.ok(reply.body.equals(bytes), `${bytes.length} bytes`);
    }
  }
});

test('requests that come at once on one connection are answered in their order', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  const bytesByTag = new Map(['a', 'b', 'c', 'd'].map((tag) => [tag, manifestOf(tag.repeat(10_000))]));
  for (const [tag, bytes] of bytesByTag) {
    upstream.addManifest('a/b', bytes, OCI_INDEX, tag);
    if (tag !== 'c') await mirror.get(`/v2/a/b/manifests/${tag}`); // c is cold, and so later than d
  }
  const socket = connect(Number(new URL(mirror.url).port), '127.0.0.1');
  cleanUp(t, () => socket.destroy());
  socket.write(
    ['GET a', 'HEAD b', 'GET b', 'GET c', 'GET d']
      .map((line) => line.split(' '))
      .map(
        ([method, tag]) =>
          `${method} /v2/a/b/manifests/${tag} HTTP/1.1\r\nHost: m\r\n${tag === 'd' ? 'Connection: close\r\n' : ''}\r\n`,
      )
      .join(''),
  );
  const received: Buffer[] = [];
  socket.on('data', (piece: Buffer) => received.push(piece));
  await once(socket, 'close');
  const text = Buffer.concat(received).toString('latin1');
  const replies = text.split('HTTP/1.1 200 OK\r\n').slice(1);
  const bodies = replies.map((reply) => reply.slice(reply.indexOf('\r\n\r\n') + 4));
  const body = (tag: string) => bytesByTag.get(tag)?.toString('latin1');
  assert.deepEqual(bodies, [body('a'), '', body('b'), body('c'), body('d')]);
});
