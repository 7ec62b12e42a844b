import assert from 'node:assert/strict';
import { test } from 'node:test';
import { OCI_INDEX } from '../../src/oci/manifest.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { startMirror } from '../helpers/start-mirror.ts';

const DEPTH = 100_000;
const ENTRIES = 60_000;

test('a manifest nested a hundred thousand deep, or listing tens of thousands, is refused and does no harm', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const image = upstream.addImage('a/b', 'good');
  const deep = `{"schemaVersion":2,"mediaType":"${OCI_INDEX}","manifests":${'['.repeat(DEPTH)}${']'.repeat(DEPTH)}}`;
  const entry = `{"digest":"sha256:${'a'.repeat(64)}","size":1}`;
  const many = `{"schemaVersion":2,"mediaType":"${OCI_INDEX}","manifests":[${Array(ENTRIES).fill(entry).join(',')}]}`;
  upstream.addManifest('a/b', Buffer.from(deep), OCI_INDEX, 'deep');
  upstream.addManifest('a/b', Buffer.from(many), OCI_INDEX, 'many');
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  const deepReply = await mirror.get('/v2/a/b/manifests/deep');
  assert.ok([200, 502].includes(deepReply.status)); // it lists nothing that could be followed
  assert.equal((await mirror.get('/v2/a/b/manifests/many')).status, 502);
  assert.deepEqual((await mirror.get('/v2/a/b/manifests/good')).body, image.top.bytes);
});

test('foreign layer URLs in a manifest are never fetched', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const foreign = await ScriptedUpstream.start(t);
  const layer = {
    digest: `sha256:${'b'.repeat(64)}`,
    size: 5,
    urls: [`${foreign.url}/layer`],
    mediaType: 'x',
  };
  const manifest = {
    schemaVersion: 2,
    mediaType: 'application/vnd.oci.image.manifest.v1+json',
    config: layer,
    layers: [layer],
  };
  upstream.addManifest('a/b', Buffer.from(JSON.stringify(manifest)), manifest.mediaType, '1');
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  assert.equal((await mirror.get('/v2/a/b/manifests/1')).status, 200);
  assert.equal((await mirror.get(`/v2/a/b/blobs/${layer.digest}`)).status, 404);
  assert.equal(foreign.requests.length, 0);
});
