import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { errorReply, ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { type MirrorOptions, startMirror } from '../helpers/start-mirror.ts';
import { tempDir } from '../helpers/temp-dir.ts';
import { TestProxy, type TestProxyOptions } from '../helpers/test-proxy.ts';

const REGISTRY = 'http://registry.corp.example';
const MANIFEST = '/v2/a/b/manifests/1';

/** An upstream that only the proxy can resolve, and a mirror of it. */
async function mirrorBehindProxy(
  t: TestContext,
  options: (proxy: TestProxy) => Partial<MirrorOptions>,
  proxyOptions: TestProxyOptions = {},
) {
  const upstream = await ScriptedUpstream.start(t);
  const image = upstream.addImage('a/b', '1');
  const routes = { 'registry.corp.example': Number(new URL(upstream.url).port) };
  const proxy = await TestProxy.start(t, { routes, ...proxyOptions });
  const mirror = await startMirror(t, { upstreams: { 'docker.io': REGISTRY }, ...options(proxy) });
  return { upstream, image, proxy, mirror };
}

test('the mirror uses HTTP_PROXY of the environment', async (t) => {
  const { mirror, image, proxy } = await mirrorBehindProxy(t, ({ url }) => ({
    environment: { HTTP_PROXY: url },
  }));
  const reply = await mirror.get(MANIFEST);
  assert.deepEqual([reply.status, reply.body], [200, image.top.bytes]);
  assert.deepEqual(proxy.requests, [`GET ${REGISTRY}${MANIFEST}`]);
});

test('the proxy setting of an upstream overrides the environment, also NO_PROXY', async (t) => {
  const { mirror, proxy } = await mirrorBehindProxy(t, ({ url }) => ({
    environment: { HTTP_PROXY: 'http://127.0.0.1:1', NO_PROXY: '*' },
    upstreams: { 'docker.io': { url: REGISTRY, proxy: url } },
  }));
  assert.equal((await mirror.get(MANIFEST)).status, 200);
  assert.equal(proxy.requests.length, 1);
});

test('an upstream with `proxy: none`, one of NO_PROXY and one on this machine are asked directly', async (t) => {
  for (const [environment, upstream] of [
    [{}, { url: 'http://registry.invalid', proxy: 'none' }],
    [{ no_proxy: '.invalid' }, { url: 'http://registry.invalid' }],
    [{}, { url: 'http://127.0.0.1:1' }],
  ] as const) {
    const { mirror, proxy } = await mirrorBehindProxy(t, ({ url }) => ({
      environment: { HTTP_PROXY: url, ...environment },
      upstreams: { 'docker.io': upstream },
    }));
    assert.equal((await mirror.get(MANIFEST)).status, 502);
    assert.deepEqual(proxy.requests, []);
  }
});

test('the password of a proxy comes from a file that may change, and is shown nowhere', async (t) => {
  const directory = await tempDir(t);
  const file = join(directory, 'password');
  await writeFile(file, 'hunter2\n');
  let expected = 'hunter2';
  const { mirror, proxy } = await mirrorBehindProxy(
    t,
    ({ url }) => ({
      directory,
      upstreams: {
        'docker.io': { url: REGISTRY, proxy: { url: url.replace('//', '//bob@'), password: { file } } },
      },
    }),
    { authorization: () => `Basic ${Buffer.from(`bob:${expected}`).toString('base64')}` },
  );
  assert.equal((await mirror.get(MANIFEST)).status, 200);
  expected = 'hunter2-new';
  const refused = await mirror.get('/v2/a/c/manifests/1');
  assert.equal(refused.status, 502);
  assert.match(
    refused.body.toString(),
    /docker\.io: the proxy 127\.0\.0\.1:\d+ refused to connect to .* check its user name and password/,
  );
  await writeFile(file, 'hunter2-new\n');
  mirror.clock.advance(60_000);
  assert.equal((await mirror.get('/v2/a/c/manifests/1')).status, 404);
  const metrics = await (await fetch(`${mirror.operationsUrl}/metrics`)).text();
  const basic = proxy.headers.map((headers) => headers['proxy-authorization'] ?? '');
  for (const secret of ['hunter2', 'bob', ...basic])
    for (const shown of [JSON.stringify(mirror.log), refused.body.toString(), metrics])
      assert.ok(!shown.includes(secret), secret);
});

test('a token server at an address that is not public is not asked, not even through a proxy', async (t) => {
  const { mirror, upstream, proxy } = await mirrorBehindProxy(t, ({ url }) => ({
    environment: { HTTP_PROXY: url },
    upstreams: { 'docker.io': { url: REGISTRY, realmHosts: ['10.0.0.1'] } },
  }));
  const header = { 'www-authenticate': 'Bearer realm="http://10.0.0.1/token"' };
  upstream.script({}, (reply) => Object.assign(reply, errorReply(401, 'UNAUTHORIZED', header)));
  const reply = await mirror.get(MANIFEST);
  assert.equal(reply.status, 502);
  assert.match(reply.body.toString(), /token server 10\.0\.0\.1 is not public; .*allowPrivateAddresses/);
  assert.deepEqual(proxy.requests, [`GET ${REGISTRY}${MANIFEST}`]);
});

test('a refusal names the proxy, which may have made it', async (t) => {
  const { mirror, proxy } = await mirrorBehindProxy(t, ({ url }) => ({ environment: { http_proxy: url } }), {
    status: 403,
  });
  const reply = await mirror.get(MANIFEST);
  assert.deepEqual([reply.status, reply.error], [403, 'DENIED']);
  assert.ok(reply.body.includes(`docker.io: upstream through the proxy ${proxy.host} answered 403`));
});
