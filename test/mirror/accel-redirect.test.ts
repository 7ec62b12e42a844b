import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { noise } from '../helpers/images.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { startMirror } from '../helpers/start-mirror.ts';

const FROM_FRONT = { 'x-sendfile-type': 'X-Accel-Redirect' };
const BYTES = noise(2_000_000, 'accelerated');
const TEN_MINUTES_MS = 600_000;

async function setUp(
  t: TestContext,
  server: Record<string, unknown> = { accelRedirect: '/sent/', trustedProxies: ['127.0.0.1'] },
) {
  const upstream = await ScriptedUpstream.start(t);
  const digest = upstream.addContent(BYTES);
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url }, server });
  return { upstream, mirror, digest, path: `/v2/a/b/blobs/${digest}` };
}

test('a warm blob that was read whole is handed to the front server, with the file’s place below its location', async (t) => {
  const { mirror, digest, path } = await setUp(t);
  const cold = await mirror.get(path, FROM_FRONT);
  assert.equal(cold.headers['x-accel-redirect'], undefined, 'a cold blob is ours to send');
  assert.ok(cold.body.equals(BYTES));
  await mirror.idle();
  const checked = await mirror.get(path, FROM_FRONT);
  assert.ok(checked.body.equals(BYTES), 'nor is it handed over before it was read and checked once');
  const handed = await mirror.get(path, FROM_FRONT);
  assert.deepEqual([handed.status, handed.body.length], [200, 0]);
  const place = String(handed.headers['x-accel-redirect']);
  assert.ok(place.startsWith('/sent/sha256/'));
  const file = join(mirror.directory, 'data/blobs', place.slice('/sent/'.length));
  assert.ok((await readFile(file)).equals(BYTES));
  assert.equal(handed.headers['docker-content-digest'], digest);
  assert.equal(handed.headers['content-type'], 'application/octet-stream');
  assert.equal(handed.headers['cache-status'], 'millpond; hit');
  assert.equal(await mirror.metric('millpond_response_bytes_total'), 3 * BYTES.length);
});

test('a range of it is handed over, too, and one that cannot be satisfied is refused', async (t) => {
  const { mirror, path } = await setUp(t);
  for (let pull = 0; pull < 2; pull += 1) {
    await mirror.get(path);
    await mirror.idle();
  }
  const handed = await mirror.get(path, { ...FROM_FRONT, range: 'bytes=100-199' });
  assert.ok(handed.headers['x-accel-redirect'] !== undefined);
  const refused = await mirror.get(path, { ...FROM_FRONT, range: 'bytes=2000000-' });
  assert.deepEqual([refused.status, refused.headers['x-accel-redirect']], [416, undefined]);
});

test('after ten minutes a blob is read and checked by the mirror again before it is handed over', async (t) => {
  const { mirror, path } = await setUp(t);
  for (let pull = 0; pull < 2; pull += 1) {
    await mirror.get(path);
    await mirror.idle();
  }
  mirror.clock.advance(TEN_MINUTES_MS);
  assert.equal((await mirror.get(path, FROM_FRONT)).headers['x-accel-redirect'], undefined);
  assert.ok((await mirror.get(path, FROM_FRONT)).headers['x-accel-redirect'] !== undefined);
});

test('a client that reaches the mirror directly gets its blobs from the mirror', async (t) => {
  const { mirror, path } = await setUp(t);
  for (let pull = 0; pull < 3; pull += 1) {
    const reply = await mirror.get(path);
    await mirror.idle();
    assert.ok(reply.body.equals(BYTES));
    assert.equal(reply.headers['x-accel-redirect'], undefined);
  }
});

test('a client that is not a trusted proxy cannot ask for the hand-over: it would get an empty body', async (t) => {
  const { mirror, path } = await setUp(t, { accelRedirect: '/sent/', trustedProxies: ['192.0.2.1'] });
  for (let pull = 0; pull < 3; pull += 1) {
    const reply = await mirror.get(path, FROM_FRONT);
    await mirror.idle();
    assert.ok(reply.body.equals(BYTES));
    assert.equal(reply.headers['x-accel-redirect'], undefined);
  }
});

test('without accelRedirect nothing is handed over, whoever asks for it', async (t) => {
  const { mirror, path } = await setUp(t, {});
  for (let pull = 0; pull < 3; pull += 1) {
    const reply = await mirror.get(path, FROM_FRONT);
    await mirror.idle();
    assert.equal(reply.headers['x-accel-redirect'], undefined);
  }
});
