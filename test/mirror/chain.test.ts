import assert from 'node:assert/strict';
import { test } from 'node:test';
import { digestOf } from '../../src/oci/digest.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { startMirror } from '../helpers/start-mirror.ts';

test('a mirror behind a mirror: everything arrives, and the registry is asked once', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const image = upstream.addImage('a/b', '1', { layers: [200_000], platforms: ['amd64', 'arm64'] });
  const inner = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  const outer = await startMirror(t, { upstreams: { 'docker.io': inner.url } });
  assert.deepEqual((await outer.get('/v2/a/b/manifests/1')).body, image.top.bytes);
  for (const blob of image.blobs) {
    const path = `/v2/a/b/blobs/${digestOf(blob)}`;
    assert.equal((await outer.head(path)).headers['content-length'], String(blob.length));
    assert.ok((await outer.get(path)).body.equals(blob));
  }
  assert.equal(upstream.count('blob', 'GET'), image.blobs.length);
  assert.equal(upstream.count('manifest', 'GET'), 1);
});

test('the first pull of an image may be by the digest of one of its platforms', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const image = upstream.addImage('a/b', '1', { platforms: ['amd64', 'arm64'] });
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  for (const { digest, bytes } of [...image.manifests, image.top]) {
    assert.deepEqual((await mirror.get(`/v2/a/b/manifests/${digest}`)).body, bytes);
  }
});

test('upstream whose HEAD has no Content-Length is asked by GET, and zero is never taken for a length', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const image = upstream.addImage('a/b', '1', { layers: [5000] });
  upstream.script({ method: 'HEAD' }, (reply) => {
    reply.headers['content-length'] = undefined;
  });
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  const manifest = await mirror.head('/v2/a/b/manifests/1');
  assert.equal(manifest.headers['content-length'], String(image.top.bytes.length));
  const layer = await mirror.head(`/v2/a/b/blobs/${digestOf(image.blobs[1] ?? Buffer.alloc(0))}`);
  assert.equal(layer.headers['content-length'], '5000', 'the manifest that we hold says it');
});

test('no timer deletes anything: two images that share a layer are both whole, years after their first pull', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  // The same seed and size make the same layer; the second image has one more.
  const images = [
    upstream.addImage('a/one', '1', { layers: [5000] }),
    upstream.addImage('a/two', '1', { layers: [5000, 7000] }),
  ];
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  const paths = images.flatMap((image, at) => {
    const repository = at === 0 ? 'a/one' : 'a/two';
    return [
      `/v2/${repository}/manifests/${image.top.digest}`,
      ...image.blobs.map((blob) => `/v2/${repository}/blobs/${digestOf(blob)}`),
    ];
  });
  for (const path of paths) await mirror.get(path);
  await mirror.idle();
  await upstream.close();
  mirror.clock.advance(3 * 365 * 24 * 3_600_000);
  for (const path of paths)
    assert.equal((await mirror.get(path)).headers['cache-status'], 'millpond; hit', path);
});
