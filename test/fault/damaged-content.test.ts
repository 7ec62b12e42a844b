import assert from 'node:assert/strict';
import { chmod, open, readdir, truncate, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { type Digest, digestHex, digestOf } from '../../src/oci/digest.ts';
import { FailingFileSystem } from '../helpers/failing-file-system.ts';
import { noise } from '../helpers/images.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { type MirrorOptions, startMirror, type TestMirror, type TestReply } from '../helpers/start-mirror.ts';

const CUT_CODE = 'UND_ERR_SOCKET';
const DAMAGED = { operation: 'check', code: 'DAMAGED' };
const MIB = 1024 * 1024;

/** Pulls once, stops the mirror, flips a bit of what it stored, and starts it again. */
async function damaged(t: TestContext, bytes: Buffer, at: number) {
  const upstream = await ScriptedUpstream.start(t);
  const digest = upstream.addContent(bytes);
  const image = upstream.addImage('a/b', '1');
  const upstreams = { 'docker.io': upstream.url };
  const first = await startMirror(t, { upstreams });
  await first.get(`/v2/a/b/blobs/${digest}`);
  await first.get('/v2/a/b/manifests/1');
  await first.app.close();
  await flipBit(first, digest, at);
  await flipBit(first, image.top.digest, 5);
  const { directory, clock } = first;
  const mirror = await startMirror(t, { upstreams, directory, clock });
  return { upstream, mirror, image, path: `/v2/a/b/blobs/${digest}` };
}

/** Cut, or refused before the headers if all of it could be checked by then. */
async function assertNotComplete(pull: Promise<TestReply>): Promise<void> {
  const reply = await pull.catch((error: { code: string }) => error.code);
  assert.ok(reply === CUT_CODE || (typeof reply === 'object' && reply.status === 502), JSON.stringify(reply));
}

/** A mirror that has served a blob whole, and goes on running. */
async function served(t: TestContext, options: Partial<MirrorOptions> = {}) {
  const upstream = await ScriptedUpstream.start(t);
  const bytes = noise(5_000_000, 'served');
  const digest = upstream.addContent(bytes);
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url }, ...options });
  const path = `/v2/a/b/blobs/${digest}`;
  await mirror.get(path);
  await mirror.idle();
  assert.ok((await mirror.get(path)).body.equals(bytes));
  return { upstream, mirror, digest, path, bytes };
}

async function writable(mirror: TestMirror, digest: Digest): Promise<string> {
  const hex = digestHex(digest);
  const path = join(mirror.directory, 'data/blobs/sha256', hex.slice(0, 2), hex);
  await chmod(path, 0o644);
  return path;
}

async function flipBit(mirror: TestMirror, digest: Digest, at: number): Promise<void> {
  const file = await open(await writable(mirror, digest), 'r+');
  const byte = Buffer.alloc(1);
  await file.read(byte, 0, 1, at);
  byte[0] = (byte[0] ?? 0) ^ 1;
  await file.write(byte, 0, 1, at);
  await file.close();
}

for (const [what, size, at] of [
  ['a large blob, in the middle', 3_000_000, 1_500_000],
  ['a large blob, in its last byte', 3_000_000, 2_999_999],
  ['a small blob', 1000, 500],
] as const) {
  test(`one flipped bit in ${what}: the pull does not complete, the blob is removed, and the next pull is right`, async (t) => {
    const bytes = noise(size, what);
    const { upstream, mirror, path } = await damaged(t, bytes, at);
    await assertNotComplete(mirror.get(path));
    assert.equal(await mirror.metric('millpond_storage_errors_total', DAMAGED), 1);
    const before = upstream.count('blob', 'GET');
    assert.ok((await mirror.get(path)).body.equals(bytes));
    assert.equal(upstream.count('blob', 'GET'), before + 1);
    assert.equal((await mirror.get(path)).headers['cache-status'], 'millpond; hit');
  });
}

test('a damaged manifest is never served: it is fetched again', async (t) => {
  const { mirror, image } = await damaged(t, Buffer.from('x'), 0);
  assert.deepEqual((await mirror.get('/v2/a/b/manifests/1')).body, image.top.bytes);
  assert.deepEqual((await mirror.get(`/v2/a/b/manifests/${image.top.digest}`)).body, image.top.bytes);
});

test('a bit that flips after a blob was served whole is noticed by the next pull', async (t) => {
  const { upstream, mirror, digest, path, bytes } = await served(t);
  await flipBit(mirror, digest, 2 * MIB);
  await assertNotComplete(mirror.get(path));
  const before = upstream.count('blob', 'GET');
  assert.ok((await mirror.get(path)).body.equals(bytes));
  assert.equal(upstream.count('blob', 'GET'), before + 1);
});

test('a disk that rots without the system’s knowing is noticed ten minutes after a blob was last checked', async (t) => {
  const disk = new FailingFileSystem();
  const { mirror, path } = await served(t, { fileSystem: disk.fileSystem });
  disk.rotAt = 2 * MIB;
  mirror.clock.advance(10 * 60_000);
  await assertNotComplete(mirror.get(path));
  assert.equal(await mirror.metric('millpond_storage_errors_total', DAMAGED), 1);
});

for (const [range, at] of [
  ['bytes=1500000-1500099', 1_500_050],
  ['bytes=1500000-1500099', 1_100_000],
  ['bytes=1500000-1500099', 2_097_151],
  ['bytes=-10', 4_999_995],
  ['bytes=0-0', 0],
  ['bytes=1048575-1048576', 1_048_576],
  ['bytes=100-', 3_000_000],
] as const) {
  test(`${range} with a bit flipped at ${at} is not completed`, async (t) => {
    const { mirror, digest, path } = await served(t);
    await flipBit(mirror, digest, at);
    await assertNotComplete(mirror.get(path, { range }));
    assert.equal(await mirror.metric('millpond_storage_errors_total', DAMAGED), 1);
  });
}

test('damage that a range does not touch does not keep it from its client', async (t) => {
  const { mirror, digest, path, bytes } = await served(t);
  await flipBit(mirror, digest, 3 * MIB);
  const reply = await mirror.get(path, { range: 'bytes=1500000-1500099' });
  assert.ok(reply.body.equals(bytes.subarray(1_500_000, 1_500_100)));
});

test('with a damaged blob the image manifest that lists it is forgotten, and an index stays', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const image = upstream.addImage('a/b', '1', { platforms: ['amd64', 'arm64'], layers: [2000] });
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  await mirror.get('/v2/a/b/manifests/1');
  for (const { digest } of image.manifests) await mirror.get(`/v2/a/b/manifests/${digest}`);
  for (const blob of image.blobs) await mirror.get(`/v2/a/b/blobs/${digestOf(blob)}`);
  await mirror.idle();
  const [, layer = Buffer.alloc(0)] = image.blobs;
  await mirror.idle();
  await flipBit(mirror, digestOf(layer), 100);
  await assertNotComplete(mirror.get(`/v2/a/b/blobs/${digestOf(layer)}`));
  await upstream.close();
  const statuses = await Promise.all(
    ['1', ...image.manifests.map(({ digest }) => digest)].map(
      async (reference) => (await mirror.get(`/v2/a/b/manifests/${reference}`)).status,
    ),
  );
  assert.deepEqual(statuses, [200, 502, 200]);
});

for (const [what, harm] of [
  ['shorter than it was', (path: string) => truncate(path, 1_000_000)],
  ['gone', (path: string) => unlink(path)],
] as const) {
  test(`a file that is ${what} is no hit: the pull that finds it fetches the blob again`, async (t) => {
    const { upstream, mirror, digest, path, bytes } = await served(t);
    const file = await writable(mirror, digest);
    await harm(file);
    const reply = await mirror.get(path);
    assert.ok(reply.body.equals(bytes));
    assert.equal(reply.headers['cache-status'], 'millpond; fwd=uri-miss; stored');
    assert.equal(upstream.count('blob', 'GET'), 2);
    assert.equal((await mirror.get(path)).headers['cache-status'], 'millpond; hit');
  });
}

test('what is whole after a restart is served as a hit, ranges included', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const bytes = noise(500_000, 'whole');
  const digest = upstream.addContent(bytes);
  const first = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  await first.get(`/v2/a/b/blobs/${digest}`);
  await first.app.close();
  await upstream.close();
  const { directory, clock } = first;
  const mirror = await startMirror(t, { upstreams: { 'docker.io': 'http://127.0.0.1:9' }, directory, clock });
  const range = await mirror.get(`/v2/a/b/blobs/${digest}`, { range: 'bytes=400000-' });
  assert.ok(range.body.equals(bytes.subarray(400_000)));
  for (let pull = 0; pull < 2; pull += 1)
    assert.ok((await mirror.get(`/v2/a/b/blobs/${digest}`)).body.equals(bytes));
  assert.deepEqual(await readdir(join(mirror.directory, 'data/ingest')), []);
});
