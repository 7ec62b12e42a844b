import assert from 'node:assert/strict';
import { chmod, open, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { type Digest, digestHex } from '../../src/oci/digest.ts';
import { noise } from '../helpers/images.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { startMirror, type TestMirror, type TestReply } from '../helpers/start-mirror.ts';

const CUT_CODE = 'UND_ERR_SOCKET';

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

async function flipBit(mirror: TestMirror, digest: Digest, at: number): Promise<void> {
  const hex = digestHex(digest);
  const path = join(mirror.directory, 'data/blobs/sha256', hex.slice(0, 2), hex);
  await chmod(path, 0o644);
  const file = await open(path, 'r+');
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
    assert.equal(await mirror.metric('millpond_content_rejected_total', { reason: 'damaged' }), 1);
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
