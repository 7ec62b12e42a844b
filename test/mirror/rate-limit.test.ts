import assert from 'node:assert/strict';
import { suite, type TestContext, test } from 'node:test';
import { errorReply, ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { startMirror } from '../helpers/start-mirror.ts';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const LATEST = '/v2/library/alpine/manifests/latest';

/** A mirror of a Docker Hub that reports `remaining` pulls left and counts only GETs of manifests. */
async function hub(t: TestContext, settings: Record<string, unknown> = {}, auth = false) {
  const upstream = await ScriptedUpstream.start(t, auth ? { auth: {} } : {});
  const image = upstream.addImage('library/alpine', 'latest', { seed: 'old' });
  const state = { remaining: 100 };
  upstream.script({ kind: 'manifest' }, ({ headers, status }, { method }) => {
    if (status !== 200) return;
    if (method === 'GET') state.remaining -= 1;
    headers['ratelimit-limit'] = '100 ; w=3600';
    headers['ratelimit-remaining'] = `${state.remaining} ; w=3600`;
    headers['docker-ratelimit-source'] = '192.0.2.1';
  });
  const mirror = await startMirror(t, { upstreams: { 'docker.io': { url: upstream.url, ...settings } } });
  const methods = () => upstream.requests.splice(0).map(({ method }) => method);
  return { upstream, image, state, mirror, methods };
}

suite('what a tag costs of the quota', () => {
  test('a hundred pulls within its TTL cost one GET, a hundred after each TTL one HEAD', async (t) => {
    const { mirror, methods, state } = await hub(t);
    const pull100 = async () => {
      for (let pull = 0; pull < 100; pull += 1) assert.equal((await mirror.get(LATEST)).status, 200);
      return methods();
    };
    assert.deepEqual(await pull100(), ['GET']);
    for (const _ttl of [1, 2, 3]) {
      mirror.clock.advance(5 * MINUTE);
      assert.deepEqual(await pull100(), ['HEAD']);
    }
    assert.equal(state.remaining, 99);
    assert.equal(await mirror.metric('millpond_upstream_ratelimit_remaining'), 99);
  });

  test('and one token for each lifetime of it, however many pulls', async (t) => {
    const { mirror, methods, upstream } = await hub(t, {}, true);
    for (let pull = 0; pull < 100; pull += 1) await mirror.get(LATEST);
    assert.deepEqual(methods(), ['GET', 'GET'], 'the first is answered with the challenge');
    assert.equal(upstream.tokens?.requests.length, 1);
    for (let ttl = 1; ttl <= 12; ttl += 1) {
      mirror.clock.advance(5 * MINUTE);
      for (let pull = 0; pull < 10; pull += 1) await mirror.get(LATEST);
    }
    assert.deepEqual(methods(), Array(12).fill('HEAD'), 'no challenge is asked for again');
    assert.equal(upstream.tokens.requests.length, 13, 'tokens live for five minutes, as tags do');
  });
});

suite('the last pulls are kept for what is not cached', () => {
  test('a tag that moved is served as it was until more are left, and asked about once a TTL', async (t) => {
    const { mirror, methods, upstream, image, state } = await hub(t, { rateLimit: { reserve: 10 } });
    state.remaining = 11;
    await mirror.get(LATEST);
    const moved = upstream.addImage('library/alpine', 'latest', { seed: 'new' });
    methods();
    for (const _ttl of [1, 2]) {
      mirror.clock.advance(5 * MINUTE);
      for (let pull = 0; pull < 20; pull += 1) {
        const reply = await mirror.get(LATEST);
        assert.deepEqual(reply.body, image.top.bytes);
        assert.equal(reply.headers['cache-status'], 'millpond; hit; detail=stale');
        assert.match(
          String(reply.headers['warning']),
          /docker\.io: says that 10 pulls are left; rateLimit\.reserve keeps them .*; served as it was at /,
        );
      }
      assert.deepEqual(methods(), ['HEAD']);
    }
    state.remaining = 12;
    mirror.clock.advance(5 * MINUTE);
    assert.deepEqual((await mirror.get(LATEST)).body, moved.top.bytes);
    assert.deepEqual(methods(), ['HEAD', 'GET']);
  });

  test('one that did not move is confirmed, because a HEAD costs nothing', async (t) => {
    const { mirror, methods, state } = await hub(t, { rateLimit: { reserve: 100 } });
    await mirror.get(LATEST);
    mirror.clock.advance(5 * MINUTE);
    assert.equal((await mirror.get(LATEST)).headers['cache-status'], 'millpond; hit; detail=revalidated');
    assert.deepEqual(methods(), ['GET', 'HEAD']);
    assert.equal(state.remaining, 99);
  });

  test('what is not cached is fetched, by tag and by digest', async (t) => {
    const { mirror, upstream } = await hub(t, { rateLimit: { reserve: 100 } });
    await mirror.get(LATEST);
    const other = upstream.addImage('library/busybox', 'latest');
    const third = upstream.addImage('library/debian', 'latest');
    assert.deepEqual((await mirror.get('/v2/library/busybox/manifests/latest')).body, other.top.bytes);
    const byDigest = await mirror.get(`/v2/library/debian/manifests/${third.top.digest}`);
    assert.deepEqual(byDigest.body, third.top.bytes);
  });

  test('and so is what is too stale to be served', async (t) => {
    const { mirror, upstream } = await hub(t, {
      rateLimit: { reserve: 100 },
      freshness: { staleIfError: '30m' },
    });
    await mirror.get(LATEST);
    const moved = upstream.addImage('library/alpine', 'latest', { seed: 'new' });
    mirror.clock.advance(35 * MINUTE);
    assert.deepEqual((await mirror.get(LATEST)).body, moved.top.bytes);
  });

  test('for no longer than the window that upstream named', async (t) => {
    const { mirror, upstream } = await hub(t, { rateLimit: { reserve: 100 } });
    await mirror.get(LATEST);
    upstream.clearScripts(); // from now on upstream says nothing about a limit
    const moved = upstream.addImage('library/alpine', 'latest', { seed: 'new' });
    mirror.clock.advance(HOUR - 1);
    assert.equal((await mirror.get(LATEST)).headers['cache-status'], 'millpond; hit; detail=stale');
    mirror.clock.advance(5 * MINUTE);
    assert.deepEqual((await mirror.get(LATEST)).body, moved.top.bytes);
  });

  test('by default that is none: the last pull is spent, and none is asked for that upstream would refuse', async (t) => {
    const { mirror, methods, upstream, state } = await hub(t);
    await mirror.get(LATEST);
    state.remaining = 1;
    upstream.addImage('library/alpine', 'latest', { seed: 'new' });
    mirror.clock.advance(5 * MINUTE);
    assert.equal((await mirror.get(LATEST)).headers['cache-status'], 'millpond; fwd=stale; stored');
    methods();
    upstream.addImage('library/alpine', 'latest', { seed: 'newer' });
    mirror.clock.advance(5 * MINUTE);
    assert.equal((await mirror.get(LATEST)).headers['cache-status'], 'millpond; hit; detail=stale');
    assert.deepEqual(methods(), ['HEAD']);
  });

  test('a clock that is turned back does not keep them for ever', async (t) => {
    const { mirror, upstream } = await hub(t, { rateLimit: { reserve: 100 } });
    await mirror.get(LATEST);
    const moved = upstream.addImage('library/alpine', 'latest', { seed: 'new' });
    mirror.clock.advance(5 * MINUTE);
    assert.equal((await mirror.get(LATEST)).headers['cache-status'], 'millpond; hit; detail=stale');
    upstream.clearScripts();
    mirror.clock.advance(-DAY);
    assert.deepEqual((await mirror.get(LATEST)).body, moved.top.bytes);
  });
});

suite('an upstream that answers 429 is left alone, and stale tags are served', () => {
  const quota = JSON.stringify({
    errors: [
      {
        code: 'TOOMANYREQUESTS',
        message:
          'You have reached your pull rate limit. You may increase the limit by authenticating and upgrading: https://www.docker.com/increase-rate-limit',
      },
    ],
  });
  for (const [what, body, retryAfter, silence, said] of [
    [
      'the quota',
      quota,
      undefined,
      MINUTE,
      /429: TOOMANYREQUESTS You have .*\(the pull quota is used up: .*credentials .*\)/,
    ],
    ['the quota, with Retry-After', quota, '1800', 30 * MINUTE, /the pull quota is used up/],
    [
      'too many requests',
      '429 Too Many Requests',
      undefined,
      5000,
      /\(too many requests in a short time, not the pull quota: /,
    ],
    ['too many requests, with Retry-After', 'slow down', '30', 30_000, /not the pull quota/],
  ] as const) {
    test(what, async (t) => {
      const { mirror, upstream, methods, image } = await hub(t, { freshness: { tagTtl: '1s' } });
      await mirror.get(LATEST);
      methods();
      upstream.script(
        { kind: 'manifest' },
        (reply) => {
          const bytes = Buffer.from(body);
          Object.assign(reply, errorReply(429, 'X', { 'retry-after': retryAfter }), {
            body: { size: bytes.length, slice: (from: number, to: number) => bytes.subarray(from, to) },
            end: bytes.length,
          });
          reply.headers['content-length'] = String(bytes.length);
          reply.headers['content-type'] = body === quota ? 'application/json' : 'text/plain';
        },
        { times: 1 },
      );
      const cold = await mirror.get('/v2/library/busybox/manifests/latest');
      assert.deepEqual([cold.status, cold.error], [429, 'TOOMANYREQUESTS']);
      assert.equal(cold.headers['retry-after'], String(silence / 1000));
      assert.match(cold.body.toString(), said);
      const lines = mirror.log.filter(
        ({ msg }) => msg === 'upstream rate limit: requests of this kind stop until it ends',
      );
      assert.equal(lines.length, 1);
      assert.match(JSON.stringify(lines), said);
      assert.deepEqual(methods(), ['GET']);
      mirror.clock.advance(silence - 1);
      for (let pull = 0; pull < 20; pull += 1) {
        const reply = await mirror.get(LATEST);
        assert.deepEqual(reply.body, image.top.bytes);
        assert.equal(reply.headers['cache-status'], 'millpond; hit; detail=stale');
        assert.equal((await mirror.get('/v2/library/debian/manifests/latest')).status, 429);
      }
      assert.deepEqual(methods(), [], 'nobody is asked');
      mirror.clock.advance(1001);
      assert.equal((await mirror.get(LATEST)).headers['cache-status'], 'millpond; hit; detail=revalidated');
    });
  }
});
