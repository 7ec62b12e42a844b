import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { OCI_INDEX } from '../../src/oci/manifest.ts';
import { errorReply, ScriptedUpstream, type SeenRequest } from '../helpers/scripted-upstream.ts';
import { startMirror, type TestReply } from '../helpers/start-mirror.ts';
import type { TokenServer } from '../helpers/token-server.ts';

const MANIFEST = '/v2/org/app/manifests/1';
const MAX_REDIRECTS = 10;
const LAYER_BYTES = 300_000;
/** Headers that the mirror also sends, with its own values. */
const OUR_OWN = ['etag', 'cache-control'];
const PASSWORD = 'correct-horse-battery';

const layer = Buffer.alloc(LAYER_BYTES, 'layer');

function authorizations(requests: readonly SeenRequest[]): (string | undefined)[] {
  return requests.map(({ headers }) => headers.authorization);
}

function tokensOf({ tokens }: ScriptedUpstream): TokenServer {
  return tokens ?? assert.fail('this upstream has no token server');
}

/** Does not use deepEqual, which takes minutes to show how two layers differ. */
function assertContent(reply: TestReply, content: Buffer): void {
  assert.equal(reply.status, 200);
  assert.ok(reply.body.equals(content), 'the client got other bytes');
}

/** Every answer that is not a challenge becomes a redirect. */
function redirect(
  upstream: ScriptedUpstream,
  location: string | ((request: SeenRequest) => string | undefined),
  status = 307,
): void {
  upstream.script({}, (reply, request) => {
    const to = typeof location === 'string' ? location : location(request);
    if (reply.status === 401 || to === undefined) return;
    Object.assign(reply, { status, headers: { location: to }, body: undefined });
  });
}

suite('a redirect is the mirror’s business: the client gets the content', () => {
  for (const status of [301, 302, 303, 307, 308]) {
    test(`${status}`, async (t) => {
      const registry = await ScriptedUpstream.start(t);
      const storage = await ScriptedUpstream.start(t);
      const image = storage.addImage('org/app', '1');
      const digest = storage.addContent(layer);
      redirect(registry, ({ path }) => `${storage.url}${path}`, status);
      const mirror = await startMirror(t, { upstreams: { 'quay.io': registry.url } });
      for (const [path, body] of [
        [MANIFEST, image.top.bytes],
        [`/v2/org/app/blobs/${digest}`, layer],
      ] as const) {
        const head = await mirror.head(path);
        assert.equal(head.status, 200);
        assert.equal(head.headers['content-length'], String(body.length));
        const reply = await mirror.get(path);
        assertContent(reply, body);
        assert.equal(reply.headers['location'], undefined);
      }
    });
  }
});

test('a CDN on another host gets no Authorization, and so gives the blob', async (t) => {
  const upstream = await ScriptedUpstream.start(t, { auth: {}, cdn: true });
  const digest = upstream.addContent(layer);
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  const reply = await mirror.get(`/v2/org/app/blobs/${digest}`);
  assertContent(reply, layer);
  assert.deepEqual(
    upstream.requests.map(({ kind, headers }) => [kind, headers.authorization]),
    [
      ['blob', undefined],
      ['blob', 'Bearer token-1'],
      ['cdn', undefined],
    ],
  );
});

test('a redirect within the registry keeps the Authorization', async (t) => {
  const upstream = await ScriptedUpstream.start(t, { auth: {} });
  const digest = upstream.addContent(layer);
  redirect(upstream, ({ path, query }) => (query.has('moved') ? undefined : `${path}?moved`));
  const mirror = await startMirror(t, { upstreams: { 'europe-docker.pkg.dev': upstream.url } });
  assertContent(await mirror.get(`/v2/org/app/blobs/${digest}`), layer);
  assert.deepEqual(
    upstream.requests.map(({ query, headers }) => [query.has('moved'), headers.authorization]),
    [
      [false, undefined],
      [false, 'Bearer token-1'],
      [true, 'Bearer token-1'],
    ],
  );
});

test('a redirect is not remembered, whatever its Cache-Control says', async (t) => {
  const upstream = await ScriptedUpstream.start(t, { cdn: true });
  const digests = ['one', 'two'].map((text) => upstream.addContent(Buffer.from(text)));
  const mirror = await startMirror(t, { upstreams: { 'quay.io': upstream.url } });
  for (const [at, digest] of digests.entries()) {
    assert.equal((await mirror.get(`/v2/org/app/blobs/${digest}`)).status, 200);
    assert.deepEqual([upstream.count('blob', 'GET'), upstream.count('cdn', 'GET')], [at + 1, at + 1]);
    upstream.expireSignatures();
  }
});

test('a download whose connection breaks and whose signed URL has expired goes on with a new URL, where it was', async (t) => {
  const upstream = await ScriptedUpstream.start(t, { cdn: true });
  const digest = upstream.addContent(layer);
  upstream.script(
    { kind: 'cdn' },
    (reply) => {
      reply.cutAfter = LAYER_BYTES / 2;
      upstream.expireSignatures();
    },
    { times: 1 },
  );
  const mirror = await startMirror(t, { upstreams: { 'quay.io': upstream.url } });
  const reply = await mirror.get(`/v2/org/app/blobs/${digest}`);
  assertContent(reply, layer);
  assert.deepEqual([upstream.count('blob', 'GET'), upstream.count('cdn', 'GET')], [2, 2]);
  assert.match(upstream.requests.at(-1)?.headers.range ?? '', /^bytes=[1-9]\d*-/);
});

suite('redirects without end are upstream’s fault', () => {
  const hop = ({ path }: SeenRequest) => Number(/^\/hop\/(\d+)$/.exec(path)?.[1] ?? 0);

  test('a loop', async (t) => {
    const upstream = await ScriptedUpstream.start(t);
    redirect(upstream, ({ path }) => path);
    const mirror = await startMirror(t, { upstreams: { 'quay.io': upstream.url } });
    const reply = await mirror.get(MANIFEST);
    assert.deepEqual([reply.status, reply.error], [502, 'UNAVAILABLE']);
    assert.equal(upstream.requests.length, MAX_REDIRECTS + 1);
  });

  for (const [hops, status] of [
    [MAX_REDIRECTS, 200],
    [MAX_REDIRECTS + 1, 502],
  ] as const) {
    test(`${hops} of them: ${status}`, async (t) => {
      const upstream = await ScriptedUpstream.start(t);
      const digest = upstream.addContent(layer);
      const blob = `/v2/org/app/blobs/${digest}`;
      redirect(upstream, (request) => {
        const done = hop(request);
        if (request.query.has('end')) return undefined;
        return done + 1 === hops ? `${blob}?end` : `/hop/${done + 1}`;
      });
      const mirror = await startMirror(t, { upstreams: { 'quay.io': upstream.url } });
      assert.equal((await mirror.get(blob)).status, status);
      assert.equal(upstream.requests.length, MAX_REDIRECTS + 1);
    });
  }
});

suite('a redirect that cannot be followed is upstream’s fault', () => {
  for (const [what, location] of [
    ['to a file', 'file:///etc/passwd'],
    ['to gopher', 'gopher://127.0.0.1/'],
    ['to nowhere', ''],
    ['to no URL', 'http://'],
    ['of more than 8 KiB', `/${'a'.repeat(8 * 1024)}`],
    ['of 100 KB', `/${'a'.repeat(100_000)}`],
  ] as const) {
    test(what, async (t) => {
      const upstream = await ScriptedUpstream.start(t);
      const digest = upstream.addContent(layer);
      redirect(upstream, location);
      const mirror = await startMirror(t, { upstreams: { 'quay.io': upstream.url } });
      for (const path of [MANIFEST, `/v2/org/app/blobs/${digest}`]) {
        const reply = await mirror.get(path);
        assert.deepEqual([reply.status, reply.error], [502, 'UNAVAILABLE']);
        assert.doesNotMatch(reply.body.toString(), /passwd|aaaa/);
      }
      assert.equal(upstream.requests.length, 2);
    });
  }
});

suite('a redirect to a registry with a token server of its own', () => {
  const credentials = { username: 'me', password: { env: 'PASSWORD' } };
  const login = { credentials: { username: 'me', password: PASSWORD } };

  test('gets an anonymous token from there, for this one request', async (t) => {
    const global = await ScriptedUpstream.start(t, { auth: { ...login, prefix: 'global' } });
    const regional = await ScriptedUpstream.start(t, { auth: { prefix: 'regional' } });
    const digests = ['one', 'two'].map((text) => regional.addContent(Buffer.from(text)));
    redirect(global, ({ path }) => `${regional.url}${path}`);
    const mirror = await startMirror(t, {
      upstreams: { 'registry.k8s.io': { url: global.url, credentials } },
      environment: { PASSWORD },
    });
    for (const digest of digests) assert.equal((await mirror.get(`/v2/org/app/blobs/${digest}`)).status, 200);
    assert.deepEqual(authorizations(global.requests), [undefined, 'Bearer global-1', 'Bearer global-1']);
    assert.deepEqual(authorizations(regional.requests), [
      undefined,
      'Bearer regional-1',
      undefined,
      'Bearer regional-2',
    ]);
    assert.deepEqual(
      tokensOf(regional).requests.map(({ authorization }) => authorization),
      [undefined, undefined],
    );
    assert.equal(tokensOf(global).requests.length, 1);
  });

  test('that refuses that token, too, is a refusal and no loop', async (t) => {
    const global = await ScriptedUpstream.start(t);
    const regional = await ScriptedUpstream.start(t, { auth: {} });
    redirect(global, ({ path }) => `${regional.url}${path}`);
    regional.script({}, (reply, { headers }) => {
      if (headers.authorization === undefined) return;
      const header = { 'www-authenticate': `Bearer realm="${tokensOf(regional).realm}"` };
      Object.assign(reply, errorReply(401, 'UNAUTHORIZED', header));
    });
    const mirror = await startMirror(t, { upstreams: { 'registry.k8s.io': global.url } });
    const reply = await mirror.get(MANIFEST);
    assert.deepEqual([reply.status, reply.error], [403, 'DENIED']);
    assert.deepEqual(authorizations(regional.requests), [undefined, 'Bearer token-1']);
    assert.equal(tokensOf(regional).requests.length, 1);
  });

  test('that wants a password gets none', async (t) => {
    const global = await ScriptedUpstream.start(t, { auth: login });
    const regional = await ScriptedUpstream.start(t);
    redirect(global, ({ path }) => `${regional.url}${path}`);
    regional.script({}, (reply) =>
      Object.assign(reply, errorReply(401, 'UNAUTHORIZED', { 'www-authenticate': 'Basic realm="x"' })),
    );
    const mirror = await startMirror(t, {
      upstreams: { 'registry.k8s.io': { url: global.url, credentials } },
      environment: { PASSWORD },
    });
    assert.equal((await mirror.get(MANIFEST)).status, 403);
    assert.deepEqual(authorizations(regional.requests), [undefined]);
  });

  test('that names a token server on a third host is not believed', async (t) => {
    const global = await ScriptedUpstream.start(t);
    const regional = await ScriptedUpstream.start(t, { auth: {} });
    redirect(global, ({ path }) => `${regional.url}${path}`);
    const realm = tokensOf(regional).realm.replace('127.0.0.1', 'localhost');
    regional.script({}, ({ headers }) => {
      headers['www-authenticate'] = `Bearer realm="${realm}"`;
    });
    const mirror = await startMirror(t, { upstreams: { 'registry.k8s.io': global.url } });
    const reply = await mirror.get(MANIFEST);
    assert.equal(reply.status, 502);
    assert.match(reply.body.toString(), /foreign host.*realmHosts/);
    assert.deepEqual(tokensOf(regional).requests, []);
  });
});

suite('what the mirror says to upstreams', () => {
  test('is who it is, and that it wants plain bytes; wherever it is led', async (t) => {
    const upstream = await ScriptedUpstream.start(t, { cdn: true });
    upstream.addImage('org/app', '1');
    const digest = upstream.addContent(layer);
    const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
    const headers = { 'accept-encoding': 'gzip, zstd', 'user-agent': 'a client' };
    await mirror.get(MANIFEST, headers);
    await mirror.get(`/v2/org/app/blobs/${digest}`, headers);
    await mirror.get('/v2/org/app/tags/list', headers);
    assert.deepEqual(
      upstream.requests.map(({ kind }) => kind),
      ['manifest', 'blob', 'cdn', 'tags'],
    );
    for (const { kind, headers } of upstream.requests) {
      assert.equal(headers['accept-encoding'], 'identity', kind);
      assert.equal(headers['user-agent'], 'millpond/test', kind);
      assert.match(headers.via ?? '', /^1\.1 millpond-/, kind);
    }
  });

  test('is the same full Accept list for every manifest, whatever the client can read', async (t) => {
    const upstream = await ScriptedUpstream.start(t);
    const image = upstream.addImage('org/app', '1', { platforms: ['amd64', 'arm64'] });
    const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
    const accept = `${OCI_INDEX}, */*;q=0.1`;
    await mirror.head(MANIFEST, { accept });
    await mirror.get(MANIFEST);
    for (const { digest } of image.manifests)
      await mirror.get(`/v2/org/app/manifests/${digest}`, { accept: '*/*' });
    const lists = new Set(upstream.requests.map(({ headers }) => headers.accept));
    assert.equal(lists.size, 1);
    const types = [...lists]
      .join()
      .split(/\s*,\s*/)
      .map((entry) => entry.split(';')[0]);
    for (const type of [
      'application/vnd.oci.image.index.v1+json',
      'application/vnd.oci.image.manifest.v1+json',
      'application/vnd.docker.distribution.manifest.list.v2+json',
      'application/vnd.docker.distribution.manifest.v2+json',
    ]) {
      assert.ok(types.includes(type), type);
    }
  });
});

suite('an encoded reply, which nobody asked for, has no digest to check', () => {
  const encode = (upstream: ScriptedUpstream, method: string) =>
    upstream.script({ method }, (reply) => {
      const { body } = reply;
      if (body === undefined) return;
      const bytes = gzipSync(body.slice(0, body.size));
      reply.headers['content-encoding'] = 'gzip';
      reply.headers['content-length'] = String(bytes.length);
      const source = { size: bytes.length, slice: (from: number, to: number) => bytes.subarray(from, to) };
      Object.assign(reply, { body: source, start: 0, end: bytes.length });
    });

  test('so it is refused, and not cached', async (t) => {
    const upstream = await ScriptedUpstream.start(t);
    upstream.addImage('org/app', '1');
    const digest = upstream.addContent(layer);
    const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
    for (const path of [MANIFEST, `/v2/org/app/blobs/${digest}`, '/v2/org/app/tags/list']) {
      encode(upstream, 'GET');
      const reply = await mirror.get(path);
      assert.deepEqual([path, reply.status, reply.error], [path, 502, 'UNAVAILABLE']);
      upstream.clearScripts();
      // A request that arrives before the failed fetch is cleaned up shares its failure.
      while ((await mirror.metric('millpond_ingests_in_progress')) > 0) continue;
      const healed = await mirror.get(path);
      assert.equal(healed.status, 200, path);
      assert.match(String(healed.headers['cache-status']), /^millpond; fwd=/);
    }
    assertContent(await mirror.get(`/v2/org/app/blobs/${digest}`), layer);
  });

  test('and its length is not the length of the content', async (t) => {
    const upstream = await ScriptedUpstream.start(t);
    const image = upstream.addImage('org/app', '1');
    encode(upstream, 'HEAD');
    const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
    const head = await mirror.head(MANIFEST);
    assert.equal(head.status, 200);
    assert.equal(head.headers['content-length'], String(image.top.bytes.length));
  });
});

test('headers of upstream that are no description of the content do not reach the client', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const image = upstream.addImage('org/app', '1');
  const digest = upstream.addContent(layer);
  upstream.addReferrers(image.top.digest, Buffer.from('{"schemaVersion":2,"manifests":[]}'));
  const evil = 'evil-2d71';
  const lies = {
    'set-cookie': `session=${evil}`,
    'x-registry-supports-signatures': '1',
    'access-control-allow-origin': '*',
    'cache-control': 'public, max-age=31536000',
    'content-disposition': `attachment; filename="${evil}"`,
    'content-language': evil,
    'content-location': `http://${evil}/`,
    etag: `"${evil}"`,
    expires: 'Thu, 01 Jan 2099 00:00:00 GMT',
    location: `http://${evil}/`,
    refresh: `0; url=http://${evil}/`,
    server: evil,
    'strict-transport-security': 'max-age=31536000',
    'www-authenticate': `Bearer realm="http://${evil}/"`,
    'alt-svc': `h3="${evil}:443"`,
    'clear-site-data': '"*"',
    'x-evil': evil,
  };
  upstream.script({}, (reply) => Object.assign(reply.headers, lies));
  upstream.script({ kind: 'blob', method: 'GET' }, ({ headers }) => {
    headers['content-type'] = 'text/html';
    headers['transfer-encoding'] = 'chunked';
    headers['content-length'] = undefined;
  });
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  const blob = `/v2/org/app/blobs/${digest}`;
  const referrers = `/v2/org/app/referrers/${image.top.digest}`;
  for (const path of [MANIFEST, blob, '/v2/org/app/tags/list', referrers, '/v2/org/app/manifests/none']) {
    for (const pull of ['cold', 'warm']) {
      const { headers } = await mirror.get(path);
      const where = `${path}, ${pull}: ${JSON.stringify(headers)}`;
      for (const [name, lie] of Object.entries(lies)) {
        assert.notEqual(headers[name], lie, where);
        if (!OUR_OWN.includes(name)) assert.equal(headers[name], undefined, where);
      }
      assert.equal(headers['transfer-encoding'], undefined, where);
      assert.ok(!JSON.stringify(headers).includes(evil), where);
      if (path === blob) assert.equal(headers['content-type'], 'application/octet-stream', where);
    }
  }
});
