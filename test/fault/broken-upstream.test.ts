import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { noise } from '../helpers/images.ts';
import {
  errorReply,
  ScriptedUpstream,
  type SeenRequest,
  type UpstreamOptions,
} from '../helpers/scripted-upstream.ts';
import { startMirror } from '../helpers/start-mirror.ts';

const MIB = 1024 * 1024;
const blob = noise(8 * MIB, 'broken upstream');

const from = (request: SeenRequest | undefined) =>
  Number(/^bytes=(\d+)-/.exec(request?.headers.range ?? '')?.[1]);

async function setUp(t: TestContext, options: UpstreamOptions = {}) {
  const upstream = await ScriptedUpstream.start(t, options);
  const path = `/v2/a/b/blobs/${upstream.addContent(blob)}`;
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  return { upstream, mirror, path };
}

test('upstream breaking off mid-body is resumed by Range from what is here, and the client notices nothing', async (t) => {
  const { upstream, mirror, path } = await setUp(t);
  upstream.script(
    { kind: 'blob' },
    (reply) => {
      reply.cutAfter = 3 * MIB;
    },
    { times: 2 },
  );
  const reply = await mirror.get(path);
  assert.ok(reply.body.equals(blob));
  assert.equal(reply.headers['cache-status'], 'millpond; fwd=uri-miss; stored');
  const [first, second, third] = upstream.requests;
  assert.equal(first?.headers.range, undefined);
  assert.ok(from(second) > 0 && from(second) <= 3 * MIB, String(second?.headers.range));
  assert.ok(from(third) > from(second) && from(third) <= 6 * MIB, String(third?.headers.range));
  assert.equal(await mirror.metric('millpond_ingest_resumes_total'), 2);
});

test('an upstream that ignores Range when it is resumed: the prefix is skipped', async (t) => {
  const { upstream, mirror, path } = await setUp(t);
  upstream.script(
    { kind: 'blob' },
    (reply) => {
      reply.cutAfter = 3 * MIB;
    },
    { times: 1 },
  );
  upstream.script({ kind: 'blob' }, (reply) => {
    if (reply.status !== 206) return;
    const headers = { ...reply.headers, 'content-range': undefined, 'content-length': String(blob.length) };
    Object.assign(reply, { status: 200, headers, start: 0, end: blob.length });
  });
  assert.ok((await mirror.get(path)).body.equals(blob));
  assert.equal(upstream.count('blob', 'GET'), 2);
});

test('a signed URL that expires mid-download: the registry is asked for a new one, and the digest is still right', async (t) => {
  const { upstream, mirror, path } = await setUp(t, { cdn: true });
  upstream.script(
    { kind: 'cdn' },
    (reply) => {
      reply.cutAfter = 2 * MIB;
      upstream.expireSignatures();
    },
    { times: 1 },
  );
  assert.ok((await mirror.get(path)).body.equals(blob));
  assert.deepEqual([upstream.count('blob', 'GET'), upstream.count('cdn', 'GET')], [2, 2]);
});

test('an upstream that breaks off again and again, some attempts without a byte, is resumed as long as bytes come', async (t) => {
  const { upstream, mirror, path } = await setUp(t);
  let attempts = 0;
  upstream.script({ kind: 'blob' }, (reply) => {
    attempts += 1;
    reply.cutAfter = attempts % 4 === 1 ? MIB : 0; // three in a row bring nothing
  });
  assert.ok((await mirror.get(path)).body.equals(blob));
  assert.equal(upstream.blobBytesSent(), blob.length);
});

test('an upstream that accepts and brings nothing is given up after bounded attempts, and the client is cut', async (t) => {
  const { upstream, mirror, path } = await setUp(t);
  upstream.script({ kind: 'blob' }, (reply) => {
    reply.cutAfter = reply.status === 206 ? 0 : MIB;
  });
  await assert.rejects(mirror.get(path), { code: 'UND_ERR_SOCKET' });
  assert.ok(upstream.count('blob', 'GET') <= 10, String(upstream.count('blob', 'GET')));
  upstream.clearScripts();
  const before = upstream.requests.length;
  assert.ok((await mirror.get(path)).body.equals(blob));
  assert.ok(upstream.requests.length > before, 'the next request begins anew');
});

test('a stall mid-body is broken by the inactivity timeout and resumed; a slow body that moves is not', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const digest = upstream.addContent(blob);
  const never = Promise.withResolvers<void>();
  const path = `/v2/a/b/blobs/${digest}`;
  const mirror = await startMirror(t, {
    upstreams: { 'docker.io': { url: upstream.url, bodyTimeout: '1s' } },
  });
  upstream.script(
    { kind: 'blob' },
    (reply) => {
      reply.stall = { after: 2 * MIB, until: never.promise };
    },
    { times: 1 },
  );
  // Slower in all than the timeout, but never silent for so long.
  upstream.script({ kind: 'blob' }, (reply) => {
    reply.rate = 4 * MIB;
  });
  assert.ok((await mirror.get(path)).body.equals(blob));
  assert.equal(upstream.count('blob', 'GET'), 2);
});

for (const status of [500, 502, 503, 504]) {
  test(`a blob that upstream answers with ${status} is an error for the client, and nothing is remembered of it`, async (t) => {
    const { upstream, mirror, path } = await setUp(t);
    upstream.script({}, (reply) => Object.assign(reply, errorReply(status, 'UNAVAILABLE')));
    const reply = await mirror.get(path);
    assert.deepEqual([reply.status, reply.error], [status === 504 ? 504 : 502, 'UNAVAILABLE']);
    upstream.clearScripts();
    assert.equal((await mirror.get(path)).status, 200);
  });
}

test('a refused connection, a name that does not resolve: the message names the upstream and the reason', async (t) => {
  const mirror = await startMirror(t, {
    upstreams: { 'docker.io': 'http://127.0.0.1:9', 'ghcr.io': 'http://registry.invalid' },
  });
  for (const [name, reason] of [
    ['docker.io', /docker\.io: .*refused/],
    ['ghcr.io', /ghcr\.io: its name registry\.invalid cannot be resolved \((ENOTFOUND|EAI_AGAIN)\)/],
  ] as const) {
    const reply = await mirror.get(`/v2/${name}/a/b/manifests/1`);
    assert.equal(reply.status, 502);
    assert.match(reply.body.toString(), reason);
    assert.match(JSON.stringify(mirror.log), reason);
  }
});
