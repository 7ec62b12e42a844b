import assert from 'node:assert/strict';
import { test } from 'node:test';
import { errorReply, type Script, ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { startMirror } from '../helpers/start-mirror.ts';

const UP = { upstream: 'docker.io' };

for (const [what, script] of [
  ['a connection that breaks before its reply', (reply) => void (reply.drop = true)],
  ['a 503', (reply) => void Object.assign(reply, errorReply(503, 'UNAVAILABLE'))],
] as [string, Script][]) {
  test(`${what} is retried twice, and the client notices nothing`, async (t) => {
    const upstream = await ScriptedUpstream.start(t);
    const image = upstream.addImage('a/b', '1');
    const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
    upstream.script({}, script, { times: 2 });
    const reply = await mirror.get('/v2/a/b/manifests/1');
    assert.deepEqual([reply.status, reply.body], [200, image.top.bytes]);
    assert.equal(upstream.requests.length, 3);
  });
}

test('retries are bounded', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  upstream.script({}, (reply) => Object.assign(reply, errorReply(503, 'UNAVAILABLE')));
  const reply = await mirror.get('/v2/a/b/manifests/1');
  assert.deepEqual([reply.status, reply.error], [502, 'UNAVAILABLE']);
  assert.equal(upstream.requests.length, 3);
});

test('what upstream refuses is not tried again', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  for (const status of [403, 404, 400, 429]) {
    upstream.clearScripts();
    upstream.requests.length = 0;
    upstream.script({}, (reply) => Object.assign(reply, errorReply(status, 'DENIED')));
    await mirror.get(`/v2/a/b${status}/manifests/1`);
    assert.equal(upstream.requests.length, 1, String(status));
  }
});

test('a dead upstream costs no connection: the breaker opens, and one request per cooldown tries again', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  assert.equal(await mirror.metric('millpond_upstream_up', UP), 1);
  await upstream.close();
  /** Requests to upstream, of twenty pulls of different tags at once. */
  const askedByTwenty = async () => {
    const before = await mirror.metric('millpond_upstream_requests_total');
    const pulls = Array.from({ length: 20 }, (_, tag) => mirror.get(`/v2/a/b/manifests/${tag}`));
    assert.deepEqual([...new Set((await Promise.all(pulls)).map(({ status }) => status))], [502]);
    return (await mirror.metric('millpond_upstream_requests_total')) - before;
  };
  assert.equal((await mirror.get('/v2/a/b/manifests/1')).status, 502);
  assert.equal(await mirror.metric('millpond_upstream_requests_total'), 3);
  assert.equal(await mirror.metric('millpond_upstream_up', UP), 0);
  assert.equal(await askedByTwenty(), 0, 'while the breaker is open');
  mirror.clock.advance(5_000);
  assert.equal(await askedByTwenty(), 1, 'after the cooldown');
  mirror.clock.advance(7_000);
  assert.equal(await askedByTwenty(), 0, 'the next cooldown is twice as long');
  mirror.clock.advance(3_000);
  assert.equal(await askedByTwenty(), 1);
});

test('the request that tries again is alone: all others are refused until it has its answer', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  upstream.addImage('a/b', '0');
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  upstream.script({}, (reply) => {
    reply.drop = true;
  });
  assert.equal((await mirror.get('/v2/a/b/manifests/0')).status, 502);
  assert.equal(await mirror.metric('millpond_upstream_up', UP), 0);
  upstream.clearScripts();
  upstream.requests.length = 0;
  const answer = Promise.withResolvers<void>();
  upstream.script({}, (reply) => void (reply.delay = answer.promise));
  mirror.clock.advance(5_000);
  const trial = mirror.get('/v2/a/b/manifests/0');
  await upstream.waitFor(() => true);
  const others = Promise.all(
    Array.from({ length: 9 }, (_, tag) => mirror.get(`/v2/a/b/manifests/${tag + 1}`)),
  );
  // Under a broken breaker the others would wait for upstream, too: then do not wait for them.
  await Promise.race([others, upstream.waitFor(() => upstream.requests.length > 1)]);
  assert.equal(upstream.requests.length, 1);
  answer.resolve();
  assert.deepEqual([...new Set((await others).map(({ status }) => status))], [502]);
  assert.equal((await trial).status, 200);
  assert.equal((await mirror.get('/v2/a/b/manifests/1')).status, 404, 'an answer closes the breaker');
});

test('an upstream that answers again closes the breaker', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const image = upstream.addImage('a/b', '1');
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  upstream.script({}, (reply) => {
    reply.drop = true;
  });
  assert.equal((await mirror.get('/v2/a/b/manifests/1')).status, 502);
  assert.equal(await mirror.metric('millpond_upstream_up', UP), 0);
  upstream.clearScripts();
  mirror.clock.advance(60_000);
  assert.deepEqual((await mirror.get('/v2/a/b/manifests/1')).body, image.top.bytes);
  assert.equal(await mirror.metric('millpond_upstream_up', UP), 1);
});

test('fallbackUrls are tried in order when url gives no answer, blobs and manifests alike', async (t) => {
  const dead = await ScriptedUpstream.start(t);
  const second = await ScriptedUpstream.start(t);
  const image = second.addImage('a/b', '1', { layers: [5000] });
  const mirror = await startMirror(t, {
    upstreams: { 'docker.io': { url: dead.url, fallbackUrls: [second.url] } },
  });
  await dead.close();
  assert.deepEqual((await mirror.get('/v2/a/b/manifests/1')).body, image.top.bytes);
  assert.equal(await mirror.metric('millpond_upstream_up', UP), 1);
});

test('a 404 of url is an answer: the fallback is not asked', async (t) => {
  const first = await ScriptedUpstream.start(t);
  const second = await ScriptedUpstream.start(t);
  second.addImage('a/b', '1');
  const mirror = await startMirror(t, {
    upstreams: { 'docker.io': { url: first.url, fallbackUrls: [second.url] } },
  });
  assert.equal((await mirror.get('/v2/a/b/manifests/1')).status, 404);
  assert.equal(second.requests.length, 0);
});

test('429 with Retry-After: the client is told, and upstream is left alone for that long', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  upstream.addImage('a/b', '1');
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  upstream.script(
    {},
    (reply) => Object.assign(reply, errorReply(429, 'TOOMANYREQUESTS', { 'retry-after': '30' })),
    { times: 1 },
  );
  for (const left of ['30', '20']) {
    const reply = await mirror.get('/v2/a/b/manifests/1');
    assert.deepEqual(
      [reply.status, reply.error, reply.headers['retry-after']],
      [429, 'TOOMANYREQUESTS', left],
    );
    mirror.clock.advance(10_000);
  }
  assert.equal(upstream.requests.length, 1);
  mirror.clock.advance(10_000);
  assert.equal((await mirror.get('/v2/a/b/manifests/1')).status, 200);
});

test('a 429 for manifests stops requests for manifests, and none for blobs', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const digest = upstream.addContent(Buffer.from('layer'));
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  const header = { 'retry-after': '30' };
  upstream.script({ kind: 'manifest' }, (reply) =>
    Object.assign(reply, errorReply(429, 'TOOMANYREQUESTS', header)),
  );
  assert.equal((await mirror.get('/v2/a/b/manifests/1')).status, 429);
  const refused = await mirror.get('/v2/a/b/manifests/2');
  assert.match(
    refused.body.toString(),
    /answered 429, so the mirror sends it no requests of this kind for another 30 s/,
  );
  assert.equal((await mirror.get(`/v2/a/b/blobs/${digest}`)).status, 200);
  assert.deepEqual([upstream.count('manifest'), upstream.count('blob')], [1, 1]);
});

test('a mirror that is its own upstream says so instead of running in circles', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  upstream.script({ kind: 'manifest' }, (reply, request) => {
    Object.assign(reply, {
      status: 307,
      headers: { location: `${mirror.url}${request.path}` },
      body: undefined,
    });
  });
  const reply = await mirror.get('/v2/a/b/manifests/1');
  assert.deepEqual([reply.status, reply.error], [502, 'UNAVAILABLE']);
  assert.match(reply.body.toString(), /come back to this mirror/);
});

test('more cold blobs than connections wait for one, and none fails', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const digests = Array.from({ length: 100 }, (_, at) => upstream.addContent(Buffer.alloc(2000, at)));
  const mirror = await startMirror(t, {
    upstreams: { 'docker.io': { url: upstream.url, maxConnections: 3 } },
  });
  const replies = await Promise.all(digests.map((digest) => mirror.get(`/v2/a/b/blobs/${digest}`)));
  assert.ok(replies.every(({ status }) => status === 200));
  assert.ok(upstream.totalConnections <= 3, String(upstream.totalConnections));
});
