import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { request } from 'undici';
import { type Digest, digestOf } from '../../src/oci/digest.ts';
import { DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST } from '../../src/oci/manifest.ts';
import { buildImage, noise, type TestImage } from '../helpers/images.ts';
import { errorReply, ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { type MirrorOptions, startMirror, type TestMirror } from '../helpers/start-mirror.ts';
import {
  type ApiEvent,
  contentOf,
  eventsIn,
  exportArchive,
  importArchive,
  outcomes,
  pullImage,
} from '../helpers/transfers.ts';

const MIB = 1024 * 1024;

async function setUp(t: TestContext, options: Partial<MirrorOptions> = {}) {
  const upstream = await ScriptedUpstream.start(t);
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url }, ...options });
  return { upstream, mirror };
}

interface Wanted {
  images: string[];
  platforms?: string[];
  referrers?: boolean;
}

async function warm(mirror: TestMirror, wanted: Wanted): Promise<ApiEvent[]> {
  const reply = await request(`${mirror.operationsUrl}/api/warm`, {
    method: 'POST',
    body: JSON.stringify(wanted),
  });
  const text = await reply.body.text();
  assert.equal(reply.statusCode, 200, text);
  return eventsIn(text);
}

/** Warms one image and returns its outcome. */
async function warmOne(mirror: TestMirror, image: string, wanted: Partial<Wanted> = {}): Promise<ApiEvent> {
  const [outcome, done] = outcomes(await warm(mirror, { images: [image], ...wanted }));
  assert.equal(done?.event, 'done');
  assert.ok(outcome !== undefined);
  return outcome;
}

function bytesOf(...images: TestImage[]): number {
  return contentOf(...images).reduce((sum, { length }) => sum + length, 0);
}

function dashed(digest: Digest): string {
  return digest.replace(':', '-');
}

function bodies(upstream: ScriptedUpstream): string[] {
  return upstream.requests.filter(({ method }) => method === 'GET').map(({ path }) => path);
}

test('a warmed image can be pulled by tag and by digest without upstream', async (t) => {
  const { upstream, mirror } = await setUp(t);
  const image = upstream.addImage('library/alpine', '3.20', {
    platforms: ['amd64', 'arm64'],
    layers: [MIB, 90],
  });
  const events = await warm(mirror, { images: ['alpine:3.20'] });
  assert.deepEqual(outcomes(events), [
    {
      event: 'image',
      outcome: 'done',
      image: 'docker.io/library/alpine:3.20',
      digest: image.top.digest,
      fetchedBytes: bytesOf(image),
      presentBytes: 0,
    },
    { event: 'done', images: 1, failed: 0 },
  ]);
  const paths = bodies(upstream);
  assert.deepEqual(paths.toSorted(), [...new Set(paths)].toSorted(), 'nothing was fetched twice');
  await upstream.close();
  await pullImage(mirror, 'library/alpine', '3.20');
  await pullImage(mirror, 'library/alpine', image.top.digest);
});

test('warming again fetches nothing, but asks upstream what the tag means, even within its TTL', async (t) => {
  const { upstream, mirror } = await setUp(t);
  const image = upstream.addImage('org/app', 'stable', { layers: [1000] });
  await warm(mirror, { images: ['org/app:stable'] });
  upstream.requests.length = 0;
  const again = await warmOne(mirror, 'org/app:stable', { referrers: false });
  assert.deepEqual([again['fetchedBytes'], again['presentBytes']], [0, bytesOf(image)]);
  assert.deepEqual(
    upstream.requests.map(({ method, path }) => [method, path]),
    [['HEAD', '/v2/org/app/manifests/stable']],
  );
  const moved = upstream.addImage('org/app', 'stable', { layers: [1000, 2000] });
  const after = await warmOne(mirror, 'org/app:stable');
  assert.equal(after['digest'], moved.top.digest);
  // Both have the same first layer.
  assert.deepEqual(
    [after['fetchedBytes'], after['presentBytes']],
    [bytesOf(moved) - bytesOfShared(image, moved), bytesOfShared(image, moved)],
  );
});

function bytesOfShared(...[a, b]: [TestImage, TestImage]): number {
  const known = new Set(contentOf(a).map((bytes) => digestOf(bytes)));
  return contentOf(b).reduce((sum, bytes) => sum + (known.has(digestOf(bytes)) ? bytes.length : 0), 0);
}

test('with chosen platforms nothing else is fetched; an unknown platform is a failure that lists the platforms of the image', async (t) => {
  const { upstream, mirror } = await setUp(t);
  const image = upstream.addImage('org/app', '1', { platforms: ['amd64', 'arm64', 's390x'] });
  const done = await warmOne(mirror, 'org/app:1', {
    platforms: ['linux/arm64', 'linux/amd64'],
    referrers: false,
  });
  assert.equal(done['outcome'], 'done');
  const left = [image.manifests[2]?.bytes, ...image.blobs.slice(4)];
  for (const bytes of left)
    assert.ok(!bodies(upstream).some((path) => path.endsWith(digestOf(bytes ?? Buffer.alloc(0)))));
  assert.equal(bodies(upstream).length, contentOf(image).length - left.length);
  const failed = await warmOne(mirror, 'org/app:1', { platforms: ['linux/riscv64'] });
  const reason =
    'docker.io/org/app:1 does not exist for linux/riscv64: choose from linux/amd64, linux/arm64, linux/s390x';
  assert.deepEqual([failed['outcome'], failed['reason']], ['failed', reason]);
});

test('each image has its own outcome: a failed one says why, and does not stop the others', async (t) => {
  const { upstream, mirror } = await setUp(t);
  upstream.addImage('org/good', '1', { seed: 'good' });
  const lacking = upstream.addImage('org/lacking', '1', { seed: 'lacking', layers: [10, 20] });
  const lost = digestOf(lacking.blobs[1] ?? Buffer.alloc(0));
  upstream.script({ kind: 'blob', path: new RegExp(lost) }, (reply) =>
    Object.assign(reply, errorReply(404, 'BLOB_UNKNOWN')),
  );
  upstream.script({ path: /org\/broken/ }, (reply) => Object.assign(reply, errorReply(403, 'DENIED')));
  const images = ['org/missing:1', 'A', 'elsewhere.test/a:1', 'org/lacking:1', 'org/broken:1', 'org/good:1'];
  const events = outcomes(await warm(mirror, { images }));
  assert.deepEqual(events.at(-1), { event: 'done', images: 1, failed: 5 });
  const reasons = Object.fromEntries(events.map(({ image, reason }) => [image, reason]));
  assert.match(String(reasons['docker.io/org/missing:1']), /^docker\.io: .*404/);
  assert.equal(reasons['A'], '"A" is not an image name: write it like docker.io/library/alpine:3.20');
  assert.match(String(reasons['elsewhere.test/a:1']), /is not a configured upstream/);
  assert.match(String(reasons['docker.io/org/lacking:1']), /404/);
  assert.match(String(reasons['docker.io/org/broken:1']), /403/);
  await pullImage(mirror, 'org/good', '1');
});

test('what was fetched before a failure is not fetched again', async (t) => {
  const { upstream, mirror } = await setUp(t);
  const image = upstream.addImage('org/app', '1', { layers: [3 * MIB, 4 * MIB] });
  const [, , second = Buffer.alloc(0)] = image.blobs;
  upstream.script(
    { kind: 'blob', path: new RegExp(digestOf(second)) },
    (reply) => Object.assign(reply, errorReply(404, 'BLOB_UNKNOWN')),
    { times: 1 },
  );
  assert.equal((await warmOne(mirror, 'org/app:1'))['outcome'], 'failed');
  await mirror.idle();
  upstream.requests.length = 0;
  const done = await warmOne(mirror, 'org/app:1', { referrers: false });
  assert.equal(done['fetchedBytes'], second.length);
  assert.deepEqual(bodies(upstream), [`/v2/org/app/blobs/${digestOf(second)}`]);
});

test('clients who pull an image while it is warmed share its fetches', async (t) => {
  const { upstream, mirror } = await setUp(t);
  const image = upstream.addImage('org/app', '1', { layers: [2 * MIB] });
  const gate = Promise.withResolvers<void>();
  upstream.script({ kind: 'blob' }, (reply) => {
    reply.stall = { after: 100, until: gate.promise };
  });
  const warmed = warmOne(mirror, 'org/app:1');
  await upstream.waitForBytes(110);
  const pulled = pullImage(mirror, 'org/app', '1');
  gate.resolve();
  await Promise.all([warmed, pulled]);
  assert.equal(upstream.count('blob', 'GET'), image.blobs.length);
});

test('at most twelve fetches run at the same time, however much there is to fetch', async (t) => {
  const { upstream, mirror } = await setUp(t);
  const images = Array.from({ length: 8 }, (_, at) => {
    upstream.addImage('org/app', `t${at}`, {
      seed: `${at}`,
      layers: Array.from({ length: 12 }, () => 70_000),
    });
    return `org/app:t${at}`;
  });
  upstream.script({ kind: 'blob' }, (reply) => {
    reply.rate = 4 * MIB;
  });
  const events = outcomes(await warm(mirror, { images, referrers: false }));
  assert.deepEqual(events.at(-1), { event: 'done', images: 8, failed: 0 });
  assert.ok(upstream.peakBlobBodies > 2 && upstream.peakBlobBodies <= 12, String(upstream.peakBlobBodies));
});

test('signatures under cosign’s tags, and those under the fallback tag, are fetched with each platform', async (t) => {
  const { upstream, mirror } = await setUp(t);
  const image = upstream.addImage('org/app', '1', { platforms: ['amd64', 'arm64'] });
  const [, arm64] = image.manifests;
  assert.ok(arm64 !== undefined);
  const tags = [`${dashed(image.top.digest)}.sig`, `${dashed(arm64.digest)}.att`, dashed(image.top.digest)];
  for (const tag of tags) upstream.addImage('org/app', tag, { seed: tag, layers: [30] });
  await warm(mirror, { images: ['org/app:1'] });
  const missing = upstream.requests.filter(({ path, method }) => method === 'GET' && path.endsWith('.sbom'));
  assert.deepEqual(missing, [], 'a tag that does not exist costs only a HEAD');
  await upstream.close();
  for (const tag of tags) await pullImage(mirror, 'org/app', tag);
});

test('with referrers: false upstream is not asked for any', async (t) => {
  const { upstream, mirror } = await setUp(t);
  upstream.addImage('org/app', '1');
  await warm(mirror, { images: ['org/app:1'], referrers: false });
  assert.ok(!upstream.requests.some(({ path, kind }) => kind === 'referrers' || path.includes('sha256-')));
});

test('what the referrers API lists is fetched, and a sealed mirror that imports it serves it under the fallback tag', async (t) => {
  const { upstream, mirror } = await setUp(t);
  const image = upstream.addImage('org/app', '1');
  const sbom = addReferrer(upstream, 'sbom');
  const gone = { mediaType: OCI_MANIFEST, digest: digestOf(Buffer.from('deleted meanwhile')), size: 10 };
  const list = indexOf(sbom.descriptor, gone);
  upstream.addReferrers(image.top.digest, list);
  assert.equal((await warmOne(mirror, 'org/app:1'))['outcome'], 'done');
  const { tar } = await exportArchive(mirror, { images: ['org/app:1'] });
  const sealed = await startMirror(t, { upstreams: { 'docker.io': upstream.url }, sealed: true });
  await importArchive(sealed, tar);
  await upstream.close();
  const fallback = await sealed.get(`/v2/org/app/manifests/${dashed(image.top.digest)}`);
  assert.deepEqual([fallback.status, fallback.body], [200, list]);
  await pullImage(sealed, 'org/app', sbom.digest);
});

test('what the referrers API lists on several pages is fetched, and stored as one list', async (t) => {
  const { upstream, mirror } = await setUp(t);
  const image = upstream.addImage('org/app', '1');
  const [sbom, signature] = [addReferrer(upstream, 'sbom'), addReferrer(upstream, 'signature')];
  upstream.addReferrers(image.top.digest, indexOf(sbom.descriptor), indexOf(), indexOf(signature.descriptor));
  assert.equal((await warmOne(mirror, 'org/app:1'))['outcome'], 'done');
  await upstream.close();
  for (const { digest } of [sbom, signature]) await pullImage(mirror, 'org/app', digest);
  const list = await mirror.get(`/v2/org/app/manifests/${dashed(image.top.digest)}`);
  assert.deepEqual(list.body, indexOf(sbom.descriptor, signature.descriptor));
});

test('referrers whose pages lead in a circle are a failure of the image, and the work ends', async (t) => {
  const { upstream, mirror } = await setUp(t);
  const image = upstream.addImage('org/app', '1');
  upstream.addReferrers(image.top.digest, indexOf());
  upstream.script({ kind: 'referrers' }, (reply) => {
    reply.headers['link'] = `</v2/org/app/referrers/${image.top.digest}?again>; rel="next"`;
  });
  const { outcome, reason } = await warmOne(mirror, 'org/app:1');
  assert.deepEqual(
    [outcome, reason],
    ['failed', `docker.io: the list of referrers of ${image.top.digest} has more than 100 pages`],
  );
});

/** Adds an artifact to the repository of `org/app:1`. Nothing lists it yet. */
function addReferrer(upstream: ScriptedUpstream, seed: string) {
  const { blobs, top } = buildImage({ seed, layers: [500] });
  for (const blob of blobs) upstream.addContent(blob);
  upstream.addManifest('org/app', top.bytes, top.mediaType);
  const { digest } = top;
  return { digest, descriptor: { mediaType: OCI_MANIFEST, digest, size: top.bytes.length } };
}

function indexOf(...manifests: object[]): Buffer {
  return Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: OCI_INDEX, manifests }));
}

test('a sealed mirror says why it cannot warm an incomplete image; a complete one is a success', async (t) => {
  const { upstream, mirror: open } = await setUp(t);
  upstream.addImage('org/whole', 'edge', { seed: 'whole' });
  upstream.addImage('org/half', 'edge', { seed: 'half' });
  await warm(open, { images: ['org/whole:edge'] });
  await open.get('/v2/org/half/manifests/edge');
  await open.app.close();
  const before = upstream.totalConnections;
  const { directory, clock } = open;
  const sealed = await startMirror(t, {
    upstreams: { 'docker.io': upstream.url },
    directory,
    clock,
    sealed: true,
  });
  clock.advance(3_600_000);
  const images = ['org/whole:edge', 'org/half:edge', 'org/never:edge'];
  const events = outcomes(await warm(sealed, { images }));
  const byImage = new Map(events.map((event) => [event['image'], event]));
  assert.equal(byImage.get('docker.io/org/whole:edge')?.['outcome'], 'done');
  for (const name of ['org/half:edge', 'org/never:edge'])
    assert.match(
      String(byImage.get(`docker.io/${name}`)?.['reason']),
      /not cached, and this mirror is sealed/,
    );
  assert.equal(upstream.totalConnections, before);
});

test('a tag that upstream cannot confirm is a failure, although clients still get the stale image', async (t) => {
  const { upstream, mirror } = await setUp(t);
  upstream.addImage('org/app', 'edge');
  await warm(mirror, { images: ['org/app:edge'] });
  upstream.script({ kind: 'manifest' }, (reply) => Object.assign(reply, errorReply(503, 'UNAVAILABLE')));
  const failed = await warmOne(mirror, 'org/app:edge');
  assert.match(
    String(failed['reason']),
    /^the tag could not be confirmed: docker\.io: .*503.*; try again later$/,
  );
  await pullImage(mirror, 'org/app', 'edge');
});

test('an image that does not fit is a failure that says so', async (t) => {
  const { upstream, mirror } = await setUp(t, { cache: { maxSize: '3MiB', keepFree: '0B' } });
  upstream.addImage('org/app', '1', { layers: [2 * MIB, 2 * MIB + 1] });
  const failed = await warmOne(mirror, 'org/app:1');
  assert.match(
    String(failed['reason']),
    /could not be stored: raise cache\.maxSize, or free space on the disk$/,
  );
});

test('what was fetched of an image is not evicted before the image is complete', async (t) => {
  const { upstream, mirror } = await setUp(t, { cache: { maxSize: '16MiB', keepFree: '0B' } });
  const image = upstream.addImage('org/app', '1', { layers: [3 * MIB, 3 * MIB + 1] });
  const gate = Promise.withResolvers<void>();
  upstream.script(
    { kind: 'blob', path: new RegExp(digestOf(image.blobs[2] ?? Buffer.alloc(0))) },
    (reply) => {
      reply.stall = { after: 100, until: gate.promise };
    },
  );
  const warmed = warmOne(mirror, 'org/app:1');
  while ((await mirror.metric('millpond_store_objects')) < 3); // all but the layer that stalls
  for (let at = 0; (await mirror.metric('millpond_evictions_total')) === 0; at += 1) {
    const other = upstream.addImage('org/other', `t${at}`, { seed: `${at}`, layers: [3 * MIB] });
    mirror.clock.advance(10_000);
    await mirror.get(`/v2/org/other/manifests/t${at}`);
    for (const blob of other.blobs) await mirror.get(`/v2/org/other/blobs/${digestOf(blob)}`);
  }
  gate.resolve();
  assert.equal((await warmed)['outcome'], 'done');
  await upstream.close();
  await pullImage(mirror, 'org/app', '1');
});

test('layers that a registry may not distribute are not a failure', async (t) => {
  const { upstream, mirror } = await setUp(t);
  const config = Buffer.from('{}');
  const layer = noise(100, 'own');
  for (const bytes of [config, layer]) upstream.addContent(bytes);
  const described = (mediaType: string, bytes: Buffer) => ({
    mediaType,
    digest: digestOf(bytes),
    size: bytes.length,
  });
  const manifest = {
    schemaVersion: 2,
    mediaType: DOCKER_MANIFEST,
    config: described('application/vnd.docker.container.image.v1+json', config),
    layers: [
      described('application/vnd.docker.image.rootfs.foreign.diff.tar.gzip', noise(100, 'foreign')),
      described('application/vnd.docker.image.rootfs.diff.tar.gzip', layer),
    ],
  };
  upstream.addManifest('org/win', Buffer.from(JSON.stringify(manifest)), DOCKER_MANIFEST, '1');
  assert.equal((await warmOne(mirror, 'org/win:1'))['outcome'], 'done');
  assert.equal((await exportArchive(mirror, { images: ['org/win:1'] })).status, 200);
});

test('progress is reported in bytes for each image, up to its full size', async (t) => {
  const { upstream, mirror } = await setUp(t);
  const image = upstream.addImage('org/app', '1', { layers: [20 * MIB] });
  const events = (await warm(mirror, { images: ['org/app:1'] })).filter(({ event }) => event === 'progress');
  assert.ok(events.length >= 2);
  assert.deepEqual(events.at(-1), {
    event: 'progress',
    image: 'docker.io/org/app:1',
    bytes: bytesOf(image),
    totalBytes: bytesOf(image),
  });
});

test('a client that leaves stops the warming, but fetches that are running are completed', async (t) => {
  const { upstream, mirror } = await setUp(t);
  const image = upstream.addImage('org/app', '1', { layers: [MIB] });
  upstream.addImage('org/later', '1', { seed: 'later' });
  const gate = Promise.withResolvers<void>();
  upstream.script({ kind: 'blob' }, (reply) => {
    reply.stall = { after: 10, until: gate.promise };
  });
  const body = JSON.stringify({ images: ['org/app:1'], referrers: false });
  const reply = await request(`${mirror.operationsUrl}/api/warm`, { method: 'POST', body });
  await upstream.waitForBytes(20);
  reply.body.on('error', () => undefined).destroy();
  gate.resolve();
  await mirror.idle();
  const [config = Buffer.alloc(0)] = image.blobs;
  assert.match(
    String((await mirror.get(`/v2/org/app/blobs/${digestOf(config)}`)).headers['cache-status']),
    /hit/,
  );
});

test('a schedule warms at the start and at its interval, and the log has the outcome of each image', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  upstream.addImage('org/app', 'edge', { platforms: ['amd64', 'arm64'] });
  const mirror = await startMirror(t, {
    upstreams: { 'docker.io': upstream.url },
    warm: [{ images: ['org/app:edge', 'org/none:1'], every: '6h', platforms: ['linux/amd64'] }],
  });
  const rounds = async (count: number) => {
    const ended = () => mirror.log.filter(({ msg }) => msg === 'scheduled warming done');
    while (ended().length < count) await mirror.metric('millpond_store_objects');
    assert.deepEqual([ended().at(-1)?.['images'], ended().at(-1)?.['failed']], [1, 1]);
  };
  await rounds(1);
  assert.equal(upstream.count('blob', 'GET'), 2, 'one platform');
  const moved = upstream.addImage('org/app', 'edge', { platforms: ['amd64', 'arm64'], seed: 'moved' });
  mirror.clock.advance(6 * 3_600_000);
  await rounds(2);
  assert.equal(upstream.count('blob', 'GET'), 4);
  assert.equal(mirror.log.filter(({ msg }) => msg === 'warmed').at(-1)?.['digest'], moved.top.digest);
  assert.ok(mirror.log.some(({ msg, image }) => msg === 'not warmed' && image === 'docker.io/org/none:1'));
});

test('a schedule does not start again while its last run is still at work', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  upstream.addImage('org/app', 'edge');
  const gate = Promise.withResolvers<void>();
  upstream.script({ kind: 'blob' }, (reply) => {
    reply.stall = { after: 10, until: gate.promise };
  });
  const mirror = await startMirror(t, {
    upstreams: { 'docker.io': upstream.url },
    warm: [{ images: ['org/app:edge'], every: '6h' }],
  });
  const ended = () => mirror.log.filter(({ msg }) => msg === 'scheduled warming done').length;
  await upstream.waitForBytes(10);
  for (let round = 0; round < 3; round += 1) mirror.clock.advance(6 * 3_600_000);
  gate.resolve();
  while (ended() === 0) await mirror.metric('millpond_store_objects');
  mirror.clock.advance(6 * 3_600_000);
  while (ended() === 1) await mirror.metric('millpond_store_objects');
  const heads = upstream.requests.filter(({ method, path }) => method === 'HEAD' && path.endsWith('/edge'));
  assert.equal(heads.length, 1, 'two runs: the first fetched the manifest, the second confirmed it');
  assert.equal(ended(), 2);
});

test('a schedule does nothing while the mirror is sealed', async (t) => {
  const mirror = await startMirror(t, {
    upstreams: { 'docker.io': 'http://127.0.0.1:9' },
    warm: [{ images: ['org/app:edge'], every: '6h' }],
    sealed: true,
  });
  const failures = () => mirror.log.filter(({ msg }) => msg === 'not warmed').length;
  mirror.clock.advance(6 * 3_600_000);
  const [event] = outcomes(await warm(mirror, { images: ['org/app:edge'] }));
  assert.equal(event?.['outcome'], 'failed');
  assert.equal(failures(), 1, 'only the request was tried');
});
