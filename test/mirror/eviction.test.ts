import assert from 'node:assert/strict';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { request } from 'undici';
import { nodeFileSystem } from '../../src/cache/store/file-system.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { diskUse } from '../helpers/disk-use.ts';
import { noise, type TestImage } from '../helpers/images.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { type MirrorOptions, startMirror, type TestMirror } from '../helpers/start-mirror.ts';

const MIB = 1024 * 1024;
const HARD_LIMIT = 1.05;
const HOST = 'registry.test';
const FOREVER = { freshness: { tagTtl: '7d', immutableTags: [] } };

async function setUp(t: TestContext, cache: Record<string, unknown>, options: Partial<MirrorOptions> = {}) {
  const upstream = await ScriptedUpstream.start(t);
  const upstreams = { [HOST]: { url: upstream.url, ...FOREVER } };
  const mirror = await startMirror(t, { upstreams, cache: { keepFree: '0B', ...cache }, ...options });
  return { upstream, upstreams, mirror };
}

/** As a client does: the manifest by its tag, then all that it lists. */
async function pull(mirror: TestMirror, repository: string, tag: string): Promise<number> {
  const manifest = await mirror.get(`/v2/${repository}/manifests/${tag}`);
  if (manifest.status !== 200) return manifest.status;
  const { config, layers } = JSON.parse(manifest.body.toString()) as {
    config: { digest: string };
    layers: { digest: string }[];
  };
  for (const { digest } of [config, ...layers]) {
    const blob = await mirror.get(`/v2/${repository}/blobs/${digest}`);
    if (blob.status !== 200) return blob.status;
  }
  await mirror.idle();
  mirror.clock.advance(1); // the time of the last use is kept in milliseconds
  return 200;
}

function getsOf(upstream: ScriptedUpstream, image: TestImage): number {
  const digests = [image.top.digest, ...image.blobs.map((blob) => digestOf(blob))];
  return upstream.requests.filter(
    ({ method, path }) => method === 'GET' && digests.some((digest) => path.endsWith(digest)),
  ).length;
}

test('three times maxSize of images come by while 20 clients pull one: it is never fetched again, and the limit holds', async (t) => {
  const maxSize = 24 * MIB;
  const { upstream, mirror } = await setUp(t, { maxSize: `${maxSize}B` });
  const hot = upstream.addImage('hot', '1', { layers: [2 * MIB, MIB], seed: 'hot' });
  const samples: number[] = [];
  const sample = async () => {
    samples.push(await mirror.metric('millpond_store_bytes'));
    samples.push(await diskUse(join(mirror.directory, 'data/blobs')));
  };
  await pull(mirror, 'hot', '1');
  const asked = getsOf(upstream, hot);
  for (let cold = 0; cold < 24; cold += 1) {
    upstream.addImage('cold', String(cold), { layers: [2 * MIB, MIB], seed: String(cold) });
    const pulls = Array.from({ length: 20 }, () => pull(mirror, 'hot', '1'));
    assert.equal(await pull(mirror, 'cold', String(cold)), 200);
    await sample();
    assert.deepEqual(new Set(await Promise.all(pulls)), new Set([200]));
    await sample();
  }
  assert.equal(getsOf(upstream, hot), asked, 'what everybody uses is never fetched again');
  assert.ok(Math.max(...samples) <= maxSize * HARD_LIMIT, `${Math.max(...samples)}`);
  assert.ok((await mirror.metric('millpond_evictions_total')) >= 24);
  assert.ok((await mirror.metric('millpond_evicted_bytes_total')) >= 2 * maxSize);
  const stored = await mirror.metric('millpond_store_bytes');
  assert.equal(stored, await diskUse(join(mirror.directory, 'data/blobs')));
});

test('the least recently used goes first, and the order survives a restart', async (t) => {
  const { upstream, upstreams, mirror } = await setUp(t, { maxSize: '10MiB' });
  const images = ['a', 'b', 'c'].map((name) =>
    upstream.addImage(name, '1', { layers: [3 * MIB], seed: name }),
  );
  for (const name of ['a', 'b', 'c', 'a']) await pull(mirror, name, '1');
  await mirror.app.close();
  const { directory, clock } = mirror;
  const again = await startMirror(t, {
    upstreams,
    directory,
    clock,
    cache: { maxSize: '10MiB', keepFree: '0B', lowWatermark: 0.7 },
  });
  upstream.addImage('d', '1', { layers: [3 * MIB], seed: 'd' });
  await pull(again, 'd', '1'); // leaves room for one of the three beside itself
  upstream.requests.length = 0;
  await pull(again, 'a', '1');
  assert.equal(upstream.requests.length, 0, 'used last before the restart');
  await pull(again, 'b', '1');
  assert.deepEqual(
    images.map((image) => getsOf(upstream, image) > 0),
    [false, true, false],
  );
});

test('what is used again in the same second is still used last', async (t) => {
  const { upstream, mirror } = await setUp(t, { maxSize: '10MiB', lowWatermark: 0.8 });
  const hot = upstream.addImage('hot', '1', { layers: [3 * MIB], seed: 'hot' });
  const cold = upstream.addImage('cold', '1', { layers: [3 * MIB], seed: 'cold' });
  const pullAtOnce = async (repository: string, { blobs }: TestImage) => {
    await mirror.get(`/v2/${repository}/manifests/1`);
    for (const blob of blobs) await mirror.get(`/v2/${repository}/blobs/${digestOf(blob)}`);
    await mirror.idle();
  };
  await pullAtOnce('hot', hot);
  await pullAtOnce('cold', cold);
  await mirror.get('/v2/hot/manifests/1'); // no time has passed
  const next = upstream.addImage('next', '1', { layers: [4 * MIB], seed: 'next' });
  await pullAtOnce('next', next);
  upstream.requests.length = 0;
  await pullAtOnce('hot', hot);
  assert.equal(getsOf(upstream, hot), 0, 'the hot image is still here');
  await pullAtOnce('cold', cold);
  assert.ok(getsOf(upstream, cold) > 0, 'the cold one had to go');
});

test('an evicted image is forgotten with its tag: the next pull fetches all of it, and is complete', async (t) => {
  const { upstream, mirror } = await setUp(t, { maxSize: '8MiB' });
  upstream.addImage('a', '1', { layers: [3 * MIB], seed: 'a' });
  await pull(mirror, 'a', '1');
  for (const name of ['b', 'c', 'd']) {
    upstream.addImage(name, '1', { layers: [3 * MIB], seed: name });
    await pull(mirror, name, '1');
  }
  const manifest = await mirror.get('/v2/a/manifests/1');
  assert.equal(manifest.headers['cache-status'], 'millpond; fwd=uri-miss; stored');
  assert.equal(await pull(mirror, 'a', '1'), 200);
});

test('a pinned image stays, whatever comes by', async (t) => {
  const { upstream, mirror } = await setUp(t, { maxSize: '10MiB', pin: [`${HOST}/base/*:1`] });
  const pinned = upstream.addImage('base/os', '1', { layers: [3 * MIB], seed: 'pinned' });
  const other = upstream.addImage('base/os', '2', { layers: [MIB], seed: 'other' });
  await pull(mirror, 'base/os', '1');
  await pull(mirror, 'base/os', '2');
  for (let at = 0; at < 6; at += 1) {
    upstream.addImage('cold', String(at), { layers: [3 * MIB], seed: String(at) });
    assert.equal(await pull(mirror, 'cold', String(at)), 200);
  }
  upstream.requests.length = 0;
  await pull(mirror, 'base/os', '1');
  await pull(mirror, 'base/os', '2');
  assert.equal(getsOf(upstream, pinned), 0);
  assert.ok(getsOf(upstream, other) > 0, 'the pattern does not mean this one');
});

test('what is being read is not evicted, and its reader gets all of it', async (t) => {
  const { upstream, mirror } = await setUp(t, { maxSize: '24MiB' });
  const bytes = noise(12 * MIB, 'read');
  const digest = upstream.addContent(bytes);
  const path = `/v2/a/b/blobs/${digest}`;
  await mirror.get(path);
  await mirror.idle();
  const reading = await request(`${mirror.url}${path}`);
  for (let at = 0; at < 6; at += 1) {
    mirror.clock.advance(2000);
    upstream.addImage('cold', String(at), { layers: [4 * MIB], seed: String(at) });
    assert.equal(await pull(mirror, 'cold', String(at)), 200);
  }
  assert.ok((await mirror.metric('millpond_evictions_total')) > 0);
  assert.ok(Buffer.from(await reading.body.arrayBuffer()).equals(bytes));
  const asked = upstream.count('blob', 'GET');
  assert.ok((await mirror.get(path)).body.equals(bytes));
  assert.equal(upstream.count('blob', 'GET'), asked, 'and it is still there');
});

test('a blob that can never fit goes past the cache, and nothing is evicted for it', async (t) => {
  const { upstream, mirror } = await setUp(t, { maxSize: '6MiB' });
  const small = upstream.addImage('a', '1', { layers: [2 * MIB], seed: 'small' });
  await pull(mirror, 'a', '1');
  const large = upstream.addImage('b', '1', { layers: [8 * MIB], seed: 'large' });
  await mirror.get('/v2/b/manifests/1');
  const [, layer = Buffer.alloc(0)] = large.blobs;
  const reply = await mirror.get(`/v2/b/blobs/${digestOf(layer)}`);
  assert.ok(reply.body.equals(layer));
  assert.equal(reply.headers['cache-status'], 'millpond; fwd=bypass');
  upstream.requests.length = 0;
  await pull(mirror, 'a', '1');
  assert.equal(getsOf(upstream, small), 0);
  assert.equal(await mirror.metric('millpond_evictions_total'), 0);
});

test('a blob of unknown length is stored as far as there is room, and refused where there is none', async (t) => {
  const { upstream, mirror } = await setUp(t, { maxSize: '40MiB' });
  upstream.script({ kind: 'blob' }, (reply) => {
    reply.headers['content-length'] = undefined;
  });
  for (const [size, status] of [
    [20 * MIB, 200],
    [60 * MIB, 502],
  ] as const) {
    const bytes = noise(size, 'unknown length');
    const path = `/v2/a/b/blobs/${upstream.addContent(bytes)}`;
    const reply = await mirror.get(path);
    await mirror.idle();
    assert.equal(reply.status, status);
    assert.equal(reply.body.equals(bytes), status === 200);
    assert.ok((await diskUse(join(mirror.directory, 'data'))) <= 40 * MIB * HARD_LIMIT);
  }
});

test('keepFree leaves a disk that others fill its last bytes: the cache gives way, then stores nothing more', async (t) => {
  let others = 0;
  const diskBytes = 1000 * MIB;
  const fileSystem = {
    ...nodeFileSystem,
    statfs: (async () => ({
      bsize: 4096,
      blocks: diskBytes / 4096,
      bavail: (diskBytes - others) / 4096,
    })) as never,
  };
  const { upstream, mirror } = await setUp(t, { maxSize: '800MiB', keepFree: '100MiB' }, { fileSystem });
  upstream.addImage('a', '1', { layers: [3 * MIB], seed: 'a' });
  await pull(mirror, 'a', '1');
  others = 897 * MIB; // 103 MiB are free, 3 of which are ours to take
  upstream.addImage('b', '1', { layers: [4 * MIB], seed: 'b' });
  await pull(mirror, 'b', '1');
  assert.ok((await mirror.metric('millpond_evictions_total')) > 0, 'the older image gave way');
  others = 999 * MIB;
  const last = upstream.addImage('c', '1', { layers: [20 * MIB], seed: 'c' });
  await mirror.get('/v2/c/manifests/1');
  const [, layer = Buffer.alloc(0)] = last.blobs;
  const reply = await mirror.get(`/v2/c/blobs/${digestOf(layer)}`);
  assert.ok(reply.body.equals(layer));
  assert.equal(reply.headers['cache-status'], 'millpond; fwd=bypass');
});

test('maxSize may be a share of the file system', async (t) => {
  const fileSystem = {
    ...nodeFileSystem,
    statfs: (async () => ({ bsize: 4096, blocks: 1000, bavail: 1000 })) as never,
  };
  const { mirror } = await setUp(t, { maxSize: '80%' }, { fileSystem });
  assert.equal(await mirror.metric('millpond_store_capacity_bytes'), 800 * 4096);
});

test('sealed, nothing is evicted: what is there could not be had again', async (t) => {
  const { upstream, upstreams, mirror } = await setUp(t, { maxSize: '100MiB' });
  for (const name of ['a', 'b', 'c']) {
    upstream.addImage(name, '1', { layers: [3 * MIB], seed: name });
    await pull(mirror, name, '1');
  }
  await mirror.app.close();
  const { directory, clock } = mirror;
  const sealed = await startMirror(t, {
    upstreams,
    directory,
    clock,
    sealed: true,
    cache: { maxSize: '5MiB', keepFree: '0B' },
  });
  for (const name of ['a', 'b', 'c']) assert.equal(await pull(sealed, name, '1'), 200);
  assert.equal(await sealed.metric('millpond_evictions_total'), 0);
});
