import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readdir, readFile, rm, truncate, unlink, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { type TestContext, test } from 'node:test';
import { digestHex, digestOf } from '../../src/oci/digest.ts';
import { noise } from '../helpers/images.ts';
import { startRealMirror } from '../helpers/real-mirror.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { startMirror, type TestMirror } from '../helpers/start-mirror.ts';
import { tempDir } from '../helpers/temp-dir.ts';

const MAIN = resolve(import.meta.dirname, '../../src/main.ts');
const PLATFORMS = ['amd64', 'arm64'];

/** A mirror that has pulled an image of two platforms, and was stopped. */
async function stopped(t: TestContext) {
  const upstream = await ScriptedUpstream.start(t);
  const image = upstream.addImage('a/b', '1', { platforms: PLATFORMS, layers: [300_000, 2000] });
  const upstreams = { 'docker.io': upstream.url };
  const first = await startMirror(t, { upstreams });
  const references = ['1', ...image.manifests.map(({ digest }) => digest)];
  const paths = [
    ...references.map((reference) => `/v2/a/b/manifests/${reference}`),
    ...image.blobs.map((blob) => `/v2/a/b/blobs/${digestOf(blob)}`),
  ];
  const bodies = await pullAll(first, paths);
  await first.idle();
  await first.app.close();
  upstream.requests.length = 0;
  const data = join(first.directory, 'data');
  const { directory, clock } = first;
  const restart = () => startMirror(t, { upstreams, directory, clock });
  return { upstream, image, paths, bodies, data, restart };
}

async function pullAll(mirror: TestMirror, paths: string[]): Promise<Buffer[]> {
  const bodies: Buffer[] = [];
  for (const path of paths) {
    const reply = await mirror.get(path);
    assert.equal(reply.status, 200, path);
    bodies.push(reply.body);
  }
  return bodies;
}

function asked(upstream: ScriptedUpstream): string[] {
  return upstream.requests.map(({ method, path }) => `${method} ${path}`);
}

test('after the index is lost everything is served without fetching it again: one HEAD for the tag, none for what its manifest lists', async (t) => {
  const { upstream, image, paths, bodies, data, restart } = await stopped(t);
  await rm(join(data, 'index'), { recursive: true });
  const mirror = await restart();
  assert.deepEqual(await pullAll(mirror, paths), bodies);
  assert.deepEqual(asked(upstream), ['HEAD /v2/a/b/manifests/1']);
  const line = mirror.log.find(({ adopted }) => adopted !== undefined);
  assert.deepEqual(
    [line?.['adopted'], line?.['manifests'], line?.['lost']],
    [3 + image.blobs.length, 3, 0],
    'the log says what was done',
  );
  await mirror.app.close();
  const third = await restart();
  assert.deepEqual(await pullAll(third, paths), bodies);
  assert.equal(upstream.requests.length, 1, 'and from then on all is as it was');
});

test('after the index is lost a pull by digest costs one HEAD a repository', async (t) => {
  const { upstream, image, paths, bodies, data, restart } = await stopped(t);
  await rm(join(data, 'index'), { recursive: true });
  const mirror = await restart();
  const path = `/v2/a/b/manifests/${image.top.digest}`;
  assert.deepEqual((await mirror.get(path)).body, image.top.bytes);
  assert.deepEqual(await pullAll(mirror, paths.slice(1)), bodies.slice(1));
  assert.deepEqual(asked(upstream), [`HEAD ${path}`]);
});

test('a repository that never had an image is not served it from a rebuilt index', async (t) => {
  const { image, data, restart } = await stopped(t);
  await rm(join(data, 'index'), { recursive: true });
  const mirror = await restart();
  const [, layer = Buffer.alloc(0)] = image.blobs;
  // The upstream of these tests keeps no repositories apart, so it is asked and says yes; what counts is that it is asked.
  const reply = await mirror.get(`/v2/other/one/blobs/${digestOf(layer)}`);
  assert.equal(reply.headers['cache-status'], 'millpond; hit; detail=revalidated');
});

for (const [what, damage, told] of [
  [
    'a truncated file',
    async (index: string) => {
      for (const name of await readdir(index))
        if (/\.(log|ldb)$/.test(name)) await truncate(join(index, name), 10);
    },
    true,
  ],
  // LevelDB finds everything again in its log.
  ['no CURRENT file', (index: string) => unlink(join(index, 'CURRENT')), false],
  ['a MANIFEST of noise', (index: string) => overwrite(index, /^MANIFEST/), true],
  ['tables of noise', (index: string) => overwrite(index, /\.(log|ldb)$/), true],
] as const) {
  test(`an index with ${what} is repaired or built anew, and no content is fetched again`, async (t) => {
    const { upstream, paths, bodies, data, restart } = await stopped(t);
    await damage(join(data, 'index'));
    const mirror = await restart();
    assert.deepEqual(await pullAll(mirror, paths), bodies);
    assert.deepEqual(
      asked(upstream).filter((request) => request.startsWith('GET')),
      [],
    );
    assert.equal(
      mirror.log.some(({ level }) => level === 'error' || level === 'warn'),
      told,
    );
  });
}

async function overwrite(index: string, pattern: RegExp): Promise<void> {
  for (const name of await readdir(index)) {
    if (pattern.test(name)) await writeFile(join(index, name), noise(5000, name));
  }
}

test('content that a crash left without a record is taken up', async (t) => {
  const { upstream, data, restart } = await stopped(t);
  const bytes = noise(50_000, 'orphan');
  const digest = upstream.addContent(bytes);
  await placeBlob(data, bytes);
  await writeFile(join(data, 'pid'), '1'); // as after kill -9
  const mirror = await restart();
  const reply = await mirror.get(`/v2/a/b/blobs/${digest}`);
  assert.ok(reply.body.equals(bytes));
  assert.deepEqual(
    asked(upstream),
    [`HEAD /v2/a/b/blobs/${digest}`],
    'leave is asked for, the bytes are not',
  );
});

test('a record whose content is gone is forgotten, and the content fetched again', async (t) => {
  const { upstream, image, paths, bodies, data, restart } = await stopped(t);
  const [, layer = Buffer.alloc(0)] = image.blobs;
  const hex = digestHex(digestOf(layer));
  await rm(join(data, 'blobs/sha256', hex.slice(0, 2), hex));
  await writeFile(join(data, 'pid'), '1');
  const mirror = await restart();
  assert.equal(await mirror.metric('millpond_store_objects'), 3 + image.blobs.length - 1);
  assert.deepEqual(await pullAll(mirror, paths), bodies);
  assert.equal(upstream.count('blob', 'GET'), 1);
});

test('what lies in the store under a name that is not its digest is not served', async (t) => {
  const { upstream, data, restart } = await stopped(t);
  const right = noise(50_000, 'right');
  const digest = upstream.addContent(right);
  const place = await placeBlob(data, right);
  await writeFile(place, noise(50_000, 'wrong'));
  await writeFile(join(data, 'pid'), '1');
  const mirror = await restart();
  assert.ok((await mirror.get(`/v2/a/b/blobs/${digest}`)).body.equals(right));
  assert.equal(upstream.count('blob', 'GET'), 1);
});

async function placeBlob(data: string, bytes: Buffer): Promise<string> {
  const hex = digestHex(digestOf(bytes));
  const place = join(data, 'blobs/sha256', hex.slice(0, 2), hex);
  await mkdir(dirname(place), { recursive: true });
  await writeFile(place, bytes);
  return place;
}

test('a cache of a newer format is refused and not touched', async (t) => {
  const directory = await tempDir(t);
  const data = join(directory, 'data');
  await mkdir(data);
  await writeFile(join(data, 'format'), '2\n');
  const file = join(directory, 'millpond.yaml');
  await writeFile(file, `cache: { directory: ${data} }\nserver: { listen: 127.0.0.1:0 }\n`);
  const server = execFile(process.execPath, [MAIN, 'serve', '--config', file]);
  let stderr = '';
  server.stderr?.on('data', (text: string) => {
    stderr += text;
  });
  const [code] = (await once(server, 'close')) as [number];
  assert.equal(code, 1);
  assert.match(stderr, /is of format 2, and this version knows 1: run the version that wrote it/);
  assert.deepEqual(await readdir(data), ['format']);
});

test('a server that ends in order leaves no pid behind, and the next one looks at no file', async (t) => {
  const directory = await tempDir(t);
  const config = { upstreams: { 'docker.io': { url: 'http://127.0.0.1:9' } } };
  const first = await startRealMirror(t, directory, config);
  const data = join(directory, 'data');
  assert.equal(await readFile(join(data, 'pid'), 'utf8'), String(first.process.pid));
  await first.stop();
  assert.ok(!(await readdir(data)).includes('pid'));
  assert.equal(await readFile(join(data, 'format'), 'utf8'), '1\n');
});
