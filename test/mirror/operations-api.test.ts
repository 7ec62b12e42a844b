import assert from 'node:assert/strict';
import { chmod, mkdir, open, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { request } from 'undici';
import { type Digest, digestHex, digestOf } from '../../src/oci/digest.ts';
import { diskUse } from '../helpers/disk-use.ts';
import { noise, type TestImage } from '../helpers/images.ts';
import { errorReply, ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { startMirror, type TestMirror } from '../helpers/start-mirror.ts';

interface ApiReply {
  status: number;
  json: Record<string, unknown>;
}

async function setUp(t: TestContext) {
  const upstream = await ScriptedUpstream.start(t);
  const mirror = await startMirror(t, {
    upstreams: { 'registry.test': { url: upstream.url, aliases: ['old.test'] } },
  });
  return { upstream, mirror };
}

async function api(
  mirror: TestMirror,
  method: 'GET' | 'DELETE' | 'POST',
  path: string,
  headers: Record<string, string> = {},
): Promise<ApiReply> {
  const reply = await request(`${mirror.operationsUrl}/api${path}`, { method, headers });
  return { status: reply.statusCode, json: (await reply.body.json()) as Record<string, unknown> };
}

async function events(mirror: TestMirror, path: string): Promise<Record<string, unknown>[]> {
  const reply = await request(`${mirror.operationsUrl}/api${path}`, { method: 'POST' });
  assert.equal(reply.statusCode, 200);
  assert.equal(reply.headers['content-type'], 'application/x-ndjson');
  const text = await reply.body.text();
  return text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}

/** Everything that the manifests of `reference` list. */
async function pull(mirror: TestMirror, repository: string, reference: string): Promise<void> {
  const manifest = await mirror.get(`/v2/${repository}/manifests/${reference}`);
  assert.equal(manifest.status, 200);
  const { manifests, config, layers } = JSON.parse(manifest.body.toString()) as {
    manifests?: { digest: string }[];
    config?: { digest: string };
    layers?: { digest: string }[];
  };
  for (const { digest } of manifests ?? []) await pull(mirror, repository, digest);
  for (const { digest } of [...(config === undefined ? [] : [config]), ...(layers ?? [])]) {
    await mirror.get(`/v2/${repository}/blobs/${digest}`);
  }
  await mirror.idle();
}

async function names(mirror: TestMirror, query = ''): Promise<unknown[]> {
  const { json } = await api(mirror, 'GET', `/images${query}`);
  return (json['images'] as { name: string }[]).map(({ name }) => name);
}

test('the list shows what was pulled, by tag and by digest, with platforms, size and last use', async (t) => {
  const { upstream, mirror } = await setUp(t);
  const multi = upstream.addImage('app', 'v1', { platforms: ['amd64', 'arm64'], layers: [5000], seed: 'm' });
  const single = upstream.addImage('tool', 'latest', { layers: [7000], seed: 's' });
  const byDigest = upstream.addImage('other', 'unused', { layers: [100], seed: 'd' });
  await pull(mirror, 'app', 'v1');
  mirror.clock.advance(60_000);
  await pull(mirror, 'tool', 'latest');
  await pull(mirror, 'other', byDigest.top.digest);
  const { status, json } = await api(mirror, 'GET', '/images');
  assert.equal(status, 200);
  const sizeOf = (image: TestImage) =>
    [...new Set([image.top, ...image.manifests])].reduce((sum, { bytes }) => sum + bytes.length, 0) +
    image.blobs.reduce((sum, blob) => sum + blob.length, 0);
  const at = (ms: number) => new Date(mirror.clock.now() + ms).toISOString();
  const common = { upstream: 'registry.test', pinned: false };
  assert.deepEqual(json, {
    images: [
      {
        ...common,
        name: 'registry.test/app:v1',
        repository: 'app',
        tag: 'v1',
        digest: multi.top.digest,
        platforms: ['linux/amd64', 'linux/arm64'],
        ...{ state: 'complete', size: sizeOf(multi), stored: sizeOf(multi), missing: { blobs: 0, of: 4 } },
        listed: multi.manifests.map(({ digest }, n) => ({
          ...{ platform: ['linux/amd64', 'linux/arm64'][n], digest, state: 'complete' },
        })),
        usedAt: at(-60_000),
      },
      {
        ...common,
        name: 'registry.test/tool:latest',
        repository: 'tool',
        tag: 'latest',
        digest: single.top.digest,
        platforms: ['linux/amd64'],
        ...{ state: 'complete', size: sizeOf(single), stored: sizeOf(single), missing: { blobs: 0, of: 2 } },
        usedAt: at(0),
      },
      {
        ...common,
        name: `registry.test/other@${byDigest.top.digest}`,
        repository: 'other',
        digest: byDigest.top.digest,
        platforms: ['linux/amd64'],
        ...{
          state: 'complete',
          size: sizeOf(byDigest),
          stored: sizeOf(byDigest),
          missing: { blobs: 0, of: 2 },
        },
        usedAt: at(0),
      },
    ],
  });
});

test('the list can be narrowed by a pattern, and an image that was only asked for by HEAD is not in it', async (t) => {
  const { upstream, mirror } = await setUp(t);
  for (const tag of ['1', '2']) upstream.addImage('a/one', tag, { seed: tag });
  upstream.addImage('a/two', '1', { seed: 'two' });
  for (const [repository, tag] of [
    ['a/one', '1'],
    ['a/two', '1'],
  ] as const)
    await pull(mirror, repository, tag);
  await mirror.head('/v2/a/one/manifests/2');
  assert.deepEqual(await names(mirror), ['registry.test/a/one:1', 'registry.test/a/two:1']);
  assert.deepEqual(await names(mirror, '?pattern=*/two:*'), ['registry.test/a/two:1']);
  assert.deepEqual(await names(mirror, '?pattern=nothing'), []);
});

test('a long list comes in pages, without gaps and doubles, while images come and go', async (t) => {
  const { upstream, mirror } = await setUp(t);
  const image = upstream.addImage('a/b', '0');
  const all = Array.from({ length: 1100 }, (_, at) => `t${String(at).padStart(4, '0')}`);
  for (const tag of all) upstream.addManifest('a/b', image.top.bytes, image.top.mediaType, tag);
  for (const tag of all) await mirror.get(`/v2/a/b/manifests/${tag}`);
  const seen: unknown[] = [];
  let cursor = '';
  for (let page = 0; ; page += 1) {
    const { json } = await api(mirror, 'GET', `/images?cursor=${cursor}`.replace(/\?cursor=$/, ''));
    seen.push(...(json['images'] as { tag: string }[]).map(({ tag }) => tag));
    if (json['next'] === undefined) break;
    cursor = json['next'] as string;
    assert.ok(page < 5, 'it ends');
    await api(mirror, 'DELETE', '/images/registry.test/a/b:t0000'); // a second time it is not there
  }
  assert.deepEqual(seen, all);
});

test('removing a tag forgets it and frees what nothing else needs, at once', async (t) => {
  const { upstream, mirror } = await setUp(t);
  const first = upstream.addImage('a/b', '1', { layers: [50_000], seed: 'first' });
  upstream.addImage('a/b', '2', { layers: [60_000], seed: 'second' });
  await pull(mirror, 'a/b', '1');
  await pull(mirror, 'a/b', '2');
  const blobs = join(mirror.directory, 'data/blobs');
  const before = await diskUse(blobs);
  const { status, json } = await api(mirror, 'DELETE', '/images/registry.test/a/b:1');
  assert.equal(status, 200);
  assert.equal(json['objects'], 3, 'manifest, config and layer');
  assert.equal(before - (await diskUse(blobs)), json['bytes']);
  assert.deepEqual(await names(mirror), ['registry.test/a/b:2']);
  upstream.requests.length = 0;
  await pull(mirror, 'a/b', '2');
  assert.equal(upstream.requests.length, 0);
  await pull(mirror, 'a/b', '1');
  const asked = upstream.requests.map(({ path }) => path);
  assert.ok(asked.includes('/v2/a/b/manifests/1'));
  for (const blob of first.blobs) assert.ok(asked.includes(`/v2/a/b/blobs/${digestOf(blob)}`));
});

test('removing keeps what another tag, another repository or another image needs', async (t) => {
  const { upstream, mirror } = await setUp(t);
  const image = upstream.addImage('a/b', '1', { platforms: ['amd64', 'arm64'], layers: [50_000] });
  upstream.addManifest('a/b', image.top.bytes, image.top.mediaType, 'same');
  upstream.addManifest('c/d', image.top.bytes, image.top.mediaType, '1');
  const [platform] = image.manifests;
  assert.ok(platform !== undefined);
  upstream.addManifest('a/b', platform.bytes, platform.mediaType, 'amd64');
  for (const [repository, tag] of [
    ['a/b', '1'],
    ['a/b', 'same'],
    ['c/d', '1'],
    ['a/b', 'amd64'],
  ] as const)
    await pull(mirror, repository, tag);
  const removals: unknown[] = [];
  for (const name of ['a/b:1', 'a/b:same', 'c/d:1', 'a/b:amd64']) {
    removals.push((await api(mirror, 'DELETE', `/images/registry.test/${name}`)).json['objects']);
  }
  // With the last tag of the index it goes, and its arm64 part; amd64 has a tag of its own.
  assert.deepEqual(removals, [0, 0, 4, 3]);
  assert.equal(await mirror.metric('millpond_store_objects'), 0);
  assert.equal(await diskUse(join(mirror.directory, 'data/blobs')), 0);
});

test('an image can be removed by its digest, and under another name of its upstream', async (t) => {
  const { upstream, mirror } = await setUp(t);
  const image = upstream.addImage('a/b', '1', { layers: [5000] });
  await pull(mirror, 'a/b', '1');
  const { status } = await api(mirror, 'DELETE', `/images/old.test/a/b@${image.top.digest}`);
  assert.equal(status, 200);
  assert.deepEqual(await names(mirror), []);
});

for (const [path, status, message] of [
  ['/images/registry.test/a/b:9', 404, 'registry.test/a/b has no 9 in this mirror'],
  ['/images/elsewhere.test/a/b:1', 404, 'elsewhere.test is not one of the configured upstreams'],
  ['/images/registry.test/a/b', 400, 'name a tag or a digest, so that it is clear what to remove'],
  [
    '/images/registry.test/A:1',
    400,
    'registry.test/A:1 is not an image name: write it like docker.io/library/alpine:3.20',
  ],
] as const) {
  test(`removing ${path} answers ${status} and says why`, async (t) => {
    const { mirror } = await setUp(t);
    assert.deepEqual(await api(mirror, 'DELETE', path), { status, json: { error: message } });
  });
}

test('a web page cannot control the mirror', async (t) => {
  const { mirror } = await setUp(t);
  for (const headers of [{ origin: 'http://evil.test' }, { 'sec-fetch-site': 'cross-site' }] as Record<
    string,
    string
  >[]) {
    assert.equal((await api(mirror, 'POST', '/scrub', headers)).status, 403);
    assert.equal((await api(mirror, 'GET', '/status', headers)).status, 403);
  }
});

test('a cursor that the mirror did not give is refused', async (t) => {
  const { mirror } = await setUp(t);
  const { status, json } = await api(mirror, 'GET', '/images?cursor=xyz');
  assert.deepEqual(
    [status, json],
    [400, { error: 'the cursor is not from this mirror: leave it out to begin with the first page' }],
  );
});

test('the status tells the store, the hit rate and each upstream', async (t) => {
  const { upstream, mirror } = await setUp(t);
  upstream.script({ kind: 'manifest' }, (reply) => {
    reply.headers['ratelimit-limit'] = '100;w=21600';
    reply.headers['ratelimit-remaining'] = '42;w=21600';
  });
  upstream.addImage('a/b', '1', { layers: [] });
  for (let at = 0; at < 4; at += 1) await mirror.get('/v2/a/b/manifests/1');
  const { json } = await api(mirror, 'GET', '/status');
  assert.deepEqual(json, {
    version: 'test',
    startedAt: '2026-01-01T00:00:00.000Z',
    sealed: false,
    configuration: { file: join(mirror.directory, 'millpond.yaml'), lastReload: null, waitsForRestart: [] },
    store: {
      directory: join(mirror.directory, 'data'),
      bytes: 4096,
      capacityBytes: 50 * 2 ** 30,
      freeBytes: (json['store'] as { freeBytes: number }).freeBytes,
      objects: 1,
      evictions: 0,
    },
    requests: {
      total: 4,
      hitRate: 0.75,
      bytes: (json['requests'] as { bytes: number }).bytes,
      byteHitRate: 0.75,
    },
    upstreams: [
      {
        ...{ name: 'registry.test', up: true, outage: null, pausedUntil: null, requests: 1 },
        rateLimit: { limit: 100, remaining: 42, resetsAt: '2026-01-01T06:00:00.000Z' },
      },
    ],
    warm: [],
  });
});

test('the status says why an upstream is down, since when, and when it is asked again; and until when a 429 holds', async (t) => {
  const { upstream, mirror } = await setUp(t);
  const upstreams = async () => (await api(mirror, 'GET', '/status')).json['upstreams'];
  upstream.script({ kind: 'manifest' }, (reply) =>
    Object.assign(reply, errorReply(429, 'TOOMANYREQUESTS', { 'Retry-After': '60' })),
  );
  await mirror.get('/v2/a/b/manifests/1');
  const now = mirror.clock.now();
  const inOneMinute = new Date(now + 60_000).toISOString();
  assert.equal(((await upstreams()) as { pausedUntil: string }[])[0]?.pausedUntil, inOneMinute);
  mirror.clock.advance(60_000);
  await upstream.close();
  await mirror.get('/v2/a/b/manifests/1');
  const [down] = (await upstreams()) as {
    up: boolean;
    pausedUntil: null;
    outage: { reason: string; since: string; retryAt: string };
  }[];
  assert.deepEqual([down?.up, down?.pausedUntil], [false, null]);
  assert.match(down?.outage.reason ?? '', /cannot be reached|refused|ECONNREFUSED/);
  const since = Date.parse(down?.outage.since ?? '');
  assert.ok(since >= now + 60_000 && Date.parse(down?.outage.retryAt ?? '') > since);
});

test('the status shows the last result of each warm list', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  upstream.addImage('a/b', '1', { layers: [] });
  const images = ['registry.test/a/b:1', 'registry.test/a/b:none'];
  const mirror = await startMirror(t, {
    upstreams: { 'registry.test': upstream.url },
    warm: [{ images, every: '1h' }],
  });
  const warm = async () => (await api(mirror, 'GET', '/status')).json['warm'] as { last: object | null }[];
  while ((await warm())[0]?.last === null) await setImmediate();
  const at = new Date(mirror.clock.now()).toISOString();
  assert.deepEqual(await warm(), [{ images, last: { at, images: 1, failed: 1 } }]);
});

async function fileOf(mirror: TestMirror, digest: Digest): Promise<string> {
  const hex = digestHex(digest);
  return join(mirror.directory, 'data/blobs/sha256', hex.slice(0, 2), hex);
}

test('scrub finds a flipped bit, a lost file and a file that nobody knows, and the next pull is right again', async (t) => {
  const { upstream, mirror } = await setUp(t);
  const blobs = ['whole', 'flipped', 'lost'].map((name) => noise(3_000_000, name));
  const digests = blobs.map((blob) => upstream.addContent(blob));
  for (const digest of digests) await mirror.get(`/v2/a/b/blobs/${digest}`);
  await mirror.idle();
  const [, flipped, lost] = digests;
  assert.ok(flipped !== undefined && lost !== undefined);
  await chmod(await fileOf(mirror, flipped), 0o644);
  const file = await open(await fileOf(mirror, flipped), 'r+');
  await file.write(Buffer.from([1]), 0, 1, 2_000_000);
  await file.close();
  await rm(await fileOf(mirror, lost));
  const orphan = noise(1000, 'orphan');
  const place = await fileOf(mirror, digestOf(orphan));
  await mkdir(dirname(place), { recursive: true });
  await writeFile(place, orphan);

  const began = mirror.clock.now();
  const lines = await events(mirror, '/scrub');
  const seconds = (mirror.clock.now() - began) / 1000;
  assert.ok(seconds > 0.089, `it reads 64 MiB in a second at most, and 6 MB in ${seconds} s`);
  assert.deepEqual(lines.at(-1), {
    event: 'done',
    objects: 3,
    bytes: 6_000_000,
    damaged: 2,
    adopted: 1,
  });
  assert.deepEqual(
    new Set(lines.filter(({ event }) => event === 'damaged').map(({ digest }) => digest)),
    new Set([flipped, lost]),
  );
  assert.equal(lines[0]?.['totalBytes'], 9_000_000);
  for (const [at, digest] of digests.entries()) {
    assert.deepEqual((await mirror.get(`/v2/a/b/blobs/${digest}`)).body, blobs[at]);
  }
  assert.equal(upstream.count('blob', 'GET'), 5);
  await mirror.idle();
  assert.deepEqual((await events(mirror, '/scrub')).at(-1), {
    event: 'done',
    objects: 4,
    bytes: 9_001_000,
    damaged: 0,
    adopted: 0,
  });
});

test('one scrub runs at a time, and one whose client leaves ends', async (t) => {
  const { upstream, mirror } = await setUp(t);
  await mirror.get(`/v2/a/b/blobs/${upstream.addContent(noise(3_000_000, 'x'))}`);
  await mirror.idle();
  mirror.clock.impatient = false; // it waits between its reads
  const first = await request(`${mirror.operationsUrl}/api/scrub`, { method: 'POST' });
  const second = await api(mirror, 'POST', '/scrub');
  assert.deepEqual([second.status, second.json['error']], [409, 'a scrub is running already']);
  first.body.on('error', () => undefined).destroy();
  mirror.clock.impatient = true;
  for (;;) {
    const reply = await request(`${mirror.operationsUrl}/api/scrub`, { method: 'POST' });
    const text = await reply.body.text();
    if (reply.statusCode === 409) continue; // the first is on its way out
    assert.match(text, /"event":"done"/);
    return;
  }
});

test('scrubInterval scrubs by itself', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const mirror = await startMirror(t, {
    upstreams: { 'docker.io': upstream.url },
    cache: { scrubInterval: '7d' },
  });
  const digest = upstream.addContent(noise(1000, 'x'));
  await mirror.get(`/v2/a/b/blobs/${digest}`);
  await mirror.idle();
  await rm(await fileOf(mirror, digest));
  mirror.clock.advance(7 * 24 * 3_600_000);
  while (!mirror.log.some(({ msg }) => msg === 'scrubbed')) await mirror.metric('millpond_store_objects');
  assert.equal(await mirror.metric('millpond_store_objects'), 0);
});
