import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { type TestContext, test } from 'node:test';
import { request } from 'undici';
import { type Digest, digestOf } from '../../src/oci/digest.ts';
import { OCI_MANIFEST } from '../../src/oci/manifest.ts';
import { noise } from '../helpers/images.ts';
import { errorReply, ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { startMirror } from '../helpers/start-mirror.ts';

const MIB = 1024 * 1024;
const blob = noise(80 * MIB + 12_345, 'segments');
const digest = digestOf(blob);
const PATH = `/v2/org/large/blobs/${digest}`;

/** A mirror that knows the blob's size from a manifest, as it does in every real pull. */
async function setUp(t: TestContext, settings: Record<string, unknown> = {}) {
  const upstream = await ScriptedUpstream.start(t);
  upstream.addContent(blob);
  upstream.addManifest('org/large', manifestOf(digest), OCI_MANIFEST, 'latest');
  const mirror = await startMirror(t, { upstreams: { 'docker.io': { url: upstream.url, ...settings } } });
  await mirror.get('/v2/org/large/manifests/latest');
  return { upstream, mirror };
}

function manifestOf(layer: Digest, size = blob.length): Buffer {
  const config = { digest: digestOf(Buffer.from('{}')), size: 2, mediaType: 'c' };
  const layers = [{ digest: layer, size, mediaType: 'l' }];
  return Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers }));
}

const sha256 = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex');

test('a large blob is fetched in ranges, several at once, each byte once', async (t) => {
  const { upstream, mirror } = await setUp(t);
  const reply = await mirror.get(PATH);
  assert.equal(sha256(reply.body), sha256(blob));
  const ranges = upstream.requests.filter(({ kind }) => kind === 'blob').map(({ headers }) => headers.range);
  assert.ok(ranges.length > 1 && ranges.every((range) => range !== undefined), String(ranges));
  assert.equal(upstream.blobBytesSent(), blob.length);
  assert.ok(upstream.peakBlobBodies > 1 && upstream.peakBlobBodies <= 4, String(upstream.peakBlobBodies));
  const warm = await mirror.get(PATH);
  assert.equal(warm.headers['cache-status'], 'millpond; hit');
  assert.deepEqual(await readdir(join(mirror.directory, 'data/ingest')), []);
});

test('what is left after the first range is split as well, however little: 64 MiB come in four ranges', async (t) => {
  const smallest = noise(64 * MIB, 'smallest');
  const upstream = await ScriptedUpstream.start(t);
  upstream.addContent(smallest);
  upstream.addManifest('org/large', manifestOf(digestOf(smallest), smallest.length), OCI_MANIFEST, 'latest');
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  await mirror.get('/v2/org/large/manifests/latest');
  const reply = await mirror.get(`/v2/org/large/blobs/${digestOf(smallest)}`);
  assert.equal(sha256(reply.body), sha256(smallest));
  const ranges = upstream.requests.filter(({ kind }) => kind === 'blob').map(({ headers }) => headers.range);
  const starts = [0, 16, 32, 48].map((at) => `bytes=${at * MIB}-${(at + 16) * MIB - 1}`);
  assert.deepEqual(ranges.toSorted(), starts.toSorted());
});

test('while one connection is fast, the ranges come one after the other', async (t) => {
  const { upstream, mirror } = await setUp(t);
  mirror.clock.impatient = false; // no time passes
  assert.equal(sha256((await mirror.get(PATH)).body), sha256(blob));
  assert.ok(upstream.count('blob', 'GET') > 1);
  assert.equal(upstream.peakBlobBodies, 1);
});

test('a connection that brings a range slower than 200 MiB/s gets company', async (t) => {
  const { upstream, mirror } = await setUp(t);
  mirror.clock.impatient = false;
  const go = Promise.withResolvers<void>();
  upstream.script({ kind: 'blob' }, (reply) => {
    reply.stall = { after: MIB, until: go.promise };
  });
  const { body } = await request(`${mirror.url}${PATH}`);
  await once(body, 'readable');
  mirror.clock.advance((16 / 200) * 1000 - 1);
  assert.equal(upstream.count('blob', 'GET'), 1);
  mirror.clock.advance(1);
  await upstream.waitForBytes(4 * MIB);
  assert.equal(upstream.peakBlobBodies, 4);
  go.resolve();
  assert.equal(sha256(await buffer(body)), sha256(blob));
});

test('an upstream that ignores ranges is asked once, and its one reply is taken', async (t) => {
  const { upstream, mirror } = await setUp(t);
  upstream.script({ kind: 'blob' }, (reply) => {
    reply.status = 200;
    reply.headers['content-range'] = undefined;
    reply.headers['content-length'] = String(blob.length);
    Object.assign(reply, { start: 0, end: blob.length });
  });
  const { body } = await mirror.get(PATH);
  assert.equal(sha256(body), sha256(blob));
  assert.equal(upstream.count('blob', 'GET'), 1);
});

test('segments: 1 fetches in one piece', async (t) => {
  const { upstream, mirror } = await setUp(t, { segments: 1 });
  assert.equal((await mirror.get(PATH)).body.length, blob.length);
  assert.deepEqual(
    upstream.requests.filter(({ kind }) => kind === 'blob').map(({ headers }) => headers.range),
    [undefined],
  );
});

test('segments stay within maxConnections', async (t) => {
  const { upstream, mirror } = await setUp(t, { maxConnections: 2, segments: 8 });
  assert.equal(sha256((await mirror.get(PATH)).body), sha256(blob));
  assert.ok(upstream.peakBlobBodies <= 2, String(upstream.peakBlobBodies));
});

test('segments that break off are resumed, and the client notices nothing', async (t) => {
  const { upstream, mirror } = await setUp(t);
  upstream.script(
    { kind: 'blob' },
    (reply) => {
      reply.cutAfter = 3 * MIB;
    },
    { times: 3 },
  );
  assert.equal(sha256((await mirror.get(PATH)).body), sha256(blob));
  assert.ok((await mirror.metric('millpond_ingest_resumes_total')) >= 3);
});

test('one wrong bit in a late segment: the reply is cut, nothing is stored, and the next pull is right', async (t) => {
  const { upstream, mirror } = await setUp(t);
  upstream.script({ kind: 'blob' }, (reply) => {
    reply.corruptAt = 70 * MIB;
  });
  await assert.rejects(mirror.get(PATH), { code: 'UND_ERR_SOCKET' });
  await mirror.idle(); // the client is cut before all is cleared away
  assert.deepEqual(await readdir(join(mirror.directory, 'data/ingest')), []);
  upstream.clearScripts();
  assert.equal(sha256((await mirror.get(PATH)).body), sha256(blob));
});

test('when one part is refused, the others are broken off, and the client is cut at once', async (t) => {
  const { upstream, mirror } = await setUp(t);
  const never = Promise.withResolvers<void>();
  upstream.script({ kind: 'blob' }, (reply, { headers }) => {
    if (headers.range?.startsWith('bytes=0-') === true) return;
    if (headers.range?.startsWith('bytes=16777216-') === true)
      Object.assign(reply, errorReply(404, 'BLOB_UNKNOWN'));
    else reply.stall = { after: 1000, until: never.promise };
  });
  await assert.rejects(mirror.get(PATH), { code: 'UND_ERR_SOCKET' });
  await mirror.idle();
  await Promise.all(upstream.requests.map(({ done }) => done));
});

test('a range in the last segment is served while the first ones come', async (t) => {
  const { upstream, mirror } = await setUp(t);
  const start = blob.length - 1000;
  const [range, whole] = await Promise.all([
    mirror.get(PATH, { range: `bytes=${start}-` }),
    mirror.get(PATH),
  ]);
  assert.deepEqual([range.status, range.body], [206, blob.subarray(start)]);
  assert.equal(sha256(whole.body), sha256(blob));
  assert.equal(upstream.blobBytesSent(), blob.length);
});

test('a fill that is broken off by a shutdown goes on from its front part', async (t) => {
  const { upstream, mirror } = await setUp(t);
  const never = Promise.withResolvers<void>();
  // The second segment never ends, so what lies behind it is in the file, but not in its front part.
  upstream.script({ kind: 'blob', path: /blobs/ }, (reply, request) => {
    if (request.headers.range?.startsWith('bytes=16777216-') === true)
      reply.stall = { after: MIB, until: never.promise };
  });
  mirror.get(PATH).catch(() => undefined);
  await upstream.waitForBytes(5 * 16 * MIB - 15 * MIB + 12_345);
  await mirror.app.close();
  never.resolve();
  upstream.clearScripts();
  upstream.requests.length = 0;
  const { directory, clock } = mirror;
  const again = await startMirror(t, { upstreams: { 'docker.io': upstream.url }, directory, clock });
  assert.equal(sha256((await again.get(PATH)).body), sha256(blob));
  const from = upstream.requests.map(({ headers }) => Number(/^bytes=(\d+)-/.exec(headers.range ?? '')?.[1]));
  assert.equal(Math.min(...from), 17 * MIB, 'what was verified is not fetched again');
});
