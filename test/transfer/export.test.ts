import assert from 'node:assert/strict';
import { chmod, open } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { request } from 'undici';
import { type Digest, digestHex, digestOf } from '../../src/oci/digest.ts';
import { formatImageName } from '../../src/oci/image-name.ts';
import { OCI_INDEX } from '../../src/oci/manifest.ts';
import { cleanUp } from '../helpers/cleanup.ts';
import { buildImage, type TestImage } from '../helpers/images.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { startMirror, type TestMirror } from '../helpers/start-mirror.ts';
import {
  archiveOf,
  contentOf,
  exportArchive,
  importArchive,
  outcomes,
  pullImage,
  type ReadArchive,
  readArchive,
} from '../helpers/transfers.ts';

const NAME = 'docker.io/library/alpine:3.20';
const MIB = 1024 * 1024;

async function setUp(t: TestContext, cache: Record<string, unknown> = {}) {
  const upstream = await ScriptedUpstream.start(t);
  const upstreams = { 'docker.io': { url: upstream.url, aliases: ['hub.test'] } };
  const mirror = await startMirror(t, { upstreams, cache });
  return { upstream, mirror };
}

function sealedMirror(t: TestContext): Promise<TestMirror> {
  return startMirror(t, { upstreams: { 'docker.io': 'http://127.0.0.1:9' }, sealed: true });
}

function namesIn({ images }: ReadArchive): string[] {
  return images.map(({ name }) => (name === undefined ? '' : formatImageName(name)));
}

function digestsOf(...images: TestImage[]): Digest[] {
  return contentOf(...images)
    .map((bytes) => digestOf(bytes))
    .toSorted();
}

test('what is exported from one mirror and imported into another is the same, byte for byte, and so is its export', async (t) => {
  const { upstream, mirror } = await setUp(t);
  const image = upstream.addImage('library/alpine', '3.20', {
    platforms: ['amd64', 'arm64'],
    layers: [MIB, 70],
  });
  const other = upstream.addImage('org/app', 'v1', { seed: 'other' });
  const pulled = await pullImage(mirror, 'library/alpine', '3.20');
  await pullImage(mirror, 'org/app', other.top.digest);
  const byDigest = `docker.io/org/app@${other.top.digest}`;
  upstream.requests.length = 0;
  const { tar } = await exportArchive(mirror, { images: ['alpine:3.20', byDigest, NAME] });
  const archive = await readArchive(tar);
  assert.deepEqual(namesIn(archive), [NAME, byDigest]);
  assert.deepEqual([...archive.blobs.keys()].toSorted(), digestsOf(image, other));

  const sealed = await sealedMirror(t);
  assert.equal((await importArchive(sealed, tar)).at(-1)?.['failed'], 0);
  assert.deepEqual(await pullImage(sealed, 'library/alpine', '3.20'), pulled);
  await pullImage(sealed, 'org/app', other.top.digest);
  const again = await exportArchive(sealed, { images: [byDigest, NAME] });
  assert.ok(again.tar.equals(tar));
  assert.deepEqual(upstream.requests, [], 'upstream was not asked');
});

test('an export works by GET too, and images carry the name of the upstream, not the alias that was used', async (t) => {
  const { upstream, mirror } = await setUp(t);
  const image = upstream.addImage('org/app', 'latest');
  await pullImage(mirror, 'org/app', 'latest');
  const reply = await request(`${mirror.operationsUrl}/api/export?image=hub.test/org/app`);
  assert.equal(reply.headers['content-type'], 'application/x-tar');
  const total = contentOf(image).reduce((sum, { length }) => sum + length, 0);
  assert.equal(reply.headers['millpond-content-bytes'], String(total));
  const archive = await readArchive(Buffer.from(await reply.body.arrayBuffer()));
  assert.deepEqual(namesIn(archive), ['docker.io/org/app:latest']);
});

test('an export of chosen platforms contains the unchanged index, and nothing of the other platforms', async (t) => {
  const { upstream, mirror } = await setUp(t);
  const image = upstream.addImage('library/alpine', '3.20', { platforms: ['amd64', 'arm64', 's390x'] });
  const [amd64] = image.manifests;
  assert.ok(amd64 !== undefined);
  await pullImage(mirror, 'library/alpine', amd64.digest);
  await mirror.get('/v2/library/alpine/manifests/3.20');
  const { tar } = await exportArchive(mirror, { images: [NAME], platforms: ['linux/amd64'] });
  const { blobs } = await readArchive(tar);
  const expected = [image.top.bytes, amd64.bytes, ...image.blobs.slice(0, 2)].map((bytes) => digestOf(bytes));
  assert.deepEqual([...blobs.keys()].toSorted(), expected.toSorted());
  assert.deepEqual(blobs.get(image.top.digest), image.top.bytes);
  const sealed = await sealedMirror(t);
  const [event] = outcomes(await importArchive(sealed, tar));
  assert.deepEqual(event?.['platforms'], ['linux/amd64']);
  const absent = await exportArchive(mirror, { images: [NAME], platforms: ['linux/riscv64'] });
  assert.deepEqual(
    [absent.status, absent.error],
    [404, `${NAME} does not exist for linux/riscv64: choose from linux/amd64, linux/arm64, linux/s390x`],
  );
});

test('an export of incomplete images is refused before the first byte, with a reason for each image', async (t) => {
  const { upstream, mirror } = await setUp(t);
  const image = upstream.addImage('library/alpine', '3.20', { platforms: ['amd64', 'arm64'] });
  const single = upstream.addImage('org/app', '1', { seed: 's', layers: [10, 20] });
  upstream.addImage('org/headed', '1', { seed: 'h' });
  await mirror.get('/v2/library/alpine/manifests/3.20');
  await mirror.get('/v2/org/app/manifests/1');
  await mirror.head('/v2/org/headed/manifests/1');
  const names = [NAME, 'org/app:1', 'org/headed:1', 'org/never:1', 'elsewhere.test/a:1'];
  const { status, error } = await exportArchive(mirror, { images: names });
  assert.equal(status, 404);
  const [arm, amd] = [...image.manifests].toReversed().map(({ digest }) => digest);
  const advice = 'fetch it with millpond warm, or choose with --platform';
  assert.deepEqual(String(error).split('\n'), [
    `${NAME} is not complete in the cache: it lacks the manifest ${amd} of linux/amd64, the manifest ${arm} of linux/arm64; ${advice}`,
    `docker.io/org/app:1 is not complete in the cache: it lacks ${single.blobs.map((blob) => `the blob ${digestOf(blob)}`).join(', ')}; ${advice}`,
    'docker.io/org/headed:1 is not in the cache: fetch it with millpond warm',
    'docker.io/org/never:1 is not in the cache: fetch it with millpond warm',
    'elsewhere.test, the registry of elsewhere.test/a:1, is not a configured upstream: add it under upstreams: in the configuration',
  ]);
});

for (const [body, message] of [
  ['{', 'the body is not JSON'],
  ['{"images":[]}', 'images: name at least one image'],
  ['{"images":["a"],"platforms":["linux"]}', 'platforms.0: not a platform: write it like linux/amd64'],
  ['{"images":["A"]}', '"A" is not an image name: write it like docker.io/library/alpine:3.20'],
] as const) {
  test(`an export request of ${body} gets 400 and the reason`, async (t) => {
    const { mirror } = await setUp(t);
    const reply = await request(`${mirror.operationsUrl}/api/export`, { method: 'POST', body });
    assert.deepEqual([reply.statusCode, await reply.body.json()], [400, { error: message }]);
  });
}

test('an image of another repository is not exported under the name of this one', async (t) => {
  const { upstream, mirror } = await setUp(t);
  const image = upstream.addImage('org/private', '1');
  await pullImage(mirror, 'org/private', '1');
  const { status } = await exportArchive(mirror, { images: [`org/app@${image.top.digest}`] });
  assert.equal(status, 404);
});

test('signatures and other cached referrers are exported with their image, including those of its platforms', async (t) => {
  const { upstream, mirror } = await setUp(t);
  const image = upstream.addImage('org/app', '1', { platforms: ['amd64', 'arm64'] });
  const [amd64] = image.manifests;
  assert.ok(amd64 !== undefined);
  const sbom = buildImage({ seed: 'sbom' });
  const index = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: OCI_INDEX,
      manifests: [{ mediaType: sbom.top.mediaType, digest: sbom.top.digest, size: sbom.top.bytes.length }],
    }),
  );
  const dashed = (digest: string) => digest.replace(':', '-');
  upstream.addImage('org/app', `${dashed(image.top.digest)}.sig`, { seed: 'signature' });
  upstream.addImage('org/app', `${dashed(amd64.digest)}.att`, { seed: 'attestation' });
  upstream.addImage('org/app', dashed(amd64.digest), { seed: 'incomplete' });
  for (const blob of sbom.blobs) upstream.addContent(blob);
  upstream.addManifest('org/app', sbom.top.bytes, sbom.top.mediaType);
  upstream.addManifest('org/app', index, OCI_INDEX, dashed(image.top.digest));
  const whole = [
    '1',
    `${dashed(image.top.digest)}.sig`,
    `${dashed(amd64.digest)}.att`,
    dashed(image.top.digest),
  ];
  for (const tag of whole) await pullImage(mirror, 'org/app', tag);
  await mirror.get(`/v2/org/app/manifests/${dashed(amd64.digest)}`);
  const { tar } = await exportArchive(mirror, { images: ['org/app:1'], platforms: ['linux/amd64'] });
  const archive = await readArchive(tar);
  assert.deepEqual(namesIn(archive).toSorted(), whole.map((tag) => `docker.io/org/app:${tag}`).toSorted());
  const sealed = await sealedMirror(t);
  await importArchive(sealed, tar);
  for (const tag of whole.slice(1)) await pullImage(sealed, 'org/app', tag);
});

test('of an index of referrers, those that are complete in the cache are exported', async (t) => {
  const { upstream, mirror } = await setUp(t);
  const image = upstream.addImage('org/app', '1');
  const [sbom, missing] = [buildImage({ seed: 'sbom' }), buildImage({ seed: 'missing' })];
  const manifests = [sbom, missing].map(({ top }) => ({
    mediaType: top.mediaType,
    digest: top.digest,
    size: top.bytes.length,
  }));
  const index = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: OCI_INDEX, manifests }));
  const fallback = image.top.digest.replace(':', '-');
  upstream.addManifest('org/app', index, OCI_INDEX, fallback);
  for (const blob of sbom.blobs) upstream.addContent(blob);
  upstream.addManifest('org/app', sbom.top.bytes, sbom.top.mediaType);
  for (const reference of ['1', sbom.top.digest]) await pullImage(mirror, 'org/app', reference);
  await mirror.get(`/v2/org/app/manifests/${fallback}`);
  const { blobs } = await readArchive((await exportArchive(mirror, { images: ['org/app:1'] })).tar);
  assert.deepEqual([...blobs.keys()].toSorted(), [...digestsOf(image, sbom), digestOf(index)].toSorted());
});

test('an index that lists one manifest twice, at each of forty levels, is exported: each manifest is read once', async (t) => {
  const { upstream, mirror } = await setUp(t);
  const image = upstream.addImage('org/app', '1');
  let { digest, mediaType, bytes } = image.top;
  const indexes: Digest[] = [];
  for (let level = 0; level < 40; level += 1) {
    const listed = (architecture: string) => ({
      mediaType,
      digest,
      size: bytes.length,
      platform: { os: 'linux', architecture },
    });
    const index = { schemaVersion: 2, mediaType: OCI_INDEX, manifests: ['amd64', 'arm64'].map(listed) };
    bytes = Buffer.from(JSON.stringify(index));
    [digest, mediaType] = [digestOf(bytes), OCI_INDEX];
    upstream.addManifest('org/app', bytes, OCI_INDEX);
    indexes.push(digest);
  }
  await pullImage(mirror, 'org/app', '1');
  for (const index of indexes) await mirror.get(`/v2/org/app/manifests/${index}`);
  const { status, tar } = await exportArchive(mirror, { images: [`org/app@${digest}`] });
  assert.equal(status, 200);
  assert.deepEqual(
    [...(await readArchive(tar)).blobs.keys()].toSorted(),
    [...digestsOf(image), ...indexes].toSorted(),
  );
});

test('an increment leaves out what an earlier export contains, and both together are the whole image', async (t) => {
  const { upstream, mirror } = await setUp(t);
  upstream.addImage('org/app', '1', { layers: [MIB, 10], seed: 'base' });
  await pullImage(mirror, 'org/app', '1');
  const first = await readArchive((await exportArchive(mirror, { images: ['org/app:1'] })).tar);
  const next = upstream.addImage('org/app', '2', { layers: [MIB, 20], seed: 'base' });
  await pullImage(mirror, 'org/app', '2');
  const since = [...first.blobs.keys()];
  const increment = await exportArchive(mirror, { images: ['org/app:2'], since });
  const { blobs } = await readArchive(increment.tar);
  const added = digestsOf(next).filter((digest) => !first.blobs.has(digest));
  assert.deepEqual([...blobs.keys()].toSorted(), added);
  assert.ok(increment.tar.length < MIB / 10);
  const sealed = await sealedMirror(t);
  const alone = outcomes(await importArchive(sealed, increment.tar));
  assert.equal(alone[0]?.['outcome'], 'failed');
  assert.match(
    String(alone[0]?.['reason']),
    /: import the archives named by --since first, or export it again without --since$/,
  );
  await importArchive(sealed, (await exportArchive(mirror, { images: ['org/app:1'] })).tar);
  await importArchive(sealed, increment.tar);
  await pullImage(sealed, 'org/app', '2');
});

test('an image is not evicted while it is exported, and can be evicted afterwards', async (t) => {
  const { upstream, mirror } = await setUp(t, { maxSize: '40MiB', keepFree: '0B' });
  const image = upstream.addImage('org/app', '1', { layers: [8 * MIB, 8 * MIB + 1] });
  const others = ['a', 'b', 'c', 'd', 'e'];
  for (const seed of others) upstream.addImage('org/other', seed, { layers: [7 * MIB], seed });
  const pullOthers = async () => {
    for (const tag of others) {
      mirror.clock.advance(10_000);
      await pullImage(mirror, 'org/other', tag);
    }
  };
  await pullImage(mirror, 'org/app', '1');
  const reply = await request(`${mirror.operationsUrl}/api/export?image=org/app:1`);
  assert.equal(reply.statusCode, 200);
  await pullOthers();
  while ((await mirror.metric('millpond_evictions_total')) === 0); // in the background
  const archive = await readArchive(Buffer.from(await reply.body.arrayBuffer()));
  assert.deepEqual([...archive.blobs.keys()].toSorted(), digestsOf(image));
  await pullOthers();
  while ((await exportArchive(mirror, { images: ['org/app:1'] })).status !== 404);
});

test('an export of damaged content is cut off, and never looks complete', async (t) => {
  const { upstream, mirror } = await setUp(t);
  const image = upstream.addImage('org/app', '1', { layers: [3 * MIB] });
  await pullImage(mirror, 'org/app', '1');
  const hex = digestHex(digestOf(image.blobs[1] ?? Buffer.alloc(0)));
  const path = join(mirror.directory, 'data/blobs/sha256', hex.slice(0, 2), hex);
  await chmod(path, 0o644);
  const file = await open(path, 'r+');
  await file.write(Buffer.from([1]), 0, 1, 2 * MIB);
  await file.close();
  const reply = await request(`${mirror.operationsUrl}/api/export?image=org/app:1`);
  assert.equal(reply.statusCode, 200);
  await assert.rejects(reply.body.arrayBuffer());
  assert.ok(mirror.log.some(({ msg }) => msg === 'export broken off'));
});

test('a client that stops reading an export is disconnected after clientTimeout', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const mirror = await startMirror(t, {
    upstreams: { 'docker.io': upstream.url },
    server: { clientTimeout: '1s' },
  });
  upstream.addImage('org/app', '1', { layers: [40 * MIB] });
  await pullImage(mirror, 'org/app', '1');
  const { hostname, port } = new URL(mirror.operationsUrl);
  const socket = connect(Number(port), hostname).on('error', () => undefined);
  cleanUp(t, () => socket.destroy());
  socket.write('GET /api/export?image=org/app:1 HTTP/1.1\r\nHost: localhost\r\n\r\n');
  const isCut = () => mirror.log.some(({ msg }) => msg === 'export cut: its client has stopped reading');
  while (!isCut()) await mirror.metric('millpond_store_objects');
  const { status } = await exportArchive(mirror, { images: ['org/app:1'] });
  assert.equal(status, 200, 'a client that reads is served');
});

test('an image that was imported can be exported again', async (t) => {
  const sealed = await sealedMirror(t);
  const image = buildImage({});
  await importArchive(sealed, await archiveOf({ [NAME]: image }));
  const { tar } = await exportArchive(sealed, { images: [NAME] });
  assert.deepEqual([...(await readArchive(tar)).blobs.keys()].toSorted(), digestsOf(image));
});
