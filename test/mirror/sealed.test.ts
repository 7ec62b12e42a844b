import assert from 'node:assert/strict';
import { test } from 'node:test';
import { digestOf } from '../../src/oci/digest.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { startMirror } from '../helpers/start-mirror.ts';

const YEAR = 365 * 24 * 3_600_000;

test('sealed: what is cached is served, however old; what is not is a 404 that says why; and no connection is opened', async (t) => {
  const upstream = await ScriptedUpstream.start(t, { auth: {} });
  const image = upstream.addImage('a/b', '1', { layers: [5000] });
  const upstreams = { 'docker.io': upstream.url };
  const open = await startMirror(t, { upstreams });
  const layer = digestOf(image.blobs[1] ?? Buffer.alloc(0));
  await open.get('/v2/a/b/manifests/1');
  await open.get(`/v2/a/b/blobs/${layer}`);
  await open.app.close();
  const before = upstream.totalConnections + (upstream.tokens?.requests.length ?? 0);

  const { directory, clock } = open;
  const sealed = await startMirror(t, { upstreams, directory, clock, sealed: true });
  clock.advance(YEAR);
  const stale = await sealed.get('/v2/a/b/manifests/1');
  assert.deepEqual([stale.status, stale.body], [200, image.top.bytes]);
  assert.equal((await sealed.get(`/v2/a/b/blobs/${layer}`)).headers['cache-status'], 'millpond; hit');
  for (const path of [
    '/v2/a/b/manifests/2',
    '/v2/other/repo/manifests/1',
    `/v2/other/repo/blobs/${layer}`,
    '/v2/a/b/tags/list',
    `/v2/a/b/referrers/${image.top.digest}`,
    `/v2/a/b/blobs/${digestOf(Buffer.from('not cached'))}`,
  ]) {
    for (const method of ['GET', 'HEAD']) assert.equal((await sealed.send(method, path)).status, 404, path);
    assert.match((await sealed.get(path)).body.toString(), /this mirror is sealed/, path);
  }
  assert.equal(upstream.totalConnections + (upstream.tokens?.requests.length ?? 0), before);
});
