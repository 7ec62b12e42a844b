/** Signatures as clients meet them: what is signed comes in, whatever way it is asked for. */
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { type Digest, digestOf } from '../../src/oci/digest.ts';
import { OCI_INDEX, OCI_MANIFEST } from '../../src/oci/manifest.ts';
import { FakeClock } from '../helpers/fake-clock.ts';
import { noise, type TestImage } from '../helpers/images.ts';
import { refused, served } from '../helpers/policies.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { ecKeys, pemOf, simpleSigning, simpleSigningLayer } from '../helpers/signatures/cosign-signatures.ts';
import type { TestLayer } from '../helpers/signatures/test-evidence.ts';
import { addArtifact, signByReferrer, signUnderTag } from '../helpers/signatures/upstream-signatures.ts';
import { type MirrorOptions, startMirror, type TestReply } from '../helpers/start-mirror.ts';
import { tarOf } from '../helpers/tars.ts';
import { tempDir } from '../helpers/temp-dir.ts';
import { pullImage } from '../helpers/transfers.ts';

const APP = '/v2/org/app';
const keys = ecKeys();

async function setUp(t: TestContext) {
  const directory = await tempDir(t);
  const key = join(directory, 'cosign.pub');
  await writeFile(key, pemOf(keys.publicKey));
  const upstream = await ScriptedUpstream.start(t);
  const clock = new FakeClock();
  clock.impatient = false;
  const policy = { name: 'signed-by-us', match: ['ghcr.io/org/*'], signature: { cosign: { keys: [key] } } };
  const start = (more: Partial<MirrorOptions> = {}) =>
    startMirror(t, {
      upstreams: { 'ghcr.io': { url: upstream.url } },
      ...{ directory, clock, policies: [policy] },
      ...more,
    });
  return { directory, key, upstream, clock, policy, start };
}

function sign(upstream: ScriptedUpstream, digest: Digest, by = keys, repository = 'org/app'): void {
  signUnderTag(upstream, digest, { by, repository });
}

function signByBundle(upstream: ScriptedUpstream, digest: Digest): void {
  signByReferrer(upstream, digest, { by: keys });
}

function layersOf({ blobs }: TestImage): Digest[] {
  return blobs.filter((_, at) => at % 2 === 1).map((bytes) => digestOf(bytes));
}

for (const [form, signIt] of [
  ['under a tag', sign],
  ['as a referrer', signByBundle],
] as const) {
  test(`what is signed ${form} comes in by every way, and what is not is refused with what to do`, async (t) => {
    const { upstream, start } = await setUp(t);
    const signed = upstream.addImage('org/app', '1', { layers: [5000], seed: 'signed' });
    const plain = upstream.addImage('org/app', '2', { layers: [5000], seed: 'plain' });
    signIt(upstream, signed.top.digest);
    const mirror = await start();
    await pullImage(mirror, 'org/app', '1');
    await served(mirror, `${APP}/manifests/${signed.top.digest}`);
    const text = await refused(mirror, `${APP}/manifests/2`);
    assert.match(text, /signed-by-us does not let this in: it has no signature; sign sha256:/);
    await refused(mirror, `${APP}/manifests/${plain.top.digest}`);
    for (const layer of layersOf(plain)) await refused(mirror, `${APP}/blobs/${layer}`);
    await refused(mirror, `${APP}/blobs/${plain.top.digest}`);
  });
}

test('fifty clients wait for one evaluation', async (t) => {
  const { upstream, start } = await setUp(t);
  const image = upstream.addImage('org/app', '1');
  sign(upstream, image.top.digest);
  const mirror = await start();
  const replies = await Promise.all(Array.from({ length: 50 }, () => mirror.get(`${APP}/manifests/1`)));
  assert.ok(replies.every(({ status }) => status === 200));
  const signatures = upstream.requests.filter(({ path }) => path.includes('.sig'));
  assert.ok(signatures.length <= 2, `${signatures.length} requests for the signature`);
  assert.equal(await mirror.metric('millpond_policy_decisions_total', { decision: 'allow' }), 1);
});

test('signed ten seconds after the first, refused pull: it comes in 30 seconds later, without a restart', async (t) => {
  const { upstream, clock, start } = await setUp(t);
  const image = upstream.addImage('org/app', '1');
  const mirror = await start();
  await refused(mirror, `${APP}/manifests/1`);
  clock.advance(10_000);
  sign(upstream, image.top.digest);
  await refused(mirror, `${APP}/manifests/1`);
  clock.advance(20_000);
  await served(mirror, `${APP}/manifests/1`);
});

test('a signature is looked for past what is remembered: a missing tag for ten minutes, and one signature for five', async (t) => {
  const { upstream, clock, start } = await setUp(t);
  const image = upstream.addImage('org/app', '1');
  const mirror = await start({
    upstreams: { 'ghcr.io': { url: upstream.url, freshness: { negativeTtl: '10m' } } },
  });
  const tag = `${image.top.digest.replace(':', '-')}.sig`;
  assert.equal((await mirror.get(`${APP}/manifests/${tag}`)).status, 404);
  await refused(mirror, `${APP}/manifests/1`);
  sign(upstream, image.top.digest, ecKeys());
  clock.advance(31_000);
  assert.match(await refused(mirror, `${APP}/manifests/1`), /signature/);
  assert.equal((await mirror.get(`${APP}/manifests/${tag}`)).status, 200);
  sign(upstream, image.top.digest);
  clock.advance(31_000);
  await served(mirror, `${APP}/manifests/1`);
});

test('what was let in stays so when upstream loses the signature, or is down, or after a restart', async (t) => {
  const { upstream, clock, start } = await setUp(t);
  const image = upstream.addImage('org/app', '1', { layers: [5000] });
  sign(upstream, image.top.digest);
  const first = await start();
  await pullImage(first, 'org/app', '1');
  await first.app.close();
  upstream.removeTag('org/app', `${image.top.digest.replace(':', '-')}.sig`);
  upstream.script({}, (reply) => {
    reply.drop = true;
  });
  clock.advance(60_000);
  const second = await start();
  upstream.requests.length = 0;
  await served(second, `${APP}/manifests/1`);
  for (const layer of layersOf(image)) await served(second, `${APP}/blobs/${layer}`);
  assert.deepEqual(upstream.requests, []);
});

test('another key in the file counts at once: what the old one had signed is judged anew', async (t) => {
  const { upstream, clock, key, start } = await setUp(t);
  const image = upstream.addImage('org/app', '1', { layers: [5000] });
  sign(upstream, image.top.digest);
  const mirror = await start();
  await pullImage(mirror, 'org/app', '1');
  await writeFile(key, pemOf(ecKeys().publicKey));
  while (!mirror.log.some(({ msg }) => msg === 'changed files are in use')) {
    clock.advance(1_000);
    await setImmediate();
  }
  clock.advance(1_000);
  await setImmediate();
  const text = await refused(mirror, `${APP}/manifests/1`);
  assert.match(text, /signed-by-us does not let this in/);
  for (const layer of layersOf(image)) await refused(mirror, `${APP}/blobs/${layer}`);
});

test('a signature of an index covers its platforms, and that of one platform covers neither the index nor others', async (t) => {
  const { upstream, start } = await setUp(t);
  const options = { layers: [3000], platforms: ['amd64', 'arm64'] };
  const covered = upstream.addImage('org/app', '1', { ...options, seed: 'covered' });
  sign(upstream, covered.top.digest);
  const single = upstream.addImage('org/app', '2', { ...options, seed: 'single' });
  const [amd64, arm64] = single.manifests.map(({ digest }) => digest);
  assert.ok(amd64 !== undefined);
  sign(upstream, amd64);
  const mirror = await start();
  await pullImage(mirror, 'org/app', '1');
  await refused(mirror, `${APP}/manifests/2`);
  await served(mirror, `${APP}/manifests/${amd64}`);
  await refused(mirror, `${APP}/manifests/${arm64}`);
});

test('an index covers its platforms after a restart, but not in another repository', async (t) => {
  const { upstream, start } = await setUp(t);
  const image = upstream.addImage('org/app', '1', { layers: [3000], platforms: ['amd64', 'arm64'] });
  sign(upstream, image.top.digest);
  const [amd64, arm64] = image.manifests;
  assert.ok(amd64 !== undefined && arm64 !== undefined);
  upstream.addManifest('org/copy', amd64.bytes, amd64.mediaType, '1');
  const first = await start();
  await served(first, `${APP}/manifests/1`);
  await first.app.close();
  const second = await start();
  await served(second, `${APP}/manifests/${arm64.digest}`);
  await refused(second, '/v2/org/copy/manifests/1');
});

test('a client that has the platform manifest from another repository gets its layers, if the index is let in here', async (t) => {
  const { upstream, start } = await setUp(t);
  const image = upstream.addImage('org/app', '1', { layers: [3000], platforms: ['amd64', 'arm64'] });
  sign(upstream, image.top.digest);
  for (const { digest, bytes, mediaType } of [image.top, ...image.manifests]) {
    upstream.addManifest('org/copy', bytes, mediaType, digest === image.top.digest ? '1' : undefined);
    upstream.addManifest('org/plain', bytes, mediaType, digest === image.top.digest ? '1' : undefined);
  }
  sign(upstream, image.top.digest, keys, 'org/copy');
  const mirror = await start();
  await pullImage(mirror, 'org/app', '1');
  const [layer] = layersOf(image);
  await refused(mirror, `/v2/org/copy/blobs/${layer}`);
  await served(mirror, '/v2/org/copy/manifests/1');
  await served(mirror, `/v2/org/copy/blobs/${layer}`);
  await refused(mirror, '/v2/org/plain/manifests/1');
  await refused(mirror, `/v2/org/plain/blobs/${layer}`);
});

test('signatures, and lists of them, come in although they are not signed themselves', async (t) => {
  const { upstream, start } = await setUp(t);
  const image = upstream.addImage('org/app', '1');
  sign(upstream, image.top.digest);
  signByBundle(upstream, image.top.digest);
  const mirror = await start();
  const signature = await served(mirror, `${APP}/manifests/${image.top.digest.replace(':', '-')}.sig`);
  const { layers } = JSON.parse(signature.body.toString()) as { layers: { digest: Digest }[] };
  for (const { digest } of layers) await served(mirror, `${APP}/blobs/${digest}`);
  const referrers = await served(mirror, `${APP}/referrers/${image.top.digest}`);
  const { manifests } = JSON.parse(referrers.body.toString()) as { manifests: { digest: Digest }[] };
  for (const { digest } of manifests) await served(mirror, `${APP}/manifests/${digest}`);
  const listed = manifests.map(({ digest }) => ({ mediaType: OCI_MANIFEST, digest, size: 1 }));
  const list = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: OCI_INDEX, manifests: listed }));
  upstream.addManifest('org/app', list, OCI_INDEX, image.top.digest.replace(':', '-'));
  await served(mirror, `${APP}/manifests/${image.top.digest.replace(':', '-')}`);
});

test('a runnable image is refused under the name of a signature, with an empty config, called a signature, or beside one', async (t) => {
  const { upstream, start } = await setUp(t);
  const image = upstream.addImage('org/app', '1');
  upstream.addManifest('org/app', image.top.bytes, OCI_MANIFEST, `sha256-${'0'.repeat(64)}.sig`);
  const tar: TestLayer = { mediaType: 'application/vnd.oci.image.layer.v1.tar', content: noise(3000, 'tar') };
  const config = 'application/vnd.oci.empty.v1+json';
  addArtifact(upstream, [tar], { config, tag: 'empty-config' });
  const signature = simpleSigningLayer(simpleSigning(image.top.digest), keys);
  addArtifact(upstream, [signature, tar], { tag: 'mixed' });
  const large: TestLayer = { mediaType: 'application/spdx+json', content: noise(8 * 1024 * 1024, 'large') };
  addArtifact(upstream, [large], { config, tag: 'large' });
  // podman unpacks a layer whatever its media type says.
  const content = await tarOf([{ name: 'bin/sh', bytes: 'hello' }]);
  const called = addArtifact(upstream, [{ ...signature, content }], { tag: 'called-signature' });
  const listed = [{ mediaType: OCI_MANIFEST, ...called }];
  const list = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: OCI_INDEX, manifests: listed }));
  upstream.addManifest('org/app', list, OCI_INDEX, 'list');
  const mirror = await start();
  const names = [
    `sha256-${'0'.repeat(64)}.sig`,
    'empty-config',
    'mixed',
    'large',
    'called-signature',
    'list',
  ];
  for (const tag of names) await refused(mirror, `${APP}/manifests/${tag}`);
});

test('an image with a layer from elsewhere is refused, unless the policy allows it', async (t) => {
  const { upstream, policy, start } = await setUp(t);
  const { top } = upstream.addImage('org/app', '1');
  const json = JSON.parse(top.bytes.toString()) as { layers: Record<string, unknown>[] };
  const layers = json.layers.map((layer) => ({ ...layer, urls: ['https://elsewhere.example/layer'] }));
  const foreign = Buffer.from(JSON.stringify({ ...json, layers }));
  sign(upstream, upstream.addManifest('org/app', foreign, OCI_MANIFEST, '2'));
  const mirror = await start();
  assert.match(await refused(mirror, `${APP}/manifests/2`), /clients fetch a layer of it from elsewhere/);
  await mirror.app.close();
  await served(await start({ policies: [{ ...policy, foreignLayers: 'allow' }] }), `${APP}/manifests/2`);
});

test('while it is not known whether it is signed, the reply is 503 with Retry-After, and never the image', async (t) => {
  const { upstream, clock, start } = await setUp(t);
  const image = upstream.addImage('org/app', '1', { layers: [5000] });
  sign(upstream, image.top.digest);
  const mirror = await start();
  upstream.script({ path: /\.sig$/ }, (reply) => {
    reply.status = 500;
  });
  const failing = mirror.get(`${APP}/manifests/1`);
  const reply = await settled(failing, clock);
  assert.equal(reply.status, 503);
  assert.equal(reply.error, 'UNAVAILABLE');
  assert.ok(Number(reply.headers['retry-after']) > 0);
  assert.match(reply.body.toString(), /cannot say whether this may come in: it could not be checked/);
  upstream.clearScripts();
  clock.advance(60_000); // the upstream counts as down for a while, too
  assert.equal((await settled(mirror.get(`${APP}/manifests/1`), clock, 1)).status, 200);
});

test('a client waits for policyWait and is told to ask again; the check goes on, and the next one gets its result', async (t) => {
  const { upstream, clock, start } = await setUp(t);
  const image = upstream.addImage('org/app', '1');
  sign(upstream, image.top.digest);
  const gate = Promise.withResolvers<void>();
  upstream.script({ path: /\.sig$/ }, (reply) => {
    reply.delay = gate.promise;
  });
  const mirror = await start({ policyWait: '20s' });
  for (const method of ['GET', 'HEAD']) {
    const waiting = mirror.send(method, `${APP}/manifests/1`);
    while (!upstream.requests.some(({ path }) => path.endsWith('.sig'))) await setImmediate();
    const reply = await settled(waiting, clock, 1_000);
    assert.equal(reply.status, 503);
    if (method === 'GET') assert.match(reply.body.toString(), /is being checked since .*: ask again/);
    assert.equal(reply.headers['retry-after'], '5');
  }
  gate.resolve();
  await settled(mirror.get(`${APP}/manifests/1`), clock, 1);
  await served(mirror, `${APP}/manifests/1`);
  const asked = upstream.requests.filter(({ path, method }) => path.endsWith('.sig') && method === 'GET');
  assert.equal(asked.length, 1);
});

test('a policy that only looks lets everything in, and counts what is signed at all', async (t) => {
  const { upstream, start } = await setUp(t);
  upstream.addImage('org/app', '1', { seed: 'plain' });
  const signed = upstream.addImage('org/app', '2', { seed: 'signed' });
  sign(upstream, signed.top.digest, ecKeys());
  const mirror = await start({ policies: [{ name: 'look-only', mode: 'audit', signature: {} }] });
  await pullImage(mirror, 'org/app', '1');
  await pullImage(mirror, 'org/app', '2');
  const count = (decision: string) =>
    mirror.metric('millpond_policy_decisions_total', { policy: 'look-only', mode: 'audit', decision });
  while ((await count('allow')) + (await count('deny')) < 2) await setImmediate();
  assert.deepEqual([await count('allow'), await count('deny')], [1, 1]);
});

/** Moves the clock until there is a reply. */
async function settled(reply: Promise<TestReply>, clock: FakeClock, stepMs = 1_000): Promise<TestReply> {
  const pending = Symbol('pending');
  for (;;) {
    clock.advance(stepMs);
    const first = await Promise.race([reply, setImmediate(pending)]);
    if (typeof first !== 'symbol') return first;
  }
}
