import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { request } from 'undici';
import { digestOf } from '../../src/oci/digest.ts';
import { OCI_MANIFEST } from '../../src/oci/manifest.ts';
import { noise } from '../helpers/images.ts';
import { errorReply, type Reply, ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { startMirror } from '../helpers/start-mirror.ts';

const MIB = 1024 * 1024;
const blob = noise(64 * MIB, 'foreign');
const digest = digestOf(blob);

/** Upstream A is in trouble, upstream B is honest; both have the blob. */
async function setUp(t: TestContext) {
  const [a, b] = [await ScriptedUpstream.start(t), await ScriptedUpstream.start(t)];
  a.addContent(blob);
  b.addContent(blob);
  const mirror = await startMirror(t, { upstreams: { 'ghcr.io': a.url, 'quay.io': b.url } });
  const path = (upstream: string) => `/v2/${upstream}/org/app/blobs/${digest}`;
  return { a, b, mirror, path };
}

for (const [what, halfway, misbehave] of [
  ['sends wrong bytes', 32 * MIB, (reply: Reply) => (reply.corruptAt = 100)],
  [
    'hangs at half of the blob',
    32 * MIB,
    (reply: Reply, until: Promise<void>) => (reply.stall = { after: 32 * MIB, until }),
  ],
  ['crawls', 64 * 1024, (reply: Reply, until: Promise<void>) => (reply.stall = { after: 64 * 1024, until })],
] as const) {
  test(`an upstream that ${what} does not hold back or spoil the same blob from another`, async (t) => {
    const { a, b, mirror, path } = await setUp(t);
    const released = Promise.withResolvers<void>();
    const held = Promise.withResolvers<void>();
    a.script({ kind: 'blob' }, (reply) => {
      reply.stall = { after: halfway, until: held.promise };
      misbehave(reply, held.promise);
    });
    const foreign = request(mirror.url + path('ghcr.io')).then(async ({ body }) => {
      await released.promise;
      return body.arrayBuffer();
    });
    foreign.catch(() => undefined);
    await a.waitForBytes(halfway);

    const honest = await mirror.get(path('quay.io'));
    assert.deepEqual([honest.status, honest.body.equals(blob)], [200, true]);
    assert.equal(honest.headers['cache-status'], 'millpond; fwd=uri-miss; stored');
    assert.deepEqual([a.count('blob', 'GET'), b.count('blob', 'GET')], [1, 1]);
    assert.equal(b.blobBytesSent(), blob.length, 'every byte came from the honest one');
    held.resolve();
    released.resolve();
    if (what === 'sends wrong bytes') await assert.rejects(foreign);
    else assert.ok(Buffer.from(await foreign).equals(blob), 'the other finishes for its own clients');
    await mirror.idle();
    const warm = await mirror.get(path('quay.io'));
    assert.equal(warm.headers['cache-status'], 'millpond; hit');
    assert.ok(warm.body.equals(blob));
  });
}

test('what a lying upstream left behind is not what another upstream’s fetch goes on from', async (t) => {
  const { a, b, mirror, path } = await setUp(t);
  a.script({ kind: 'blob' }, (reply) => {
    reply.corruptAt = 100;
    reply.cutAfter = 8 * MIB;
  });
  await assert.rejects(mirror.get(path('ghcr.io')));
  await mirror.idle();
  const honest = await mirror.get(path('quay.io'));
  assert.ok(honest.body.equals(blob));
  const [asked] = b.requests.filter(({ kind }) => kind === 'blob');
  assert.equal(asked?.headers.range, undefined, 'from the first byte on');
});

test('the blob that is verified first is stored, and serves both upstreams’ clients from then on', async (t) => {
  const { a, b, mirror, path } = await setUp(t);
  const held = Promise.withResolvers<void>();
  a.script({ kind: 'blob' }, (reply) => {
    reply.stall = { after: MIB, until: held.promise };
  });
  const slow = mirror.get(path('ghcr.io'));
  await a.waitForBytes(MIB);
  await mirror.get(path('quay.io'));
  while ((await mirror.metric('millpond_store_objects')) === 0) await setImmediate();
  const joined = await mirror.get(path('ghcr.io'));
  assert.equal(joined.headers['cache-status'], 'millpond; hit; detail=revalidated');
  held.resolve();
  assert.ok((await slow).body.equals(blob));
  assert.deepEqual([a.count('blob', 'GET'), b.count('blob', 'GET')], [1, 1]);
});

function manifestOf(size: number): Buffer {
  const config = { digest: digestOf(Buffer.from('{}')), size: 2, mediaType: 'c' };
  return Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: OCI_MANIFEST,
      config,
      layers: [{ digest, size, mediaType: 'l' }],
    }),
  );
}

for (const [what, wrong] of [
  ['too small', 1000],
  ['too large', 70 * MIB],
] as const) {
  test(`a manifest that states a size that is ${what} fails pulls of its own repository only`, async (t) => {
    const upstream = await ScriptedUpstream.start(t);
    upstream.addContent(blob);
    upstream.addManifest('org/liar', manifestOf(wrong), OCI_MANIFEST, '1');
    upstream.addManifest('org/app', manifestOf(blob.length), OCI_MANIFEST, '1');
    const held = Promise.withResolvers<void>();
    upstream.script({ kind: 'blob' }, (reply) => void (reply.delay = held.promise), { times: 1 });
    const mirror = await startMirror(t, { upstreams: { 'ghcr.io': upstream.url } });
    for (const repository of ['liar', 'app']) await mirror.get(`/v2/org/${repository}/manifests/1`);
    const liar = mirror.get(`/v2/org/liar/blobs/${digest}`);
    await upstream.waitFor(({ kind }) => kind === 'blob');
    const honest = mirror.get(`/v2/org/app/blobs/${digest}`);
    held.resolve();
    assert.deepEqual([(await liar).status, (await liar).error], [502, 'UNAVAILABLE']);
    assert.ok((await honest).body.equals(blob));
    assert.equal(upstream.blobBytesSent(), blob.length, 'one fetch served it');
  });
}

test('of an upstream that tells no length, each client gets what the manifest of its repository says, or is cut', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  upstream.addContent(blob);
  upstream.addManifest('org/liar', manifestOf(70 * MIB), OCI_MANIFEST, '1');
  upstream.addManifest('org/app', manifestOf(blob.length), OCI_MANIFEST, '1');
  upstream.script({ kind: 'blob' }, (reply) => {
    reply.headers['content-length'] = undefined;
    reply.headers['content-range'] = undefined;
    Object.assign(reply, { status: 200, start: 0, end: blob.length });
  });
  const mirror = await startMirror(t, { upstreams: { 'ghcr.io': { url: upstream.url, segments: 1 } } });
  for (const repository of ['liar', 'app']) await mirror.get(`/v2/org/${repository}/manifests/1`);
  const [liar, honest] = await Promise.allSettled(
    ['liar', 'app'].map((repository) => mirror.get(`/v2/org/${repository}/blobs/${digest}`)),
  );
  assert.equal(liar?.status, 'rejected');
  assert.ok(honest?.status === 'fulfilled' && honest.value.body.equals(blob));
  assert.equal(honest.value.headers['content-length'], String(blob.length));
});

test('where neither upstream nor a manifest tells the length, a client gets the blob with its length once it is here', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const small = noise(3 * MIB, 'no length');
  const smallDigest = upstream.addContent(small);
  upstream.script({ kind: 'blob' }, (reply) => {
    reply.headers['content-length'] = undefined;
  });
  const mirror = await startMirror(t, { upstreams: { 'ghcr.io': upstream.url } });
  const reply = await mirror.get(`/v2/org/app/blobs/${smallDigest}`);
  assert.deepEqual([reply.status, reply.body.equals(small)], [200, true]);
  assert.equal(reply.headers['content-length'], String(small.length));
});

test('an upstream that tells no length and never ends is cut where every client’s manifest says that the blob ends', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  upstream.addContent(blob);
  upstream.addManifest('org/app', manifestOf(1000), OCI_MANIFEST, '1');
  upstream.script({ kind: 'blob' }, (reply) => {
    reply.headers['content-length'] = undefined;
  });
  const mirror = await startMirror(t, { upstreams: { 'ghcr.io': upstream.url } });
  await mirror.get('/v2/org/app/manifests/1');
  await assert.rejects(mirror.get(`/v2/org/app/blobs/${digest}`));
  await mirror.idle();
  const [asked] = upstream.requests.filter(({ kind }) => kind === 'blob');
  await asked?.done;
  assert.ok((asked?.bytesSent ?? 0) < blob.length / 2, 'reading stopped');
});

test('a blob that upstream confirms for a second repository while its first fill ends is not fetched again', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const small = Buffer.from('wanted twice');
  const smallDigest = upstream.addContent(small);
  const [begun, confirmed] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  upstream.script({ kind: 'blob', method: 'GET' }, (reply) => void (reply.delay = begun.promise));
  upstream.script({ kind: 'blob', method: 'HEAD' }, (reply) => void (reply.delay = confirmed.promise));
  const mirror = await startMirror(t, { upstreams: { 'ghcr.io': upstream.url } });
  const first = mirror.get(`/v2/org/one/blobs/${smallDigest}`);
  await upstream.waitFor(({ method }) => method === 'GET');
  const second = mirror.get(`/v2/org/two/blobs/${smallDigest}`);
  await upstream.waitFor(({ method }) => method === 'HEAD');
  begun.resolve();
  await first;
  await mirror.idle();
  confirmed.resolve();
  assert.deepEqual((await second).body, small);
  assert.equal((await second).headers['cache-status'], 'millpond; hit; detail=revalidated');
  assert.equal(upstream.count('blob', 'GET'), 1);
  assert.equal(
    (await mirror.get(`/v2/org/two/blobs/${smallDigest}`)).headers['cache-status'],
    'millpond; hit',
  );
});

test('another repository of the same upstream still shares a running fill, once upstream has confirmed the blob there', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  upstream.addContent(blob);
  const held = Promise.withResolvers<void>();
  upstream.script({ kind: 'blob', method: 'GET' }, (reply) => {
    reply.stall = { after: MIB, until: held.promise };
  });
  upstream.script({ kind: 'blob', path: /org\/refused/ }, (reply) =>
    Object.assign(reply, errorReply(404, 'BLOB_UNKNOWN')),
  );
  const mirror = await startMirror(t, { upstreams: { 'ghcr.io': upstream.url } });
  const first = mirror.get(`/v2/org/one/blobs/${digest}`);
  await upstream.waitForBytes(MIB);
  assert.equal((await mirror.get(`/v2/org/refused/blobs/${digest}`)).status, 404);
  const second = mirror.get(`/v2/org/two/blobs/${digest}`);
  await upstream.waitFor(({ path, method }) => path.includes('org/two') && method === 'HEAD');
  held.resolve();
  assert.ok((await first).body.equals(blob) && (await second).body.equals(blob));
  assert.equal(upstream.count('blob', 'GET'), 1);
});
