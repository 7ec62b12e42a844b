import assert from 'node:assert/strict';
import type { AddressInfo } from 'node:net';
import { createServer, type Socket } from 'node:net';
import { test } from 'node:test';
import { cleanUp } from '../helpers/cleanup.ts';
import { errorReply, type Reply, ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { startMirror } from '../helpers/start-mirror.ts';

const MINUTE = 60_000;
const DAY = 24 * 60 * MINUTE;
const TAG = '/v2/a/b/manifests/1';

const status = (code: number) => (reply: Reply) => Object.assign(reply, errorReply(code, 'WHATEVER'));
const breaksOff = (reply: Reply) => {
  reply.drop = true;
};
const nonsense = status(200);

interface Row {
  what: string;
  ageMs: number;
  policy?: Record<string, unknown>;
  upstream?: (reply: Reply) => void;
  moved?: true;
  expected: { status: number; cacheStatus: string; warning?: RegExp; asked: number };
  /** What the tag is worth afterwards, when upstream has come back. */
  after?: 'still cached' | 'forgotten';
}

const STALE = 'millpond; hit; detail=stale';

/** The README's table, row by row; its first column is `what`. */
const ROWS: Row[] = [
  {
    what: 'within tagTtl',
    ageMs: MINUTE,
    upstream: breaksOff,
    expected: { status: 200, cacheStatus: 'millpond; hit', asked: 0 },
  },
  {
    what: 'past it, the same digest',
    ageMs: 10 * MINUTE,
    expected: { status: 200, cacheStatus: 'millpond; hit; detail=revalidated', asked: 1 },
  },
  {
    what: 'past it, another digest',
    ageMs: 10 * MINUTE,
    moved: true,
    expected: { status: 200, cacheStatus: 'millpond; fwd=stale; stored', asked: 2 },
  },
  {
    what: 'past it, the connection breaks',
    ageMs: 10 * MINUTE,
    upstream: breaksOff,
    expected: { status: 200, cacheStatus: STALE, warning: /did not answer|served as it was/, asked: 3 },
    after: 'still cached',
  },
  ...[500, 502, 503, 504].map(
    (code): Row => ({
      what: `past it, ${code}`,
      ageMs: 10 * MINUTE,
      upstream: status(code),
      expected: {
        status: 200,
        cacheStatus: STALE,
        warning: new RegExp(String(code)),
        asked: code === 504 ? 1 : 3,
      }, // a timeout is not tried again
      after: 'still cached',
    }),
  ),
  {
    what: 'past it, 429',
    ageMs: 10 * MINUTE,
    upstream: status(429),
    expected: { status: 200, cacheStatus: STALE, warning: /served as it was at 2026-01-01/, asked: 1 },
    after: 'still cached',
  },
  {
    what: 'past it, nonsense',
    ageMs: 10 * MINUTE,
    upstream: nonsense,
    expected: { status: 200, cacheStatus: STALE, warning: /is not a manifest/, asked: 2 },
    after: 'still cached',
  },
  {
    what: 'past tagTtl and staleIfError, 503',
    ageMs: 8 * DAY,
    upstream: status(503),
    expected: { status: 502, cacheStatus: 'millpond; fwd=uri-miss; detail=UNAVAILABLE', asked: 3 },
    after: 'still cached',
  },
  {
    what: 'past it, 404, onTagDeleted: forget',
    ageMs: 10 * MINUTE,
    upstream: status(404),
    expected: { status: 404, cacheStatus: 'millpond; fwd=uri-miss; detail=MANIFEST_UNKNOWN', asked: 1 },
    after: 'forgotten',
  },
  {
    what: 'past it, 404, onTagDeleted: keep',
    ageMs: 10 * MINUTE,
    policy: { onTagDeleted: 'keep' },
    upstream: status(404),
    expected: { status: 200, cacheStatus: STALE, warning: /served as it was/, asked: 1 },
    after: 'still cached',
  },
  ...[401, 403].map(
    (code): Row => ({
      what: `past it, ${code}`,
      ageMs: 10 * MINUTE,
      upstream: status(code),
      expected: {
        status: 403,
        cacheStatus: 'millpond; fwd=uri-miss; detail=DENIED',
        asked: code === 401 ? 2 : 1, // where a challenge could be is looked up
      },
      after: 'still cached',
    }),
  ),
];

for (const { what, ageMs, policy = {}, upstream: script, moved, expected, after } of ROWS) {
  test(`a tag ${what}: ${expected.status}, ${expected.cacheStatus}`, async (t) => {
    const upstream = await ScriptedUpstream.start(t);
    upstream.addImage('a/b', '1');
    const freshness = { tagTtl: '5m', staleIfError: '7d', ...policy };
    const mirror = await startMirror(t, { upstreams: { 'registry.test': { url: upstream.url, freshness } } });
    const first = await mirror.get(TAG);
    upstream.requests.length = 0;
    if (moved) upstream.addImage('a/b', '1', { seed: 'moved' });
    if (script !== undefined) upstream.script({}, script);
    mirror.clock.advance(ageMs);
    const reply = await mirror.get(TAG);
    assert.deepEqual(
      [reply.status, reply.headers['cache-status'], upstream.requests.length],
      [expected.status, expected.cacheStatus, expected.asked],
    );
    assert.match(String(reply.headers['warning'] ?? ''), expected.warning ?? /^$/);
    if (expected.status === 200) assert.equal(reply.body.equals(first.body), moved !== true);
    if (after === undefined) return;
    upstream.clearScripts();
    mirror.clock.advance(5 * MINUTE); // long enough for a breaker
    upstream.requests.length = 0;
    assert.equal((await mirror.get(TAG)).status, 200);
    const gets = upstream.count('manifest', 'GET');
    assert.equal(gets, after === 'forgotten' ? 1 : 0, `${gets} GETs afterwards`);
  });
}

test('an upstream that accepts and never answers: warm pulls open no connection, the first revalidation ends at its timeout, later ones at once', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  upstream.addImage('a/b', '1');
  const settings = { url: upstream.url, headersTimeout: '500ms', freshness: { tagTtl: '5m' } };
  const first = await startMirror(t, { upstreams: { 'registry.test': settings } });
  await first.get(TAG);
  await first.app.close();
  const sockets: Socket[] = [];
  const hole = createServer((socket) => void sockets.push(socket.on('error', () => undefined)));
  await new Promise<void>((resolve) => hole.listen(0, '127.0.0.1', resolve));
  cleanUp(t, () => {
    for (const socket of sockets) socket.destroy();
    hole.close();
  });
  const url = `http://127.0.0.1:${(hole.address() as AddressInfo).port}`;
  const { directory, clock } = first;
  const mirror = await startMirror(t, {
    upstreams: { 'registry.test': { ...settings, url } },
    directory,
    clock,
  });
  assert.equal((await mirror.get(TAG)).headers['cache-status'], 'millpond; hit');
  assert.equal(sockets.length, 0);
  clock.advance(10 * MINUTE);
  assert.equal((await mirror.get(TAG)).headers['cache-status'], STALE);
  const opened = sockets.length;
  assert.ok(opened >= 1);
  for (let pull = 0; pull < 5; pull += 1) {
    assert.equal((await mirror.get(TAG)).headers['cache-status'], STALE);
  }
  assert.equal(sockets.length, opened, 'the breaker answers');
});
