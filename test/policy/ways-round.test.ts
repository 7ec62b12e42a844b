/** There is no way round: what a policy refuses is not to be had by another name, route or moment. */
import assert from 'node:assert/strict';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { request } from 'undici';
import { type Digest, digestOf } from '../../src/oci/digest.ts';
import { basic, writeHtpasswd } from '../helpers/access-files.ts';
import { FakeClock } from '../helpers/fake-clock.ts';
import type { TestImage } from '../helpers/images.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { ecKeys, pemOf } from '../helpers/signatures/cosign-signatures.ts';
import { signUnderTag } from '../helpers/signatures/upstream-signatures.ts';
import { type MirrorOptions, startMirror, type TestMirror } from '../helpers/start-mirror.ts';
import { tempDir } from '../helpers/temp-dir.ts';
import { archiveOf, exportArchive, importArchive, outcomes, pullImage } from '../helpers/transfers.ts';

const APP = '/v2/org/app';
const keys = ecKeys();

async function setUp(t: TestContext) {
  const directory = await tempDir(t);
  const key = join(directory, 'cosign.pub');
  await writeFile(key, pemOf(keys.publicKey));
  const upstream = await ScriptedUpstream.start(t);
  const clock = new FakeClock();
  clock.impatient = false;
  const policies = [
    { name: 'signed-by-us', match: ['ghcr.io/org/*'], signature: { cosign: { keys: [key] } } },
  ];
  const start = (more: Partial<MirrorOptions> = {}) =>
    startMirror(t, { upstreams: { 'ghcr.io': upstream.url }, ...{ directory, clock, policies }, ...more });
  return { directory, upstream, clock, start };
}

/** Fetches an image with its signatures, as whoever fills an air-gapped mirror does. */
async function warm(mirror: TestMirror, image: string): Promise<void> {
  const body = JSON.stringify({ images: [image] });
  const reply = await request(`${mirror.operationsUrl}/api/warm`, { method: 'POST', body });
  assert.match(await reply.body.text(), /"outcome":"done"/);
}

function layerOf({ blobs }: TestImage): Digest {
  return digestOf(blobs[1] ?? Buffer.alloc(0));
}

test('not by a fill that runs for another repository', async (t) => {
  const { upstream, start } = await setUp(t);
  const image = upstream.addImage('team/free', '1', { layers: [300_000] });
  upstream.addManifest('org/app', image.top.bytes, image.top.mediaType, '1');
  const mirror = await start();
  assert.equal((await mirror.get('/v2/team/free/manifests/1')).status, 200);
  const gate = Promise.withResolvers<void>();
  upstream.script({ kind: 'blob', method: 'GET' }, (reply) => {
    reply.stall = { after: 100_000, until: gate.promise };
  });
  const running = mirror.get(`/v2/team/free/blobs/${layerOf(image)}`);
  while (upstream.count('blob', 'GET') === 0) await setImmediate();
  assert.equal((await mirror.get(`${APP}/manifests/1`)).status, 403);
  assert.equal((await mirror.get(`${APP}/blobs/${layerOf(image)}`)).status, 403);
  gate.resolve();
  assert.equal((await running).status, 200);
  assert.equal((await mirror.get(`${APP}/blobs/${layerOf(image)}`)).status, 403);
});

test('not by the hand-over to a front server', async (t) => {
  const { upstream, start } = await setUp(t);
  const image = upstream.addImage('org/app', '1', { layers: [5000] });
  const server = { accelRedirect: '/sent/', trustedProxies: ['127.0.0.1'] };
  const plain = await start({ policies: [], server });
  const path = `${APP}/blobs/${layerOf(image)}`;
  await pullImage(plain, 'org/app', '1');
  await plain.get(path); // read whole and checked: from now on it is handed over
  const front = { 'x-forwarded-for': '192.0.2.7', 'x-sendfile-type': 'X-Accel-Redirect' };
  assert.ok((await plain.get(path, front)).headers['x-accel-redirect'] !== undefined);
  await plain.app.close();
  const mirror = await start({ server });
  const reply = await mirror.get(path, front);
  assert.equal(reply.status, 403);
  assert.equal(reply.headers['x-accel-redirect'], undefined);
});

test('not by a right for what is cached only', async (t) => {
  const { directory, upstream, start } = await setUp(t);
  const image = upstream.addImage('org/app', '1', { layers: [5000] });
  const access = {
    users: { htpasswd: await writeHtpasswd(directory, { anna: 'her password' }) },
    rules: [{ who: 'user:anna', pull: 'ghcr.io/org/*', fetch: false }],
  };
  const plain = await start({ policies: [] });
  await pullImage(plain, 'org/app', '1');
  await plain.app.close();
  const mirror = await start({ access });
  const headers = { authorization: basic('anna', 'her password') };
  for (const path of [
    `${APP}/manifests/1`,
    `${APP}/manifests/${image.top.digest}`,
    `${APP}/blobs/${layerOf(image)}`,
  ])
    assert.equal((await mirror.get(path, headers)).status, 403, path);
});

test('not after the loss of the index', async (t) => {
  const { directory, upstream, start } = await setUp(t);
  const image = upstream.addImage('org/app', '1', { layers: [5000], platforms: ['amd64', 'arm64'] });
  const plain = await start({ policies: [] });
  await pullImage(plain, 'org/app', '1');
  await plain.app.close();
  await rm(join(directory, 'data/index'), { recursive: true });
  const mirror = await start();
  const references = ['1', image.top.digest, ...image.manifests.map(({ digest }) => digest)];
  for (const reference of references)
    assert.equal((await mirror.get(`${APP}/manifests/${reference}`)).status, 403, reference);
  assert.equal((await mirror.get(`${APP}/blobs/${layerOf(image)}`)).status, 403);
});

test('not in a sealed mirror, and what is signed comes in there without any network', async (t) => {
  const { upstream, start } = await setUp(t);
  const signed = upstream.addImage('org/app', '1', { layers: [5000] });
  const plain = upstream.addImage('org/app', '2', { layers: [5000], seed: 'plain' });
  signUnderTag(upstream, signed.top.digest, { by: keys });
  const first = await start({ policies: [] });
  for (const tag of ['1', '2', `${signed.top.digest.replace(':', '-')}.sig`])
    await pullImage(first, 'org/app', tag);
  await first.app.close();
  const mirror = await start({ sealed: true });
  upstream.requests.length = 0;
  await pullImage(mirror, 'org/app', '1');
  assert.equal((await mirror.get(`${APP}/manifests/2`)).status, 403);
  assert.equal((await mirror.get(`${APP}/blobs/${layerOf(plain)}`)).status, 403);
  assert.deepEqual(upstream.requests, []);
});

test('not by an export, which carries the signature of what it may export', async (t) => {
  const { upstream, start } = await setUp(t);
  const signed = upstream.addImage('org/app', '1', { layers: [5000] });
  upstream.addImage('org/app', '2', { layers: [5000], seed: 'plain' });
  signUnderTag(upstream, signed.top.digest, { by: keys });
  const first = await start({ policies: [] });
  await pullImage(first, 'org/app', '2');
  await first.app.close();
  const mirror = await start();
  await warm(mirror, 'ghcr.io/org/app:1');
  const { tar } = await exportArchive(mirror, { images: ['ghcr.io/org/app:1'] });
  assert.ok(tar.includes(`${signed.top.digest.replace(':', '-')}.sig`), 'the signature goes along');
  const refused = await exportArchive(mirror, { images: ['ghcr.io/org/app:2'] });
  assert.equal(refused.status, 403);
  assert.match(String(refused.error), /signed-by-us/);
});

test('not by an import: with verify it fails at once, without it the image is refused when it is asked for', async (t) => {
  const { upstream, start } = await setUp(t);
  const signed = upstream.addImage('org/app', '1', { layers: [5000] });
  const plain = upstream.addImage('org/app', '2', { layers: [5000], seed: 'plain' });
  signUnderTag(upstream, signed.top.digest, { by: keys });
  const mirror = await start();
  await warm(mirror, 'ghcr.io/org/app:1');
  const { tar } = await exportArchive(mirror, { images: ['ghcr.io/org/app:1'] });
  await mirror.app.close();
  const sealed = await start({ sealed: true, directory: await tempDir(t) });
  for (const event of outcomes(await importArchive(sealed, tar, '?verify=true')))
    if (event.event === 'image') assert.equal(event['outcome'], 'done', JSON.stringify(event));
  await pullImage(sealed, 'org/app', '1');
  const archive = await archiveOf({ 'ghcr.io/org/app:2': plain });
  const [failed] = outcomes(await importArchive(sealed, archive, '?verify=true'));
  assert.equal(failed?.['outcome'], 'failed');
  assert.match(String(failed?.['reason']), /signed-by-us does not let this in/);
  const [done] = outcomes(await importArchive(sealed, archive));
  assert.equal(done?.['outcome'], 'done');
  assert.equal((await sealed.get(`${APP}/manifests/2`)).status, 403);
});
