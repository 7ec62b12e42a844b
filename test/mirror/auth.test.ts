import assert from 'node:assert/strict';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { suite, type TestContext, test } from 'node:test';
import { errorReply, ScriptedUpstream, type SeenRequest } from '../helpers/scripted-upstream.ts';
import { startMirror, type TestMirror } from '../helpers/start-mirror.ts';
import { tempDir } from '../helpers/temp-dir.ts';
import type { TokenServer } from '../helpers/token-server.ts';

const SECOND = 1000;
const HOUR = 3600 * SECOND;
/** A token is renewed this long before it expires. */
const EARLY = 5 * SECOND;
const PASSWORD = 'correct-horse-battery';
const SCOPE = 'repository:org/app:pull';
/** Goes to upstream each time, because a list of tags is never served from the cache. */
const TAGS = '/v2/org/app/tags/list';
const MANIFEST = '/v2/org/app/manifests/1';

function basic(username: string, password: string): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;
}

function tokensOf({ tokens }: ScriptedUpstream): TokenServer {
  return tokens ?? assert.fail('this upstream has no token server');
}

function authorizations(requests: readonly SeenRequest[]): (string | undefined)[] {
  return requests.map(({ headers }) => headers.authorization);
}

interface Registry {
  upstream: ScriptedUpstream;
  tokens: TokenServer;
  mirror: TestMirror;
}

/** A registry that demands tokens, with one image, and a mirror of it. */
async function registryWithTokens(
  t: TestContext,
  auth: NonNullable<Parameters<typeof ScriptedUpstream.start>[1]>['auth'] = {},
  settings: Record<string, unknown> = {},
): Promise<Registry> {
  const upstream = await ScriptedUpstream.start(t, { auth });
  upstream.addImage('org/app', '1');
  const mirror = await startMirror(t, {
    upstreams: { 'ghcr.io': { url: upstream.url, ...settings } },
    environment: { PASSWORD },
  });
  return { upstream, tokens: tokensOf(upstream), mirror };
}

/** Replaces every challenge of the registry with what `write` returns for its realm. */
function challenge(upstream: ScriptedUpstream, write: (realm: string) => string | undefined): void {
  const { realm } = tokensOf(upstream);
  upstream.script({}, (reply) => {
    if (reply.status === 401) reply.headers['www-authenticate'] = write(realm);
  });
}

/** The registry accepts these credentials with HTTP Basic, and no token. */
function demandBasic(upstream: ScriptedUpstream, credentials: { username: string; password: string }): void {
  upstream.script({}, (reply, { headers }) => {
    if (headers.authorization === basic(credentials.username, credentials.password)) return;
    const header = {
      'www-authenticate': 'Basic realm="https://registry.example/",service="ecr.amazonaws.com"',
    };
    Object.assign(reply, errorReply(401, 'UNAUTHORIZED', header));
  });
}

test('a registry that wants a token gets one for what its challenge names, and the pull goes on', async (t) => {
  const { upstream, tokens, mirror } = await registryWithTokens(t);
  const reply = await mirror.get(MANIFEST);
  assert.equal(reply.status, 200);
  assert.equal(reply.headers['cache-status'], 'millpond; fwd=uri-miss; stored');
  assert.deepEqual(tokens.requests, [{ service: 'scripted', scope: SCOPE, authorization: undefined }]);
  assert.deepEqual(authorizations(upstream.requests), [undefined, 'Bearer token-1']);
});

test('a token is used for all of its repository, and asked for once', async (t) => {
  const { upstream, tokens, mirror } = await registryWithTokens(t);
  for (const path of [MANIFEST, TAGS, TAGS]) assert.equal((await mirror.get(path)).status, 200, path);
  assert.equal(tokens.requests.length, 1);
  assert.deepEqual(authorizations(upstream.requests.slice(1)), Array(3).fill('Bearer token-1'));
});

test('fifty cold pulls at once ask for one token', async (t) => {
  const { upstream, tokens, mirror } = await registryWithTokens(t);
  const digests = Array.from({ length: 50 }, (_, at) => upstream.addContent(Buffer.from(`layer ${at}`)));
  const replies = await Promise.all(digests.map((digest) => mirror.get(`/v2/org/app/blobs/${digest}`)));
  assert.deepEqual([...new Set(replies.map(({ status }) => status))], [200]);
  assert.equal(tokens.requests.length, 1);
});

test('each repository gets a token of its own', async (t) => {
  const { upstream, tokens, mirror } = await registryWithTokens(t);
  upstream.addImage('org/other', '1');
  for (const name of ['app', 'other', 'app']) {
    assert.equal((await mirror.get(`/v2/org/${name}/tags/list`)).status, 200);
  }
  assert.deepEqual(
    tokens.requests.map(({ scope }) => scope),
    [SCOPE, 'repository:org/other:pull'],
  );
});

suite('a challenge is understood', () => {
  for (const [what, write, service] of [
    ['in lower case', (realm) => `bearer REALM="${realm}",Service="s",scope="${SCOPE}"`, 's'],
    ['with bare values', (realm) => `Bearer realm=${realm},service=gcr.io,scope=${SCOPE}`, 'gcr.io'],
    ['without a service', (realm) => `Bearer realm="${realm}",scope="${SCOPE}"`, null],
    ['without a scope', (realm) => `Bearer realm="${realm}",service="s"`, 's'],
    ['with an empty scope', (realm) => `Bearer realm="${realm}",service="s",scope=""`, 's'],
    ['behind another', (realm) => `Basic realm="a, b", Bearer realm="${realm}",service="s"`, 's'],
    ['with an error', (realm) => `Bearer realm="${realm}",service="s",error="invalid_token"`, 's'],
    ['whose realm has a query', (realm) => `Bearer realm="${realm}?account=x",service="s"`, 's'],
  ] as [string, (realm: string) => string, string | null][]) {
    test(what, async (t) => {
      const { upstream, tokens, mirror } = await registryWithTokens(t);
      challenge(upstream, write);
      assert.equal((await mirror.get(MANIFEST)).status, 200);
      assert.deepEqual(tokens.requests, [{ service, scope: SCOPE, authorization: undefined }]);
    });
  }
});

suite('a 401 without a challenge is answered with the challenge of /v2/', () => {
  for (const scope of ['', ',scope=""']) {
    test(scope === '' ? 'that has no scope' : 'whose scope is empty', async (t) => {
      const { upstream, tokens, mirror } = await registryWithTokens(t);
      challenge(upstream, () => undefined);
      upstream.script({ kind: 'ping' }, ({ headers }) => {
        headers['www-authenticate'] = `Bearer realm="${tokens.realm}",service="gcr.io"${scope}`;
      });
      assert.equal((await mirror.get(MANIFEST)).status, 200);
      assert.deepEqual(tokens.requests, [{ service: 'gcr.io', scope: SCOPE, authorization: undefined }]);
    });
  }

  test('and is a refusal if that has none, either', async (t) => {
    const { upstream, tokens, mirror } = await registryWithTokens(t);
    challenge(upstream, () => undefined);
    const reply = await mirror.get(MANIFEST);
    assert.deepEqual([reply.status, reply.error], [403, 'DENIED']);
    assert.deepEqual([upstream.count('manifest'), upstream.count('ping'), tokens.requests.length], [1, 1, 0]);
  });
});

suite('a challenge that leads nowhere is upstream’s fault', () => {
  for (const realm of ['https://', 'ftp://127.0.0.1/token', 'file:///etc/passwd']) {
    test(realm, async (t) => {
      const { upstream, mirror } = await registryWithTokens(t);
      challenge(upstream, () => `Bearer realm="${realm}",service="s"`);
      assert.equal((await mirror.get(MANIFEST)).status, 502);
    });
  }
});

suite('the token is found', () => {
  for (const [what, auth] of [
    ['in token', { field: 'token' }],
    ['in access_token', { field: 'access_token' }],
    ['in token where both are there', { field: 'token', answer: { access_token: 'another' } }],
    ['in access_token where token is empty', { field: 'access_token', answer: { token: '' } }],
  ] as const) {
    test(what, async (t) => {
      const { mirror } = await registryWithTokens(t, auth);
      assert.equal((await mirror.get(MANIFEST)).status, 200);
    });
  }
});

suite('without a usable token the pull ends as upstream’s fault', () => {
  for (const [what, body] of [
    ['neither token nor access_token', '{"expires_in":300}'],
    ['an empty token', '{"token":""}'],
    ['a number', '{"token":5}'],
    ['a token that would add a header', '{"token":"a\\r\\nX-Evil: 1"}'],
    ['a token with spaces', '{"token":"a b"}'],
    ['a list', '["token"]'],
    ['null', 'null'],
    ['no JSON', '<html>'],
    ['nothing', ''],
    ['no end', JSON.stringify({ token: 'x'.repeat(2_000_000) })],
  ] as const) {
    test(what, async (t) => {
      const { upstream, tokens, mirror } = await registryWithTokens(t);
      tokens.refusal = { status: 200, body };
      const reply = await mirror.get(MANIFEST);
      assert.deepEqual([reply.status, reply.error], [502, 'UNAVAILABLE']);
      assert.deepEqual(authorizations(upstream.requests), [undefined]);
    });
  }
});

suite('a token is used as long as it says, at least a minute, at most an hour', () => {
  const past = '2001-01-01T00:00:00Z';
  const future = '2101-01-01T00:00:00Z';
  for (const [what, answer, lifetime] of [
    ['expires_in missing', {}, 60],
    ['expires_in 0', { expires_in: 0 }, 60],
    ['expires_in -1', { expires_in: -1 }, 60],
    ['expires_in 30', { expires_in: 30 }, 60],
    ['expires_in "soon"', { expires_in: 'soon' }, 60],
    ['expires_in null', { expires_in: null }, 60],
    ['expires_in 300', { expires_in: 300 }, 300],
    ['expires_in 300, issued long ago', { expires_in: 300, issued_at: past }, 300],
    ['expires_in 300, issued in the future', { expires_in: 300, issued_at: future }, 300],
    ['expires_in 1e12', { expires_in: 1e12 }, 3600],
  ] as const) {
    test(what, async (t) => {
      const { tokens, mirror } = await registryWithTokens(t, { answer });
      const tokensAfterPull = async () => {
        assert.equal((await mirror.get(TAGS)).status, 200);
        return tokens.requests.length;
      };
      assert.equal(await tokensAfterPull(), 1);
      mirror.clock.advance(lifetime * SECOND - EARLY - 1);
      assert.equal(await tokensAfterPull(), 1);
      mirror.clock.advance(1);
      assert.equal(await tokensAfterPull(), 2);
    });
  }
});

test('a token that the registry ends early is renewed once, and the request sent once more', async (t) => {
  const { upstream, tokens, mirror } = await registryWithTokens(t);
  const digest = upstream.addContent(Buffer.from('layer'));
  await mirror.get(MANIFEST);
  tokens.expireAll();
  const reply = await mirror.get(`/v2/org/app/blobs/${digest}`);
  assert.equal(reply.body.toString(), 'layer');
  assert.equal(tokens.requests.length, 2);
  assert.deepEqual(authorizations(upstream.requests.slice(2)), ['Bearer token-1', 'Bearer token-2']);
});

suite('a registry that refuses even a fresh token is a refusal, not a loop', () => {
  const refuse = (upstream: ScriptedUpstream, realm: string) =>
    upstream.script({}, (reply) => {
      const header = `Bearer realm="${realm}",service="scripted",scope="${SCOPE}",error="insufficient_scope"`;
      Object.assign(reply, errorReply(401, 'UNAUTHORIZED', { 'www-authenticate': header }));
    });

  test('at the first pull', async (t) => {
    const { upstream, tokens, mirror } = await registryWithTokens(t);
    refuse(upstream, tokens.realm);
    const reply = await mirror.get(MANIFEST);
    assert.deepEqual([reply.status, reply.error], [403, 'DENIED']);
    assert.deepEqual(authorizations(upstream.requests), [undefined, 'Bearer token-1']);
    assert.equal(tokens.requests.length, 1);
  });

  test('at a later one', async (t) => {
    const { upstream, tokens, mirror } = await registryWithTokens(t);
    await mirror.get(MANIFEST);
    refuse(upstream, tokens.realm);
    assert.equal((await mirror.get(TAGS)).status, 403);
    assert.equal(tokens.requests.length, 2);
    assert.deepEqual(authorizations(upstream.requests.slice(2)), ['Bearer token-1', 'Bearer token-2']);
  });
});

suite('what the token server answers is what the client learns', () => {
  test('a refusal is a refusal', async (t) => {
    const { upstream, tokens, mirror } = await registryWithTokens(t);
    tokens.refusal = {
      status: 403,
      body: '{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}',
      headers: { 'content-type': 'application/json' },
    };
    const reply = await mirror.get(MANIFEST);
    assert.deepEqual([reply.status, reply.error], [403, 'DENIED']);
    assert.match(reply.body.toString(), /its token server answered 403: DENIED requested access/);
    assert.deepEqual([upstream.requests.length, tokens.requests.length], [1, 1]);
  });

  test('a rate limit is a rate limit, with its time to wait', async (t) => {
    const { tokens, mirror } = await registryWithTokens(t);
    tokens.refusal = { status: 429, body: '', headers: { 'retry-after': '7' } };
    const reply = await mirror.get(MANIFEST);
    assert.deepEqual([reply.status, reply.error], [429, 'TOOMANYREQUESTS']);
    assert.equal(reply.headers['retry-after'], '7');
  });

  test('a failure is an outage, and passes with it', async (t) => {
    const { tokens, mirror } = await registryWithTokens(t);
    tokens.refusal = { status: 500, body: '' };
    const reply = await mirror.get(MANIFEST);
    assert.deepEqual([reply.status, reply.error], [502, 'UNAVAILABLE']);
    tokens.refusal = undefined;
    assert.equal((await mirror.get(MANIFEST)).status, 200);
  });

  test('no connection is an outage', async (t) => {
    const { tokens, mirror } = await registryWithTokens(t);
    const { realm } = tokens;
    await mirror.get(TAGS);
    mirror.clock.advance(HOUR);
    await tokens.close();
    const reply = await mirror.get(TAGS);
    assert.deepEqual([reply.status, reply.error], [502, 'UNAVAILABLE']);
    assert.ok(reply.body.toString().includes(`connection was refused (${new URL(realm).host})`));
  });

  for (const status of [404, 410]) {
    test(`${status} means that the token server is gone, and not the image`, async (t) => {
      const { tokens, mirror } = await registryWithTokens(t);
      assert.equal((await mirror.get(MANIFEST)).status, 200);
      mirror.clock.advance(HOUR);
      tokens.refusal = { status, body: '' };
      for (const _pull of ['first', 'second']) {
        const reply = await mirror.get(MANIFEST);
        assert.equal(reply.status, 200);
        assert.match(String(reply.headers['warning']), new RegExp(`its token server answered ${status}`));
      }
      assert.equal((await mirror.get('/v2/org/app/manifests/2')).status, 502);
    });
  }
});

suite('credentials', () => {
  const credentials = { username: 'me', password: { env: 'PASSWORD' } };

  test('go to the token server, and the registry sees only the token', async (t) => {
    const auth = { credentials: { username: 'me', password: PASSWORD } };
    const { upstream, tokens, mirror } = await registryWithTokens(t, auth, { credentials });
    assert.equal((await mirror.get(MANIFEST)).status, 200);
    assert.deepEqual(
      tokens.requests.map(({ authorization }) => authorization),
      [basic('me', PASSWORD)],
    );
    assert.deepEqual(authorizations(upstream.requests), [undefined, 'Bearer token-1']);
  });

  test('that are wrong are a refusal, and tried once a pull', async (t) => {
    const auth = { credentials: { username: 'me', password: 'another' } };
    const { tokens, mirror } = await registryWithTokens(t, auth, { credentials });
    const reply = await mirror.get(MANIFEST);
    assert.deepEqual([reply.status, reply.error], [403, 'DENIED']);
    assert.equal(tokens.requests.length, 1);
  });

  test('answer a Basic challenge themselves, and from then on unasked', async (t) => {
    const upstream = await ScriptedUpstream.start(t);
    upstream.addImage('org/app', '1');
    demandBasic(upstream, { username: 'me', password: PASSWORD });
    const mirror = await startMirror(t, {
      upstreams: { 'ecr.example': { url: upstream.url, credentials } },
      environment: { PASSWORD },
    });
    assert.equal((await mirror.get(MANIFEST)).status, 200);
    assert.equal((await mirror.get(TAGS)).status, 200);
    const sent = basic('me', PASSWORD);
    assert.deepEqual(authorizations(upstream.requests), [undefined, sent, sent]);
  });

  test('that a Basic challenge refuses are not sent twice for one pull', async (t) => {
    const upstream = await ScriptedUpstream.start(t);
    upstream.addImage('org/app', '1');
    demandBasic(upstream, { username: 'me', password: 'another' });
    const mirror = await startMirror(t, {
      upstreams: { 'ecr.example': { url: upstream.url, credentials } },
      environment: { PASSWORD },
    });
    for (const _pull of ['first', 'second']) assert.equal((await mirror.get(MANIFEST)).status, 403);
    const sent = basic('me', PASSWORD);
    assert.deepEqual(authorizations(upstream.requests), [undefined, sent, sent]);
  });

  test('that are missing make a Basic challenge a refusal', async (t) => {
    const upstream = await ScriptedUpstream.start(t);
    upstream.addImage('org/app', '1');
    demandBasic(upstream, { username: 'me', password: PASSWORD });
    const mirror = await startMirror(t, { upstreams: { 'ecr.example': upstream.url } });
    assert.equal((await mirror.get(MANIFEST)).status, 403);
    assert.deepEqual(authorizations(upstream.requests), [undefined]);
  });

  test('in a file may change: the next pull uses the new ones', async (t) => {
    const file = join(await tempDir(t), 'password');
    await writeFile(file, 'one\n');
    const accepted = { username: 'me', password: 'one' };
    const upstream = await ScriptedUpstream.start(t);
    upstream.addImage('org/app', '1');
    demandBasic(upstream, accepted);
    const mirror = await startMirror(t, {
      upstreams: {
        'ecr.example': { url: upstream.url, credentials: { username: 'me', password: { file } } },
      },
    });
    assert.equal((await mirror.get(TAGS)).status, 200);
    accepted.password = 'second';
    assert.equal((await mirror.get(TAGS)).status, 403);
    await writeFile(file, 'second\n');
    assert.equal((await mirror.get(TAGS)).status, 200);
  });

  test('in a file are read anew for every token', async (t) => {
    const file = join(await tempDir(t), 'password');
    await writeFile(file, 'one');
    const accepted = { username: 'me', password: 'one' };
    const settings = { credentials: { username: 'me', password: { file } } };
    const { tokens, mirror } = await registryWithTokens(t, { credentials: accepted }, settings);
    assert.equal((await mirror.get(TAGS)).status, 200);
    accepted.password = 'second';
    await writeFile(file, 'second');
    tokens.expireAll();
    assert.equal((await mirror.get(TAGS)).status, 200);
    assert.deepEqual(
      tokens.requests.map(({ authorization }) => authorization),
      [basic('me', 'one'), basic('me', 'second')],
    );
  });

  test('that cannot be read are an outage: what is cached goes on, and the log says why', async (t) => {
    const file = join(await tempDir(t), 'password');
    await writeFile(file, PASSWORD);
    const auth = { credentials: { username: 'me', password: PASSWORD } };
    const settings = { credentials: { username: 'me', password: { file } } };
    const { mirror } = await registryWithTokens(t, auth, settings);
    await mirror.get(MANIFEST);
    await rm(file);
    mirror.clock.advance(HOUR);
    const stale = await mirror.get(MANIFEST);
    assert.equal(stale.status, 200);
    assert.match(String(stale.headers['warning']), /its credentials cannot be read/);
    const refused = await mirror.get(TAGS);
    assert.deepEqual([refused.status, refused.error], [502, 'UNAVAILABLE']);
    assert.ok(!refused.body.toString().includes(file), 'a client does not learn where secrets are');
    assert.ok(JSON.stringify(mirror.log).includes(`secret file ${file} cannot be read: no such file`));
    await writeFile(file, PASSWORD);
    mirror.clock.advance(HOUR);
    assert.equal((await mirror.get(TAGS)).status, 200);
  });

  test('of one upstream are never sent to another', async (t) => {
    const login = { credentials: { username: 'me', password: PASSWORD } };
    const hub = await ScriptedUpstream.start(t, { auth: login });
    const ghcr = await ScriptedUpstream.start(t, { auth: {} });
    const quay = await ScriptedUpstream.start(t);
    for (const upstream of [hub, ghcr, quay]) upstream.addImage('org/app', '1');
    demandBasic(quay, { username: 'me', password: PASSWORD });
    const mirror = await startMirror(t, {
      upstreams: { 'docker.io': { url: hub.url, credentials }, 'ghcr.io': ghcr.url, 'quay.io': quay.url },
      environment: { PASSWORD },
    });
    assert.equal((await mirror.get('/v2/docker.io/org/app/manifests/1')).status, 200);
    assert.equal((await mirror.get('/v2/ghcr.io/org/app/manifests/1')).status, 200);
    assert.equal((await mirror.get('/v2/quay.io/org/app/manifests/1')).status, 403);
    assert.deepEqual(
      tokensOf(ghcr).requests.map(({ authorization }) => authorization),
      [undefined],
    );
    assert.deepEqual(authorizations(ghcr.requests), [undefined, 'Bearer token-1']);
    assert.deepEqual(authorizations(quay.requests), [undefined]);
  });
});

suite('a token server on a foreign host', () => {
  const credentials = { username: 'me', password: { env: 'PASSWORD' } };
  const auth = { credentials: { username: 'me', password: PASSWORD } };
  const onForeignHost = (realm: string) =>
    `Bearer realm="${realm.replace('127.0.0.1', 'localhost')}",service="scripted",scope="${SCOPE}"`;

  test('sees neither credentials nor even a request, and the error names the setting', async (t) => {
    const { upstream, tokens, mirror } = await registryWithTokens(t, auth, { credentials });
    challenge(upstream, onForeignHost);
    const reply = await mirror.get(MANIFEST);
    assert.deepEqual([reply.status, reply.error], [502, 'UNAVAILABLE']);
    assert.match(reply.body.toString(), /localhost:\d+ is on a foreign host.*realmHosts/);
    assert.deepEqual(tokens.requests, []);
  });

  test('is asked with the credentials once realmHosts names it', async (t) => {
    const settings = { credentials, realmHosts: ['localhost'] };
    const { upstream, tokens, mirror } = await registryWithTokens(t, auth, settings);
    challenge(upstream, onForeignHost);
    assert.equal((await mirror.get(MANIFEST)).status, 200);
    assert.deepEqual(
      tokens.requests.map(({ authorization }) => authorization),
      [basic('me', PASSWORD)],
    );
  });
});

test('a token server that redirects elsewhere does not take the credentials there', async (t) => {
  const elsewhere = await ScriptedUpstream.start(t);
  const credentials = { username: 'me', password: { env: 'PASSWORD' } };
  const { tokens, mirror } = await registryWithTokens(t, {}, { credentials });
  tokens.refusal = { status: 307, body: '', headers: { location: `${elsewhere.url}/token` } };
  assert.equal((await mirror.get(MANIFEST)).status, 502);
  assert.ok(elsewhere.requests.length > 0);
  assert.deepEqual([...new Set(authorizations(elsewhere.requests))], [undefined]);
});

test('what a client sends about itself goes to no upstream and into no log', async (t) => {
  const { upstream, tokens, mirror } = await registryWithTokens(t);
  const digest = upstream.addContent(Buffer.from('layer'));
  const secret = 'client-secret-5f3a';
  const headers = {
    authorization: `Basic ${secret}`,
    cookie: `session=${secret}`,
    'proxy-authorization': `Basic ${secret}`,
    'x-forwarded-for': secret,
    'x-forwarded-host': secret,
    'x-forwarded-proto': secret,
    forwarded: `for=${secret}`,
    'x-real-ip': secret,
    'x-registry-auth': secret,
    'x-meta-source-client': secret,
    referer: `http://${secret}/`,
    'user-agent': secret,
  };
  for (const path of [MANIFEST, `/v2/org/app/blobs/${digest}`, TAGS, '/v2/org/app/manifests/none', '/v2/']) {
    for (const method of ['HEAD', 'GET']) {
      const { body, headers: sent } = await mirror.send(method, path, headers);
      assert.ok(!body.includes(secret) && !JSON.stringify(sent).includes(secret), `${method} ${path}`);
    }
  }
  assert.ok(upstream.requests.length >= 5);
  assert.ok(!JSON.stringify([upstream.requests, tokens.requests]).includes(secret));
  assert.ok(!JSON.stringify(mirror.log).includes(secret));
});

test('passwords and tokens are in no log line, no error and no metric', async (t) => {
  const credentials = { username: 'me', password: { env: 'PASSWORD' } };
  const auth = { credentials: { username: 'me', password: PASSWORD } };
  const { upstream, tokens, mirror } = await registryWithTokens(t, auth, { credentials });
  const replies = [await mirror.get(MANIFEST)];
  const refusals: (typeof tokens.refusal)[] = [
    { status: 401, body: '' },
    { status: 429, body: '' },
    { status: 500, body: '' },
    { status: 200, body: `{"token":"${PASSWORD} token-9"}` },
  ];
  for (const refusal of refusals) {
    mirror.clock.advance(HOUR);
    tokens.refusal = refusal;
    replies.push(await mirror.get(TAGS), await mirror.get(MANIFEST));
  }
  tokens.refusal = undefined;
  mirror.clock.advance(HOUR);
  upstream.script({}, (reply) => Object.assign(reply, errorReply(401, 'UNAUTHORIZED')));
  replies.push(await mirror.get(TAGS));
  const metrics = await (await fetch(`${mirror.operationsUrl}/metrics`)).text();
  const said = JSON.stringify([
    replies.map(({ headers, body }) => [headers, body.toString()]),
    mirror.log,
    metrics,
  ]);
  for (const secret of [
    PASSWORD,
    basic('me', PASSWORD).slice('Basic '.length),
    'token-1',
    'token-2',
    'token-9',
  ]) {
    assert.ok(!said.includes(secret), secret);
  }
  assert.ok(replies.filter(({ status }) => status >= 400).length >= 5);
});
