import assert from 'node:assert/strict';
import { test } from 'node:test';
import { digestOf } from '../../src/oci/digest.ts';
import { errorReply, ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { startMirror } from '../helpers/start-mirror.ts';

test('knowing a digest is no permission: another repository gets it only when upstream confirms it there', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const digest = upstream.addContent(Buffer.from('a private layer'));
  upstream.script({ path: /^\/v2\/org\/public\// }, (reply) =>
    Object.assign(reply, errorReply(404, 'BLOB_UNKNOWN')),
  );
  const mirror = await startMirror(t, { upstreams: { 'ghcr.io': upstream.url } });
  assert.equal((await mirror.get(`/v2/org/private/blobs/${digest}`)).status, 200);
  await mirror.idle(); // it is stored: what is asked for next comes out of the cache, if at all
  for (const method of ['GET', 'HEAD']) {
    assert.equal((await mirror.send(method, `/v2/org/public/blobs/${digest}`)).status, 404, method);
  }
  assert.equal(upstream.count('blob', 'GET'), 1);
});

test('a confirmed digest is served from the cache, and confirmed once', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const digest = upstream.addContent(Buffer.from('a shared layer'));
  const mirror = await startMirror(t, { upstreams: { 'ghcr.io': upstream.url } });
  await mirror.get(`/v2/org/one/blobs/${digest}`);
  const confirmed = await mirror.get(`/v2/org/two/blobs/${digest}`);
  assert.equal(confirmed.headers['cache-status'], 'millpond; hit; detail=revalidated');
  assert.equal((await mirror.get(`/v2/org/two/blobs/${digest}`)).headers['cache-status'], 'millpond; hit');
  assert.deepEqual([upstream.count('blob', 'GET'), upstream.count('blob', 'HEAD')], [1, 1]);
});

test('what a manifest of the repository lists needs no confirmation', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const image = upstream.addImage('org/two', '1', { layers: [5000] });
  const mirror = await startMirror(t, { upstreams: { 'ghcr.io': upstream.url } });
  const path = (repository: string) =>
    `/v2/org/${repository}/blobs/${digestOf(image.blobs[1] ?? Buffer.alloc(0))}`;
  await mirror.get(path('one'));
  await mirror.get('/v2/org/two/manifests/1');
  assert.equal((await mirror.get(path('two'))).headers['cache-status'], 'millpond; hit');
  assert.equal(upstream.count('blob', 'HEAD'), 0);
});

test('a manifest by digest needs leave, too', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const image = upstream.addImage('org/private', '1');
  upstream.script({ path: /^\/v2\/org\/public\// }, (reply) =>
    Object.assign(reply, errorReply(403, 'DENIED')),
  );
  const mirror = await startMirror(t, { upstreams: { 'ghcr.io': upstream.url } });
  await mirror.get('/v2/org/private/manifests/1');
  assert.equal((await mirror.get(`/v2/org/public/manifests/${image.top.digest}`)).status, 403);
});

test('two upstreams with a repository of the same name do not mix', async (t) => {
  const one = await ScriptedUpstream.start(t);
  const two = await ScriptedUpstream.start(t);
  const images = [
    one.addImage('org/app', '1', { seed: 'one' }),
    two.addImage('org/app', '1', { seed: 'two' }),
  ];
  const mirror = await startMirror(t, { upstreams: { 'ghcr.io': one.url, 'quay.io': two.url } });
  for (const _pull of ['cold', 'warm']) {
    assert.deepEqual((await mirror.get('/v2/ghcr.io/org/app/manifests/1')).body, images[0]?.top.bytes);
    assert.deepEqual((await mirror.get('/v2/quay.io/org/app/manifests/1')).body, images[1]?.top.bytes);
  }
  const foreign = await mirror.get(`/v2/quay.io/org/app/manifests/${images[0]?.top.digest}`);
  assert.equal(foreign.status, 404);
});

test('one digest asked of two upstreams at once is fetched once from each', async (t) => {
  const one = await ScriptedUpstream.start(t);
  const two = await ScriptedUpstream.start(t);
  const bytes = Buffer.alloc(3_000_000, 5);
  const digest = one.addContent(bytes);
  two.addContent(bytes);
  const mirror = await startMirror(t, { upstreams: { 'ghcr.io': one.url, 'quay.io': two.url } });
  const pulls = ['ghcr.io', 'quay.io', 'ghcr.io', 'quay.io'].map((name) =>
    mirror.get(`/v2/${name}/a/b/blobs/${digest}`),
  );
  for (const { body } of await Promise.all(pulls)) assert.deepEqual(body, bytes);
  assert.deepEqual([one.count('blob', 'GET'), two.count('blob', 'GET')], [1, 1]);
});

test('one repository’s refusal does not fail another that asks for the same digest at the same time', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const digest = upstream.addContent(Buffer.from('wanted by both'));
  const gate = Promise.withResolvers<void>();
  upstream.script({ path: /^\/v2\/org\/refused\// }, (reply) => {
    Object.assign(reply, errorReply(403, 'DENIED'), { delay: gate.promise });
  });
  const mirror = await startMirror(t, { upstreams: { 'ghcr.io': upstream.url } });
  const refused = mirror.get(`/v2/org/refused/blobs/${digest}`);
  await upstream.waitFor(({ path }) => path.startsWith('/v2/org/refused/'));
  const allowed = mirror.get(`/v2/org/allowed/blobs/${digest}`);
  await upstream.waitFor(({ path, method }) => path.startsWith('/v2/org/allowed/') && method === 'HEAD');
  gate.resolve();
  assert.equal((await refused).status, 403);
  assert.equal((await allowed).body.toString(), 'wanted by both');
});
