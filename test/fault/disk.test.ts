import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { FailingFileSystem } from '../helpers/failing-file-system.ts';
import { noise } from '../helpers/images.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { startMirror } from '../helpers/start-mirror.ts';

const MIB = 1024 * 1024;
const blob = noise(6 * MIB, 'disk');

async function setUp(t: TestContext) {
  const upstream = await ScriptedUpstream.start(t);
  const digest = upstream.addContent(blob);
  const image = upstream.addImage('a/b', '1');
  const disk = new FailingFileSystem();
  const mirror = await startMirror(t, {
    upstreams: { 'docker.io': upstream.url },
    fileSystem: disk.fileSystem,
  });
  return { upstream, image, disk, mirror, path: `/v2/a/b/blobs/${digest}` };
}

for (const errno of ['ENOSPC', 'EIO', 'EROFS', 'EMFILE']) {
  for (const operation of ['open', 'write', 'sync', 'rename', 'mkdir'] as const) {
    test(`${errno} on ${operation}: blobs and manifests arrive all the same, and caching returns by itself`, async (t) => {
      const { upstream, image, disk, mirror, path } = await setUp(t);
      disk.fail(operation, errno);
      const during = await mirror.get(path);
      assert.deepEqual([during.status, during.body.equals(blob)], [200, true]);
      const manifest = await mirror.get('/v2/a/b/manifests/1');
      assert.deepEqual([manifest.status, manifest.body], [200, image.top.bytes]);
      assert.ok((await mirror.metric('millpond_storage_errors_total', { code: errno })) > 0);
      await mirror.idle();
      assert.equal(disk.openFiles, 0, 'no descriptor is left');

      disk.heal();
      assert.ok((await mirror.get(path)).body.equals(blob));
      await mirror.get('/v2/a/b/manifests/1');
      await mirror.idle();
      const asked = upstream.requests.length;
      assert.equal((await mirror.get(path)).headers['cache-status'], 'millpond; hit');
      assert.equal((await mirror.get('/v2/a/b/manifests/1')).headers['cache-status'], 'millpond; hit');
      assert.equal(upstream.requests.length, asked);
      await mirror.idle();
      assert.deepEqual(await readdir(join(mirror.directory, 'data/ingest')), []);
    });
  }
}

test('a blob and a manifest are flushed to the disk, each before its record is written', async (t) => {
  const { image, disk, mirror, path } = await setUp(t);
  await mirror.get('/v2/a/b/manifests/1');
  assert.deepEqual(disk.flushed, ['new-1'], image.top.digest);
  await mirror.get(path);
  await mirror.idle();
  const content = disk.flushed.filter((name) => !/^new-[2-9]/.test(name)); // a scrape looks whether it can write
  assert.match(content.join(' '), /^new-1 sha256-[0-9a-f]{64}\.[0-9a-f]{16}$/);
});

test('a disk that is full from the start: fwd=bypass', async (t) => {
  const { disk, mirror, path } = await setUp(t);
  disk.fail('open', 'ENOSPC');
  assert.equal((await mirror.get(path)).headers['cache-status'], 'millpond; fwd=bypass');
  assert.equal((await mirror.get('/v2/a/b/manifests/1')).headers['cache-status'], 'millpond; fwd=bypass');
});

test('a disk that fills up in the middle: every client goes on from the byte it had reached', async (t) => {
  const { upstream, disk, mirror, path } = await setUp(t);
  disk.failWritesBeyond = 3 * MIB;
  disk.fail('write', 'ENOSPC');
  const replies = await Promise.all(Array.from({ length: 5 }, () => mirror.get(path)));
  for (const { status, body } of replies) assert.deepEqual([status, body.equals(blob)], [200, true]);
  const resumed = upstream.requests.filter(({ headers }) => headers.range !== undefined);
  assert.equal(
    await mirror.metric('millpond_storage_errors_total', { operation: 'write', code: 'ENOSPC' }),
    1,
  );
  assert.ok(resumed.length > 0, 'by Range, and not from the start');
  assert.ok(resumed.every(({ headers }) => Number(/=(\d+)-/.exec(headers.range ?? '')?.[1]) > 0));
  assert.equal(disk.openFiles, 0);
});

test('a stored blob that the disk will not give back is fetched past it', async (t) => {
  const { disk, mirror, path } = await setUp(t);
  await mirror.get(path);
  disk.fail('read', 'EIO');
  const reply = await mirror.get(path, { range: 'bytes=1000000-1999999' });
  assert.deepEqual([reply.status, reply.body.equals(blob.subarray(1_000_000, 2_000_000))], [206, true]);
  assert.equal(await mirror.metric('millpond_storage_errors_total', { operation: 'read', code: 'EIO' }), 1);
});

test('trouble is logged once a minute for each kind, and counted every time', async (t) => {
  const { disk, mirror, path } = await setUp(t);
  disk.fail('open', 'EROFS');
  const lines = () => mirror.log.filter(({ msg }) => String(msg).startsWith('storage error')).length;
  for (let pull = 0; pull < 5; pull += 1) await mirror.get(path);
  assert.equal(lines(), 1);
  mirror.clock.advance(60_000);
  await mirror.get(path);
  assert.equal(lines(), 2);
  assert.ok((await mirror.metric('millpond_storage_errors_total')) >= 6);
});

test('readiness falls while the cache directory cannot be written, and health does not', async (t) => {
  const { disk, mirror } = await setUp(t);
  const status = async (path: string) => (await fetch(mirror.operationsUrl + path)).status;
  assert.deepEqual([await status('/readyz'), await status('/healthz')], [200, 200]);
  disk.fail('open', 'EROFS');
  assert.deepEqual([await status('/readyz'), await status('/healthz')], [503, 200]);
});
