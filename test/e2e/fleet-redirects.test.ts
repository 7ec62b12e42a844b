/** Real clients log in to a node of a fleet over TLS, and get large blobs from a real object store by its presigned URLs. */
import assert from 'node:assert/strict';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { type TestContext, test } from 'node:test';
import { Agent, request } from 'undici';
import { S3Store } from '../../src/fleet/objects/s3-store.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { writeHtpasswd } from '../helpers/access-files.ts';
import { cleanUp } from '../helpers/cleanup.ts';
import { CuttingProxy } from '../helpers/cutting-proxy.ts';
import { missingEngines } from '../helpers/engines.ts';
import { FakeClock } from '../helpers/fake-clock.ts';
import { uploaded } from '../helpers/fleet-uploads.ts';
import { noise } from '../helpers/images.ts';
import {
  type LoginClient,
  type MirrorAddress,
  prepareSkopeoLogin,
  startContainerdLogin,
  startDockerLogin,
} from '../helpers/login-clients.ts';
import type { RealMirror } from '../helpers/real-mirror.ts';
import { STORE_ENVIRONMENT, startObjectStore } from '../helpers/real-object-store.ts';
import { missingPrograms, until } from '../helpers/real-processes.ts';
import { makeImage, pushImage, RealRegistry } from '../helpers/real-registry.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { startMirror } from '../helpers/start-mirror.ts';
import { tempDir } from '../helpers/temp-dir.ts';
import { startTlsMirror } from '../helpers/tls-mirror.ts';

const TEAM = 'docker.io/library/team';
const LOGIN = { user: 'anna', password: 'correct horse battery' };
const LAYER_BYTES = 300_000;
const MINUTE_MS = 60_000;

const skip =
  missingPrograms('docker-registry', 'dockerd', 'containerd', 'ctr', 'skopeo', 'busybox', 'openssl') ||
  missingEngines('containerd', 'versitygw');

async function setUp(t: TestContext) {
  const directory = await tempDir(t);
  const registry = await RealRegistry.start(t);
  await pushImage(await makeImage(directory), registry, 'library/team:1');
  const store = await startObjectStore(t);
  const proxy = await CuttingProxy.start(t, new URL(store.url).port);
  const secretFile = join(directory, 'fleet-secret');
  await writeFile(secretFile, 'a secret that all the nodes of this fleet share\n', { mode: 0o600 });
  const { objects, secret } = store.config(secretFile) as Record<string, Record<string, unknown>>;
  const config = {
    upstreams: { 'docker.io': { url: registry.url } },
    access: {
      users: { htpasswd: await writeHtpasswd(directory, { [LOGIN.user]: LOGIN.password }) },
      rules: [
        { who: 'user:anna', pull: TEAM },
        { who: 'anonymous', observe: true },
      ],
    },
    // Another host than that of the mirror: clients keep their Authorization for the same one, whatever its port.
    fleet: {
      objects: { ...objects, endpoint: `http://localhost:${proxy.port}`, redirectAbove: '1KiB' },
      secret,
    },
  };
  const { mirror, address } = await startTlsMirror(t, directory, config, { env: STORE_ENVIRONMENT });
  return { mirror, address, proxy, registry };
}

interface BlobReply {
  status: number;
  reference: string;
  bytes: number;
}

/** What the mirror has answered to requests for blobs since the call that returned `seen` replies in all. */
async function blobReplies(mirror: RealMirror, seen = 0): Promise<BlobReply[]> {
  const isBlob = (line: string) => line.includes('"kind":"blob"') && line.includes('"msg":"request"');
  let lines: string[] = [];
  await until('the log', mirror.process, async () => {
    const metrics = await (await fetch(`http://127.0.0.1:${mirror.operationsPort}/metrics`)).text();
    const counted = metrics.matchAll(/^millpond_requests_total\{[^}]*kind="blob"[^}]*\} (\d+)$/gm);
    const total = [...counted].reduce((sum, [, count]) => sum + Number(count), 0);
    lines = mirror.process.lines.filter(isBlob);
    return lines.length === total;
  });
  return lines.slice(seen).map((line) => JSON.parse(line) as BlobReply);
}

const isRedirect = ({ status }: BlobReply) => status === 307;

const CLIENTS: Record<string, (t: TestContext, address: MirrorAddress) => Promise<LoginClient>> = {
  dockerd: startDockerLogin,
  'containerd 2': startContainerdLogin,
  skopeo: prepareSkopeoLogin,
};

for (const [name, prepare] of Object.entries(CLIENTS)) {
  test(`${name} logs in, and pulls an image whose layers come from the object store`, { skip }, async (t) => {
    const { mirror, address, proxy, registry } = await setUp(t);
    const client = await prepare(t, address);
    await client.login(LOGIN);
    await client.pull(TEAM);
    await uploaded(mirror);
    const cold = await blobReplies(mirror);
    assert.ok(cold.length > 0 && cold.every(({ status }) => status === 200));
    await registry.stop();
    await client.pull(TEAM);
    const warm = await blobReplies(mirror, cold.length);
    const redirected = warm.filter(isRedirect);
    t.diagnostic(`${redirected.length} of ${warm.length} blobs were redirected`);
    assert.equal(redirected.length, 1, 'the layer that is large enough');
    assert.deepEqual(
      proxy.presigned.map(({ authorization }) => authorization),
      [undefined],
      'read from the store once, and without what was for the mirror',
    );
    assert.ok(!mirror.process.lines.join('\n').includes('X-Amz'), 'no presigned URL in the log');
    await client.logout();
    await assert.rejects(client.pull(TEAM));
    const all = await blobReplies(mirror);
    assert.equal(all.filter(isRedirect).length, 1, 'nobody is redirected who may not pull');
  });
}

test('containerd goes on by Range, through another redirect, when the store breaks off', {
  skip,
}, async (t) => {
  const { mirror, address, proxy } = await setUp(t);
  const client = await startContainerdLogin(t, address);
  await client.login(LOGIN);
  await client.pull(TEAM);
  await uploaded(mirror);
  proxy.cutNextBody(LAYER_BYTES);
  await client.pull(TEAM);
  const redirected = (await blobReplies(mirror)).filter(isRedirect);
  assert.equal(redirected.length, 2);
  assert.equal(new Set(redirected.map(({ reference }) => reference)).size, 1);
  const ranges = proxy.presigned.map(({ range = '' }) => range);
  assert.equal(ranges.filter((range) => /^bytes=[1-9]\d*-/.test(range)).length, 1);
});

test('HEAD is answered by the node, and a range is had from the store by asking for it there', {
  skip,
}, async (t) => {
  const { mirror, address } = await setUp(t);
  const client = await prepareSkopeoLogin(t, address);
  await client.login(LOGIN);
  await client.pull(TEAM);
  await uploaded(mirror);
  const { reference = '' } = (await blobReplies(mirror)).find(({ bytes }) => bytes > LAYER_BYTES) ?? {};
  const agent = new Agent({ connect: { ca: address.caText ?? '' } });
  cleanUp(t, () => agent.destroy());
  const authorization = `Basic ${Buffer.from(`${LOGIN.user}:${LOGIN.password}`).toString('base64')}`;
  const ask = (method: 'GET' | 'HEAD', headers: Record<string, string>) =>
    request(`https://${address.name}/v2/${TEAM}/blobs/${reference}`, {
      ...{ method, dispatcher: agent, headers: { authorization, ...headers } },
    });
  const head = await ask('HEAD', {});
  assert.equal(head.statusCode, 200);
  const size = Number(head.headers['content-length']);
  const range = { range: `bytes=10-${size - 1}` };
  const redirect = await ask('GET', range);
  assert.equal(redirect.statusCode, 307);
  const url = String(redirect.headers['location']);
  const part = await request(url, { headers: range });
  assert.equal(part.statusCode, 206);
  assert.equal((await part.body.arrayBuffer()).byteLength, size - 10);
  const whole = Buffer.from(await (await request(url)).body.arrayBuffer());
  assert.equal(digestOf(whole), reference);
  const both = await request(url, { headers: { authorization } });
  t.diagnostic(`with an Authorization of the mirror's the store answers ${both.statusCode}`);
  await both.body.dump();
  const unsigned = await request(url.slice(0, url.indexOf('?')));
  assert.equal(unsigned.statusCode, 403);
  await unsigned.body.dump();
});

test('what was tampered with or deleted in a real store is not redirected to once a minute has passed', {
  skip,
}, async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const store = await startObjectStore(t);
  const directory = await tempDir(t);
  const secretFile = join(directory, 'fleet-secret');
  await writeFile(secretFile, 'a secret that all the nodes of this fleet share\n', { mode: 0o600 });
  const { objects, secret } = store.config(secretFile) as Record<string, Record<string, unknown>>;
  const clock = new FakeClock();
  clock.impatient = false;
  const mirror = await startMirror(t, {
    upstreams: { 'docker.io': upstream.url },
    ...{ fleet: { objects: { ...objects, redirectAbove: '1KiB', maxUpload: 'none' }, secret } },
    ...{ environment: STORE_ENVIRONMENT, directory, clock },
  });
  cleanUp(t, () => {
    clock.impatient = true;
    clock.advance(MINUTE_MS); // for whatever still waits for the store
  });
  const blob = noise(LAYER_BYTES, 'layer');
  const digest = upstream.addContent(blob);
  const hex = digest.slice('sha256:'.length);
  const get = () => mirror.get(`/v2/org/app/blobs/${digest}`);
  /** Everything that is needed for it happens in the background. */
  const redirected = async () => {
    while ((await get()).status !== 307);
  };
  assert.ok((await get()).body.equals(blob));
  await redirected();

  const bucket = new S3Store({
    ...{ bucket: 'millpond', endpoint: store.url, region: 'us-east-1', prefix: 'millpond/', ca: undefined },
    credentials: async () => ({
      accessKeyId: STORE_ENVIRONMENT.FLEET_KEY_ID,
      secretAccessKey: STORE_ENVIRONMENT.FLEET_KEY,
    }),
    clock,
  });
  cleanUp(t, () => bucket.close());
  const wrong = noise(LAYER_BYTES, 'wrong');
  const { signal } = new AbortController();
  const open = () => Readable.from([wrong], { objectMode: false });
  const name = `blobs/sha256/${hex.slice(0, 2)}/${hex}`;
  await bucket.put(name, { size: wrong.length, open }, { signal });
  clock.advance(MINUTE_MS);
  assert.ok((await get()).body.equals(blob));
  while ((await mirror.metric('millpond_content_rejected_total')) === 0);
  clock.advance(MINUTE_MS);
  await redirected();

  await rm(join(store.directory, 'millpond', 'millpond', name));
  clock.advance(MINUTE_MS);
  assert.ok((await get()).body.equals(blob));
  await redirected();
});
