import assert from 'node:assert/strict';
import { test } from 'node:test';
import { digestOf } from '../../src/oci/digest.ts';
import { MANIFEST_MAX_BYTES, OCI_INDEX } from '../../src/oci/manifest.ts';
import { errorReply, ScriptedUpstream } from '../helpers/scripted-upstream.ts';
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

test('an error or a token nested a hundred thousand deep is told as what it is, and does no harm', async (t) => {
  const upstream = await ScriptedUpstream.start(t, { auth: {} });
  const image = upstream.addImage('a/b', '1');
  const mirror = await startMirror(t, { upstreams: { 'ghcr.io': upstream.url } });
  const { tokens } = upstream;
  assert.ok(tokens !== undefined);
  const lists = '['.repeat(DEPTH) + ']'.repeat(DEPTH);
  const objects = '{"token":'.repeat(DEPTH) + '1' + '}'.repeat(DEPTH);
  for (const body of [lists, objects, `{"token":${lists}}`]) {
    tokens.refusal = { status: 200, body };
    assert.equal((await mirror.get('/v2/a/b/manifests/1')).status, 502);
  }
  for (const body of [`{"errors":${lists}}`, `{"errors":[{"code":${lists},"message":${objects}}]}`]) {
    tokens.refusal = { status: 403, body };
    assert.deepEqual((await mirror.get('/v2/a/b/manifests/1')).error, 'DENIED');
  }
  tokens.refusal = undefined;
  assert.deepEqual((await mirror.get('/v2/a/b/manifests/1')).body, image.top.bytes);
});

test('headers without end are refused, wherever they come from, and do no harm', async (t) => {
  const upstream = await ScriptedUpstream.start(t, { auth: {}, cdn: true });
  const image = upstream.addImage('a/b', '1');
  const blob = image.blobs[0] ?? assert.fail();
  const mirror = await startMirror(t, { upstreams: { 'ghcr.io': upstream.url } });
  const path = `/v2/a/b/blobs/${digestOf(blob)}`;
  const endless = { 'x-endless': 'x'.repeat(1_000_000) };
  const { tokens } = upstream;
  assert.ok(tokens !== undefined);
  tokens.refusal = { status: 200, body: '{"token":"t"}', headers: endless };
  const refused = async (what: string) => {
    const reply = await mirror.get(path);
    assert.deepEqual([reply.status, reply.error], [502, 'UNAVAILABLE'], what);
    assert.match(reply.body.toString(), /ghcr\.io: the headers of the reply are too large/, what);
  };
  await refused('the token server');
  tokens.refusal = undefined;
  for (const kind of ['blob', 'cdn'] as const) {
    upstream.script({ kind }, ({ headers }) => Object.assign(headers, endless));
    await refused(kind);
    upstream.clearScripts();
  }
  assert.deepEqual((await mirror.get(path)).body, blob);
});

test('a manifest above the limit is refused before it is read to its end', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  upstream.addManifest('a/b', Buffer.alloc(4 * MANIFEST_MAX_BYTES, ' '), OCI_INDEX, 'huge');
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  const reply = await mirror.get('/v2/a/b/manifests/huge');
  assert.deepEqual([reply.status, reply.error], [502, 'UNAVAILABLE']);
  assert.match(reply.body.toString(), /longer than 8388608 bytes/);
  await upstream.requests[0]?.done;
  assert.ok((upstream.requests[0]?.bytesSent ?? 0) < 4 * MANIFEST_MAX_BYTES);
});

test('an error text without end is told by its status alone', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  upstream.script({}, (reply) => {
    const body = { size: 10_000_000, slice: (from: number, to: number) => Buffer.alloc(to - from, 'x') };
    Object.assign(reply, errorReply(403, 'DENIED'), { body, end: body.size });
    reply.headers['content-length'] = undefined;
  });
  const reply = await mirror.get('/v2/a/b/manifests/1');
  assert.equal(reply.status, 403);
  assert.match(reply.body.toString(), /"docker\.io: upstream answered 403"/);
  await upstream.requests[0]?.done;
});

test('a header of upstream that is passed on says nothing but what it may', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const image = upstream.addImage('a/b', '1');
  upstream.addReferrers(image.top.digest, Buffer.from('{"schemaVersion":2,"manifests":[]}'));
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  for (const [at, sent, passed] of [
    [0, 'artifactType', 'artifactType'],
    [1, 'artifactType,annotation', 'artifactType,annotation'],
    [2, 'caf\u00e9', undefined],
    [3, '\u00e2\u0082\u00ac', undefined], // the bytes of a euro sign
    [4, 'x'.repeat(1000), undefined],
  ] as const) {
    upstream.clearScripts();
    upstream.script({ kind: 'referrers' }, ({ headers }) => {
      headers['oci-filters-applied'] = sent;
    });
    const reply = await mirror.get(`/v2/a/b/referrers/${image.top.digest}?artifactType=t${at}`);
    assert.deepEqual([reply.status, reply.headers['oci-filters-applied']], [200, passed]);
  }
});
