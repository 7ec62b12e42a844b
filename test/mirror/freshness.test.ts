import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { errorReply, ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { startMirror } from '../helpers/start-mirror.ts';

const MINUTE = 60_000;
const DAY = 24 * 60 * MINUTE;
const LATEST = '/v2/library/alpine/manifests/latest';

async function pulledOnce(t: TestContext, freshness: Record<string, unknown> = {}) {
  const upstream = await ScriptedUpstream.start(t);
  const image = upstream.addImage('library/alpine', 'latest', { seed: 'old' });
  const mirror = await startMirror(t, { upstreams: { 'docker.io': { url: upstream.url, freshness } } });
  await mirror.get(LATEST);
  upstream.requests.length = 0;
  return { upstream, mirror, image };
}

async function setUpWith(
  t: TestContext,
  freshness: Record<string, unknown>,
  server: Record<string, unknown> = {},
) {
  const upstream = await ScriptedUpstream.start(t);
  upstream.addImage('a/b', '1');
  const upstreams = { 'registry.test': { url: upstream.url, freshness } };
  return { upstream, mirror: await startMirror(t, { upstreams, server }) };
}

test('within its TTL a tag asks nobody; past it one HEAD revalidates it', async (t) => {
  const { upstream, mirror, image } = await pulledOnce(t);
  mirror.clock.advance(5 * MINUTE - 1);
  assert.equal((await mirror.get(LATEST)).headers['cache-status'], 'millpond; hit');
  assert.equal(upstream.requests.length, 0);
  mirror.clock.advance(1);
  const reply = await mirror.get(LATEST);
  assert.equal(reply.headers['cache-status'], 'millpond; hit; detail=revalidated');
  assert.deepEqual(reply.body, image.top.bytes);
  assert.deepEqual(
    upstream.requests.map(({ method }) => method),
    ['HEAD'],
  );
  assert.equal((await mirror.get(LATEST)).headers['cache-status'], 'millpond; hit');
});

test('100 clients past the TTL cost one HEAD', async (t) => {
  const { upstream, mirror } = await pulledOnce(t);
  mirror.clock.advance(DAY);
  await Promise.all(Array.from({ length: 100 }, () => mirror.get(LATEST)));
  assert.equal(upstream.requests.length, 1);
});

test('a tag that moved is fetched, and the old digest stays pullable', async (t) => {
  const { upstream, mirror, image } = await pulledOnce(t);
  const moved = upstream.addImage('library/alpine', 'latest', { seed: 'new' });
  mirror.clock.advance(DAY);
  const reply = await mirror.get(LATEST);
  assert.equal(reply.headers['cache-status'], 'millpond; fwd=stale; stored');
  assert.deepEqual(reply.body, moved.top.bytes);
  const old = await mirror.get(`/v2/library/alpine/manifests/${image.top.digest}`);
  assert.deepEqual([old.headers['cache-status'], old.body], ['millpond; hit', image.top.bytes]);
});

test('HEAD past the TTL tells a new digest only when its manifest is stored', async (t) => {
  const { upstream, mirror } = await pulledOnce(t);
  const moved = upstream.addImage('library/alpine', 'latest', { seed: 'new' });
  mirror.clock.advance(DAY);
  const head = await mirror.head(LATEST);
  assert.equal(head.headers['docker-content-digest'], moved.top.digest);
  await upstream.close();
  const byDigest = await mirror.get(`/v2/library/alpine/manifests/${moved.top.digest}`);
  assert.deepEqual(byDigest.body, moved.top.bytes);
});

test('HEAD says moved and GET is refused with 429: the old image is still pullable by tag and digest', async (t) => {
  const { upstream, mirror, image } = await pulledOnce(t);
  upstream.addImage('library/alpine', 'latest', { seed: 'new' });
  upstream.script({ kind: 'manifest', method: 'GET' }, (reply) =>
    Object.assign(reply, errorReply(429, 'TOOMANYREQUESTS')),
  );
  mirror.clock.advance(DAY);
  for (const path of [LATEST, `/v2/library/alpine/manifests/${image.top.digest}`]) {
    const reply = await mirror.get(path);
    assert.deepEqual([reply.status, reply.body], [200, image.top.bytes], path);
  }
});

for (const status of [429, 500, 502, 503, 504, 418]) {
  test(`upstream answering ${status} at revalidation: the stale tag is served with a Warning`, async (t) => {
    const { upstream, mirror, image } = await pulledOnce(t);
    upstream.script({}, (reply) => Object.assign(reply, errorReply(status, 'UNAVAILABLE')));
    mirror.clock.advance(DAY);
    const reply = await mirror.get(LATEST);
    assert.deepEqual([reply.status, reply.body], [200, image.top.bytes]);
    assert.equal(reply.headers['cache-status'], 'millpond; hit; detail=stale');
    assert.match(String(reply.headers['warning']), /^299 - "docker\.io: .*"$/);
  });
}

test('a dead upstream: the stale tag is served up to staleIfError past the TTL, and then no more', async (t) => {
  const { upstream, mirror, image } = await pulledOnce(t);
  await upstream.close();
  mirror.clock.advance(7 * DAY);
  assert.deepEqual((await mirror.get(LATEST)).body, image.top.bytes);
  mirror.clock.advance(5 * MINUTE);
  const reply = await mirror.get(LATEST);
  assert.deepEqual([reply.status, reply.error], [502, 'UNAVAILABLE']);
  const byDigest = await mirror.get(`/v2/library/alpine/manifests/${image.top.digest}`);
  assert.equal(byDigest.headers['cache-status'], 'millpond; hit', 'a digest never expires');
});

test('a deleted tag is forgotten by default', async (t) => {
  const { upstream, mirror, image } = await pulledOnce(t);
  upstream.removeTag('library/alpine', 'latest');
  mirror.clock.advance(DAY);
  const reply = await mirror.get(LATEST);
  assert.deepEqual([reply.status, reply.error], [404, 'MANIFEST_UNKNOWN']);
  await upstream.close();
  assert.notEqual((await mirror.get(LATEST)).status, 200);
  assert.equal((await mirror.get(`/v2/library/alpine/manifests/${image.top.digest}`)).status, 200);
});

test('a deleted tag is kept where the configuration says so', async (t) => {
  const { upstream, mirror } = await pulledOnce(t, { onTagDeleted: 'keep' });
  upstream.removeTag('library/alpine', 'latest');
  mirror.clock.advance(100 * DAY);
  assert.equal((await mirror.get(LATEST)).headers['cache-status'], 'millpond; hit; detail=stale');
});

for (const status of [401, 403]) {
  test(`upstream answering ${status} at revalidation: 403 for the client, and the entry is kept`, async (t) => {
    const { upstream, mirror } = await pulledOnce(t);
    upstream.script({}, (reply) => Object.assign(reply, errorReply(status, 'DENIED')), { times: 2 });
    mirror.clock.advance(DAY);
    const refused = await mirror.get(LATEST);
    assert.deepEqual([refused.status, refused.error], [403, 'DENIED']);
    upstream.clearScripts();
    assert.equal((await mirror.get(LATEST)).headers['cache-status'], 'millpond; hit; detail=revalidated');
  });
}

test('an immutable tag is never revalidated', async (t) => {
  const { upstream, mirror } = await pulledOnce(t);
  upstream.addImage('library/alpine', 'v3.20.1');
  await mirror.get('/v2/library/alpine/manifests/v3.20.1');
  await upstream.close();
  mirror.clock.advance(1000 * DAY);
  assert.equal(
    (await mirror.get('/v2/library/alpine/manifests/v3.20.1')).headers['cache-status'],
    'millpond; hit',
  );
});

test('the clock going back asks upstream, and forward again does no harm', async (t) => {
  const { upstream, mirror } = await pulledOnce(t);
  mirror.clock.advance(-DAY);
  assert.equal((await mirror.get(LATEST)).headers['cache-status'], 'millpond; hit; detail=revalidated');
  mirror.clock.advance(DAY);
  assert.equal((await mirror.get(LATEST)).headers['cache-status'], 'millpond; hit; detail=revalidated');
  assert.equal(upstream.requests.length, 2);
});

test('upstream that names no digest at HEAD is asked by GET', async (t) => {
  const { upstream, mirror } = await pulledOnce(t);
  upstream.script({ method: 'HEAD' }, (reply) => {
    reply.headers['docker-content-digest'] = undefined;
  });
  mirror.clock.advance(DAY);
  assert.equal((await mirror.get(LATEST)).headers['cache-status'], 'millpond; hit; detail=revalidated');
  upstream.addImage('library/alpine', 'other');
  const head = await mirror.head('/v2/library/alpine/manifests/other');
  assert.deepEqual([head.status, typeof head.headers['docker-content-digest']], [200, 'string']);
});

test('a missing manifest is remembered as missing for negativeTtl, and no longer', async (t) => {
  const { upstream, mirror } = await pulledOnce(t);
  const path = '/v2/library/alpine/manifests/sha256-abc.sig';
  for (let ask = 0; ask < 3; ask += 1) {
    const reply = await mirror.get(path);
    assert.deepEqual([reply.status, reply.error], [404, 'MANIFEST_UNKNOWN']);
  }
  assert.equal(upstream.requests.length, 1);
  upstream.addImage('library/alpine', 'sha256-abc.sig');
  mirror.clock.advance(30_000);
  assert.equal((await mirror.get(path)).status, 200);
});

test('a 404 for a client that takes only Docker types is that client’s alone: everybody else keeps the tag', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const image = upstream.addImage('library/alpine', 'latest');
  const docker = 'application/vnd.docker.distribution.manifest.v2+json';
  upstream.script({ kind: 'manifest' }, (reply, { headers }) => {
    if (headers.accept === docker) Object.assign(reply, errorReply(404, 'MANIFEST_UNKNOWN'));
  });
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  assert.deepEqual((await mirror.get(LATEST)).body, image.top.bytes);
  mirror.clock.advance(5 * 60_000 - 1000);
  for (const _again of [1, 2]) assert.equal((await mirror.get(LATEST, { accept: docker })).status, 404);
  assert.equal(upstream.count('manifest', 'GET'), 2, 'the 404 is remembered for that client');

  mirror.clock.advance(2000); // the tag is past its TTL, the 404 is still remembered
  const moved = upstream.addImage('library/alpine', 'latest', { seed: 'moved' });
  const revalidated = await mirror.get(LATEST);
  assert.deepEqual([revalidated.status, revalidated.body], [200, moved.top.bytes]);
  assert.equal((await mirror.get(LATEST)).headers['cache-status'], 'millpond; hit', 'the tag is still known');
});

test('a client that takes no index gets what upstream negotiates for it, and everybody else the index', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const image = upstream.addImage('library/alpine', 'latest', { platforms: ['amd64', 'arm64'] });
  const [single] = image.manifests;
  assert.ok(single);
  upstream.script({ kind: 'manifest' }, (reply, request) => {
    if (request.headers.accept !== single.mediaType) return;
    const body = {
      size: single.bytes.length,
      slice: (start: number, end: number) => single.bytes.subarray(start, end),
    };
    reply.headers['content-type'] = single.mediaType;
    reply.headers['docker-content-digest'] = single.digest;
    reply.headers['content-length'] = String(body.size);
    Object.assign(reply, { body, start: 0, end: body.size });
  });
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  for (let pull = 0; pull < 2; pull += 1) {
    assert.deepEqual((await mirror.get(LATEST, { accept: single.mediaType })).body, single.bytes);
    assert.deepEqual((await mirror.get(LATEST, { accept: '*/*' })).body, image.top.bytes);
    assert.deepEqual((await mirror.get(LATEST)).body, image.top.bytes);
  }
  assert.equal(upstream.requests.length, 2);
  const byDigest = await mirror.get(`/v2/library/alpine/manifests/${image.top.digest}`, {
    accept: single.mediaType,
  });
  assert.deepEqual(
    [byDigest.status, byDigest.body],
    [200, image.top.bytes],
    'a digest does not depend on Accept',
  );
});

test('within staleWhileRevalidate a tag is served at once, and upstream asked once meanwhile; the next pull has the answer', async (t) => {
  const { upstream, mirror } = await setUpWith(t, { tagTtl: '5m', staleWhileRevalidate: '1h' });
  const first = (await mirror.get('/v2/a/b/manifests/1')).body;
  const moved = upstream.addImage('a/b', '1', { seed: 'moved' });
  mirror.clock.advance(10 * 60_000);
  upstream.requests.length = 0;
  const held = Promise.withResolvers<void>();
  upstream.script({ kind: 'manifest', method: 'HEAD' }, (reply) => {
    reply.delay = held.promise;
  });
  for (let pull = 0; pull < 5; pull += 1) {
    const reply = await mirror.get('/v2/a/b/manifests/1');
    assert.deepEqual(reply.body, first, 'nobody waits');
    assert.equal(reply.headers['cache-status'], 'millpond; hit; detail=stale');
    assert.match(String(reply.headers['warning']), /past its TTL and being revalidated/);
  }
  held.resolve();
  await upstream.waitFor(({ kind, method }) => kind === 'manifest' && method === 'GET');
  let reply = await mirror.get('/v2/a/b/manifests/1');
  while (reply.headers['cache-status'] !== 'millpond; hit') reply = await mirror.get('/v2/a/b/manifests/1');
  assert.deepEqual(reply.body, moved.top.bytes);
  assert.deepEqual([upstream.count('manifest', 'HEAD'), upstream.count('manifest', 'GET')], [1, 1]);
});

test('staleWhileRevalidate with a dead upstream serves on, and the log says why', async (t) => {
  const { upstream, mirror } = await setUpWith(t, { tagTtl: '5m', staleWhileRevalidate: '1h' });
  await mirror.get('/v2/a/b/manifests/1');
  await upstream.close();
  mirror.clock.advance(10 * 60_000);
  assert.equal((await mirror.get('/v2/a/b/manifests/1')).status, 200);
  while (!mirror.log.some(({ msg }) => msg === 'serving a stale tag')) await mirror.get('/v2/');
  assert.equal((await mirror.get('/v2/a/b/manifests/1')).status, 200);
});

test('a repository may have a freshness of its own: the first pattern that matches counts', async (t) => {
  const { upstream, mirror } = await setUpWith(t, {
    tagTtl: '5m',
    repositories: [
      { match: 'a/*', tagTtl: '24h' },
      { match: '*', tagTtl: '1m' },
    ],
  });
  upstream.addImage('other/one', '1');
  for (const repository of ['a/b', 'other/one']) await mirror.get(`/v2/${repository}/manifests/1`);
  upstream.requests.length = 0;
  mirror.clock.advance(2 * 60_000);
  for (const repository of ['a/b', 'other/one']) await mirror.get(`/v2/${repository}/manifests/1`);
  assert.deepEqual(
    upstream.requests.map(({ method, path }) => `${method} ${path}`),
    ['HEAD /v2/other/one/manifests/1'],
  );
});

for (const [networks, asked] of [
  [[], 0],
  [['10.0.0.0/8', 'fd00::/8'], 0],
  [['10.0.0.0/8', '127.0.0.0/8'], 1],
] as const) {
  test(`Cache-Control: no-cache of a client on 127.0.0.1 asks upstream ${asked} times with revalidateFrom ${JSON.stringify(networks)}`, async (t) => {
    const { upstream, mirror } = await setUpWith(t, { tagTtl: '24h' }, { revalidateFrom: networks });
    await mirror.get('/v2/a/b/manifests/1');
    await mirror.get('/v2/a/b/manifests/1', { 'cache-control': 'max-age=0, no-cache' });
    assert.equal(upstream.count('manifest', 'HEAD'), asked);
    await mirror.get('/v2/a/b/manifests/1', { 'cache-control': 'no-cache-please' });
    assert.equal(upstream.count('manifest', 'HEAD'), asked);
  });
}

test('a tag that waits for a limit to pass is not served past staleIfError', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const image = upstream.addImage('library/alpine', 'latest');
  const freshness = { tagTtl: '5m', staleIfError: '1m' };
  const mirror = await startMirror(t, { upstreams: { 'docker.io': { url: upstream.url, freshness } } });
  await mirror.get(LATEST);
  upstream.script({ kind: 'manifest' }, (reply) =>
    Object.assign(reply, errorReply(429, 'TOOMANYREQUESTS', { 'retry-after': '300' })),
  );
  mirror.clock.advance(5 * 60_000 + 50_000);
  assert.deepEqual((await mirror.get(LATEST)).body, image.top.bytes);
  mirror.clock.advance(9000);
  assert.equal((await mirror.get(LATEST)).headers['cache-status'], 'millpond; hit; detail=stale');
  mirror.clock.advance(2000);
  assert.equal((await mirror.get(LATEST)).status, 429);
});
