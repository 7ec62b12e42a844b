/** How much of an image is here, as the list of images tells it. */
import assert from 'node:assert/strict';
import { readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { digestOf } from '../../src/oci/digest.ts';
import { OCI_MANIFEST } from '../../src/oci/manifest.ts';
import { noise, type TestImage } from '../helpers/images.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { startMirror, type TestMirror } from '../helpers/start-mirror.ts';

const MIB = 1024 * 1024;
const HOST = 'registry.test';

interface Listed {
  name: string;
  state: string;
  platforms: string[];
  listed?: { platform?: string; digest: string; state: string }[];
  size: number;
  stored: number;
  missing: { blobs: number; of: number };
}

async function setUp(t: TestContext, cache: Record<string, unknown> = {}) {
  const upstream = await ScriptedUpstream.start(t);
  const mirror = await startMirror(t, {
    upstreams: { [HOST]: upstream.url },
    cache: { keepFree: '0B', ...cache },
  });
  return { upstream, mirror };
}

async function list({ operationsUrl }: TestMirror, query = ''): Promise<Listed[]> {
  const reply = await fetch(`${operationsUrl}/api/images${query}`);
  return ((await reply.json()) as { images: Listed[] }).images;
}

/** Pulls a manifest and all blobs that it lists, but for the `left` last layers. */
async function pull(mirror: TestMirror, reference: string, left = 0): Promise<void> {
  const manifest = await mirror.get(`/v2/app/manifests/${reference}`);
  assert.equal(manifest.status, 200);
  const { config, layers } = JSON.parse(manifest.body.toString()) as {
    config: { digest: string };
    layers: { digest: string }[];
  };
  for (const { digest } of [config, ...layers.slice(0, layers.length - left)])
    await mirror.get(`/v2/app/blobs/${digest}`);
  await mirror.idle();
}

const PLATFORMS = ['amd64', 'arm64', 'ppc64le', 's390x', 'riscv64'];

test('an index of five platforms is list only; with one of them pulled it is complete, and the other four are list only', async (t) => {
  const { upstream, mirror } = await setUp(t);
  const { top, manifests } = upstream.addImage('app', '1', { platforms: PLATFORMS, layers: [1000, 2000] });
  await mirror.get('/v2/app/manifests/1');
  const [before] = await list(mirror);
  assert.deepEqual([before?.state, before?.platforms], ['list-only', []]);
  assert.deepEqual([before?.size, before?.stored], [top.bytes.length, top.bytes.length]);
  assert.deepEqual(
    (await list(mirror, '?incomplete=true')).map(({ name }) => name),
    [`${HOST}/app:1`],
  );
  await pull(mirror, manifests[1]?.digest ?? '');
  const [after] = await list(mirror);
  assert.deepEqual([after?.state, after?.platforms], ['complete', ['linux/arm64']]);
  assert.deepEqual(
    after?.listed?.map(({ platform, state }) => `${platform} ${state}`),
    PLATFORMS.map((name) => `linux/${name} ${name === 'arm64' ? 'complete' : 'list-only'}`),
  );
  assert.deepEqual(await list(mirror, '?incomplete=true'), []);
});

function sizeOf({ top, blobs }: TestImage): number {
  return top.bytes.length + blobs.reduce((sum, blob) => sum + blob.length, 0);
}

test('a layer that was not pulled makes an image partial: its size is that of the whole, and what is missing is told', async (t) => {
  const { upstream, mirror } = await setUp(t);
  const image = upstream.addImage('app', '1', { layers: [1000, 2000, 3000] });
  await pull(mirror, '1', 1);
  const [found] = await list(mirror);
  assert.deepEqual(
    [found?.state, found?.size, found?.stored, found?.missing],
    ['partial', sizeOf(image), sizeOf(image) - 3000, { blobs: 1, of: 4 }],
  );
  await pull(mirror, '1');
  assert.equal((await list(mirror))[0]?.state, 'complete');
});

test('a layer that only its publisher may distribute is not missed', async (t) => {
  const { upstream, mirror } = await setUp(t);
  const config = Buffer.from('{"os":"windows","architecture":"amd64"}');
  const manifest = {
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    config: { ...of(config), mediaType: 'application/vnd.oci.image.config.v1+json' },
    layers: [
      { ...of(noise(500, 'base')), mediaType: 'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip' },
    ],
  };
  upstream.addContent(config);
  upstream.addManifest('app', Buffer.from(JSON.stringify(manifest)), OCI_MANIFEST, '1');
  await pull(mirror, '1', 1);
  assert.equal((await list(mirror))[0]?.state, 'complete');
});

function of(bytes: Buffer) {
  return { digest: digestOf(bytes), size: bytes.length };
}

test('a layer that was evicted, and one that did not fit, are missing', async (t) => {
  const { upstream, mirror } = await setUp(t, { maxSize: `${4 * MIB}B` });
  upstream.addImage('app', 'large', { layers: [MIB, 8 * MIB], seed: 'large' });
  await pull(mirror, 'large');
  const [large] = await list(mirror);
  assert.deepEqual([large?.state, large?.missing], ['partial', { blobs: 1, of: 3 }]);
  assert.equal((large?.size ?? 0) - (large?.stored ?? 0), 8 * MIB);

  // What lists a layer goes before it, so that a manifest that is pulled again finds only what has stayed.
  upstream.addImage('app', 'other', { layers: [3 * MIB], seed: 'other' });
  await pull(mirror, 'other');
  mirror.clock.advance(1000);
  await mirror.get('/v2/app/manifests/large');
  await mirror.idle();
  const found = (await list(mirror)).find(({ name }) => name.endsWith('large'));
  assert.equal(found?.state, 'partial');
  assert.ok((found?.missing.blobs ?? 0) >= 2, 'the first layer was evicted');
});

test('a layer that rotted takes its platform away, which is then only listed; the other one stays complete', async (t) => {
  const { upstream, mirror } = await setUp(t);
  const { manifests, blobs } = upstream.addImage('app', '1', {
    platforms: ['amd64', 'arm64'],
    layers: [5000],
  });
  await mirror.get('/v2/app/manifests/1');
  for (const { digest } of manifests) await pull(mirror, digest);
  const states = async () => (await list(mirror))[0]?.listed?.map(({ state }) => state);
  assert.deepEqual(await states(), ['complete', 'complete']);
  const ofFirst = blobs.find(
    (blob) => blob.length === 5000 && manifests[0]?.bytes.includes(digestOf(blob)) === true,
  );
  assert.ok(ofFirst);
  const folder = join(mirror.directory, 'data/blobs');
  const files = await readdir(folder, { recursive: true });
  const file = files.find((name) => name.endsWith(digestOf(ofFirst).slice('sha256:'.length)));
  assert.ok(file);
  await writeFile(join(folder, file), Buffer.alloc(5000));
  await (await fetch(`${mirror.operationsUrl}/api/scrub`, { method: 'POST' })).text();
  assert.deepEqual(await states(), ['list-only', 'complete']);
  assert.deepEqual((await list(mirror))[0]?.platforms, ['linux/arm64']);
});
