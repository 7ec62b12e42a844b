import assert from 'node:assert/strict';
import { test } from 'node:test';
import { noise } from '../helpers/images.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { startMirror } from '../helpers/start-mirror.ts';

const blob = noise(2048, 'ranges');

// The six cases of the OCI conformance suite, and what containerd and lazy pullers send.
for (const [range, status, start, end] of [
  ['bytes=500-1499', 206, 500, 1500],
  ['bytes=500-', 206, 500, 2048],
  ['bytes=-500', 206, 1548, 2048],
  ['bytes=2000-5000', 206, 2000, 2048],
  ['bytes=0-', 206, 0, 2048],
  ['bytes=0-0', 206, 0, 1],
  ['bytes=500-0', 416, 0, 0],
  ['bytes=5000-10000', 416, 0, 0],
  ['bytes=0-99,200-299', 200, 0, 2048],
] as const) {
  test(`Range: ${range} has ${status}, cold and warm, and costs one fetch`, async (t) => {
    const upstream = await ScriptedUpstream.start(t);
    const digest = upstream.addContent(blob);
    const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
    for (const state of ['cold', 'warm']) {
      const reply = await mirror.get(`/v2/a/b/blobs/${digest}`, { range });
      assert.equal(reply.status, status, state);
      if (status === 416) {
        assert.equal(reply.headers['content-range'], 'bytes */2048');
        continue;
      }
      assert.ok(reply.body.equals(blob.subarray(start, end)), state);
      assert.equal(reply.headers['content-length'], String(end - start));
      assert.equal(
        reply.headers['content-range'],
        status === 206 ? `bytes ${start}-${end - 1}/2048` : undefined,
      );
    }
    assert.equal(upstream.count('blob', 'GET'), 1);
  });
}

test('If-Range with the digest gives the range, with anything else the whole', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const digest = upstream.addContent(blob);
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  for (const [ifRange, status] of [
    [`"${digest}"`, 206],
    ['"another"', 200],
    ['Wed, 21 Oct 2015 07:28:00 GMT', 200],
  ] as const) {
    const headers = { range: 'bytes=10-19', 'if-range': ifRange };
    assert.equal((await mirror.get(`/v2/a/b/blobs/${digest}`, headers)).status, status, ifRange);
  }
});

test('a Range on a manifest is ignored', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const image = upstream.addImage('a/b', '1');
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  const reply = await mirror.get('/v2/a/b/manifests/1', { range: 'bytes=0-9' });
  assert.deepEqual([reply.status, reply.body], [200, image.top.bytes]);
});

test('the headers of a cold blob are out before its first byte is there, of a range at the far end, too', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const large = noise(4_000_000, 'headers first');
  const digest = upstream.addContent(large);
  const gate = Promise.withResolvers<void>();
  upstream.script({ kind: 'blob' }, (reply) => {
    reply.stall = { after: 0, until: gate.promise };
  });
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  for (const headers of [{}, { range: 'bytes=3999990-' }]) {
    const reply = await fetch(`${mirror.url}/v2/a/b/blobs/${digest}`, { headers });
    assert.ok(reply.ok);
    assert.equal(upstream.blobBytesSent(), 0, 'upstream has sent its headers and nothing more');
    await reply.body?.cancel();
  }
  gate.resolve();
});
