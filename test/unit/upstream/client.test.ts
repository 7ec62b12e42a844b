import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { suite, type TestContext, test } from 'node:test';
import { parseRepository, parseTag } from '../../../src/oci/reference.ts';
import { cleanUp } from '../../helpers/cleanup.ts';
import { CONTEXT } from '../../helpers/request-context.ts';
import { errorReply, ScriptedUpstream } from '../../helpers/scripted-upstream.ts';
import { startClient } from '../../helpers/test-client.ts';
import { TokenServer } from '../../helpers/token-server.ts';

const HOUR = 3_600_000;
const REPOSITORY = parseRepository('org/app') ?? assert.fail();
const TAG = parseTag('1') ?? assert.fail();
const LAYER = Buffer.from('layer');
/** Far more than the mirror reads to keep a connection. */
const LONG_BODY = Buffer.alloc(8_000_000, ' ');
const MAX_CONNECTIONS = 3;

async function registryWithTokens(t: TestContext) {
  const registry = await ScriptedUpstream.start(t, { auth: {} });
  const tokens = registry.tokens ?? assert.fail();
  return {
    registry,
    tokens,
    digest: registry.addContent(LAYER),
    ...startClient(t, { url: registry.url, maxConnections: MAX_CONNECTIONS }),
  };
}

/** Every challenge of the registry leads to `realm`. */
function challengeWith(registry: ScriptedUpstream, realm: string, options: { times?: number } = {}): void {
  const script = { 'www-authenticate': `Bearer realm="${realm}",service="scripted"` };
  registry.script(
    {},
    (reply) => void (reply.status === 401 && Object.assign(reply.headers, script)),
    options,
  );
}

/** A registry whose token server has been asked, and does not answer before `answer` is called. */
async function registryWithSlowTokens(t: TestContext) {
  const asked = Promise.withResolvers<void>();
  const answered = Promise.withResolvers<void>();
  let calls = 0;
  const server = createServer((_request, response) => {
    calls += 1;
    asked.resolve();
    void answered.promise.then(() => response.end('{"token":"late"}'));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  cleanUp(t, () => {
    server.closeAllConnections();
    server.close();
  });
  const realm = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const registry = await ScriptedUpstream.start(t);
  registry.script({}, (reply, { headers }) => {
    const challenge = { 'www-authenticate': `Bearer realm="${realm}"` };
    if (headers.authorization !== 'Bearer late')
      Object.assign(reply, errorReply(401, 'UNAUTHORIZED', challenge));
  });
  return {
    registry,
    digest: registry.addContent(LAYER),
    asked: asked.promise,
    answer: () => answered.resolve(),
    tokenCalls: () => calls,
    ...startClient(t, { url: registry.url, maxConnections: MAX_CONNECTIONS }),
  };
}

suite('what a registry once demanded is not held against it', () => {
  test('a token server that has moved is found again by the same request', async (t) => {
    const { registry, tokens, digest, client, clock } = await registryWithTokens(t);
    await client.headBlob(CONTEXT, REPOSITORY, digest);
    const moved = new TokenServer({ service: 'moved', prefix: 'moved' });
    await moved.start();
    cleanUp(t, () => moved.close());
    tokens.refusal = { status: 401, body: '' }; // as nvcr.io's old one did
    registry.script({}, (reply, { headers, path }) => {
      const challenge = moved.challengeFor(headers.authorization, REPOSITORY);
      if (challenge !== undefined) {
        Object.assign(reply, errorReply(401, 'UNAUTHORIZED', { 'www-authenticate': challenge }));
      } else if (path.endsWith(digest)) {
        Object.assign(reply, { status: 200, headers: { 'content-length': String(LAYER.length) } });
      }
    });
    clock.advance(HOUR);
    assert.deepEqual(await client.headBlob(CONTEXT, REPOSITORY, digest), { size: LAYER.length });
    assert.deepEqual([tokens.requests.length, moved.requests.length], [2, 1]);
  });

  test('the mirror asks again what a registry demands after its token server has failed', async (t) => {
    const { registry, tokens, digest, client, clock } = await registryWithTokens(t);
    await client.headBlob(CONTEXT, REPOSITORY, digest);
    await tokens.close();
    clock.advance(HOUR);
    registry.script({}, (reply) =>
      Object.assign(reply, { status: 200, headers: { 'content-length': '7' }, body: undefined }),
    );
    await assert.rejects(client.headBlob(CONTEXT, REPOSITORY, digest), { code: 'unavailable' });
    assert.deepEqual(
      await client.headBlob(CONTEXT, REPOSITORY, digest),
      { size: 7 },
      'no token is wanted any more',
    );
  });

  test('one wrong challenge spoils one request', async (t) => {
    const { registry, digest, client } = await registryWithTokens(t);
    challengeWith(registry, 'https://elsewhere.example/token', { times: 1 });
    await assert.rejects(client.headBlob(CONTEXT, REPOSITORY, digest), { code: 'invalid-response' });
    assert.deepEqual(await client.headBlob(CONTEXT, REPOSITORY, digest), { size: LAYER.length });
  });

  test('a refused refresh costs one more token call, and only once', async (t) => {
    const { tokens, digest, client, clock } = await registryWithTokens(t);
    await client.headBlob(CONTEXT, REPOSITORY, digest);
    clock.advance(HOUR);
    tokens.refusal = { status: 403, body: '' };
    for (const calls of [2, 1, 1]) {
      const before = tokens.requests.length;
      await assert.rejects(client.headBlob(CONTEXT, REPOSITORY, digest), { code: 'denied' });
      assert.equal(tokens.requests.length - before, calls);
    }
  });
});

test('a registry that gives blobs to GET but not to HEAD costs no token for each of them', async (t) => {
  const { registry, tokens, digest, client } = await registryWithTokens(t);
  const challenge = { 'www-authenticate': `Bearer realm="${tokens.realm}",service="scripted"` };
  registry.script({ kind: 'blob', method: 'HEAD' }, (reply) =>
    Object.assign(reply, errorReply(401, 'UNAUTHORIZED', challenge)),
  );
  for (let head = 0; head < 5; head += 1) {
    assert.deepEqual(await client.headBlob(CONTEXT, REPOSITORY, digest), { size: LAYER.length });
  }
  assert.equal(tokens.requests.length, 1);
  tokens.expireAll();
  assert.deepEqual(await client.headBlob(CONTEXT, REPOSITORY, digest), { size: LAYER.length });
  assert.equal(tokens.requests.length, 2, 'a token that has ended is renewed all the same');
});

test('a 401 without a challenge is answered with the challenge of /v2/', async (t) => {
  const { registry, tokens, digest, client } = await registryWithTokens(t);
  const challenge = `Bearer realm="${tokens.realm}",service="scripted"`;
  registry.script({}, ({ status, headers }, { kind }) => {
    if (status === 401) headers['www-authenticate'] = kind === 'ping' ? challenge : undefined;
  });
  assert.deepEqual(await client.headBlob(CONTEXT, REPOSITORY, digest), { size: LAYER.length });
  assert.deepEqual(
    registry.requests.map(({ kind }) => kind),
    ['blob', 'ping', 'blob'],
  );
});

test('a refused request gives its connection back, whatever becomes of its token', async (t) => {
  const { registry, digest, client } = await registryWithTokens(t);
  const body = { size: LONG_BODY.length, slice: LONG_BODY.subarray.bind(LONG_BODY) };
  registry.script({ kind: 'blob' }, (reply) => {
    if (reply.status !== 401) return;
    reply.headers['content-length'] = String(LONG_BODY.length);
    Object.assign(reply, { body, start: 0, end: LONG_BODY.length });
  });
  challengeWith(registry, 'https://elsewhere.example/token');
  for (let request = 0; request < MAX_CONNECTIONS + 1; request += 1) {
    const repository = parseRepository(`org/app${request}`) ?? assert.fail();
    await assert.rejects(
      client.fetchBlob(CONTEXT, repository, digest),
      /elsewhere\.example is on a foreign host/,
    );
  }
});

test('a request that is aborted stops waiting for its token, and other requests still get it', async (t) => {
  const { registry, digest, client, asked, answer, tokenCalls } = await registryWithSlowTokens(t);
  const abort = new AbortController();
  const cancelled = client.fetchBlob({ ...CONTEXT, signal: abort.signal }, REPOSITORY, digest);
  await asked;
  const other = client.fetchBlob(CONTEXT, REPOSITORY, digest);
  await registry.waitFor(() => registry.requests.length === 1);
  abort.abort(new Error('nobody wants it any more'));
  await assert.rejects(cancelled, /nobody wants it any more/);
  answer();
  const { body } = await other;
  assert.equal(Buffer.concat(await body.toArray()).toString(), LAYER.toString());
  assert.equal(tokenCalls(), 1);
});

test('a redirect is followed even if its body never ends', async (t) => {
  const registry = await ScriptedUpstream.start(t);
  const image = registry.addImage('org/app', '1');
  const never = Promise.withResolvers<void>();
  cleanUp(t, () => never.resolve());
  registry.script(
    { kind: 'manifest' },
    (reply, { path }) => {
      Object.assign(reply, { status: 307, stall: { after: 1, until: never.promise } });
      reply.headers = { location: `${path}?moved`, 'content-length': reply.headers['content-length'] };
    },
    { times: 1 },
  );
  const { client } = startClient(t, { url: registry.url, maxConnections: MAX_CONNECTIONS });
  assert.deepEqual((await client.fetchManifest(CONTEXT, REPOSITORY, TAG)).bytes, image.top.bytes);
});

test('only the registry itself, and not a CDN or token server, says how many pulls are left', async (t) => {
  const registry = await ScriptedUpstream.start(t, { cdn: true });
  registry.addImage('org/app', '1');
  const digest = registry.addContent(LAYER);
  const budget = (remaining: string) => ({
    'ratelimit-limit': '100;w=21600',
    'ratelimit-remaining': remaining,
  });
  registry.script({ kind: 'manifest' }, ({ headers }) => void Object.assign(headers, budget('76;w=21600')));
  registry.script({ kind: 'cdn' }, ({ headers }) => void Object.assign(headers, budget('5000;w=60')));
  const { client, quota } = startClient(t, { url: registry.url, maxConnections: MAX_CONNECTIONS });
  await client.fetchManifest(CONTEXT, REPOSITORY, TAG);
  await (await client.fetchBlob(CONTEXT, REPOSITORY, digest)).body.toArray();
  assert.equal(quota.window?.remaining, 76);
});
