/** Access control as the clients of the registry side meet it. */
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { revokeToken } from '../../src/access/credentials/tokens/token-file.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { basic, createRobotToken, writeHtpasswd } from '../helpers/access-files.ts';
import { FakeClock } from '../helpers/fake-clock.ts';
import { OidcProvider } from '../helpers/oidc-provider.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { startMirror, type TestMirror, type TestReply } from '../helpers/start-mirror.ts';
import { tempDir } from '../helpers/temp-dir.ts';

const MINUTE = 60_000;
const PASSWORD = 'a password of anna';
const MANIFEST = '/v2/org/private/manifests/1';

interface SetUp {
  access?: Record<string, unknown>;
  server?: Record<string, unknown>;
  rules?: Record<string, unknown>[];
}

async function setUp(t: TestContext, { access = {}, server = {}, rules = [] }: SetUp = {}) {
  const clock = new FakeClock();
  clock.advance(Date.now() - clock.now()); // issuers have no other
  const directory = await tempDir(t);
  const robot = await createRobotToken(directory, 'ci-team', clock);
  const upstream = await ScriptedUpstream.start(t);
  const image = upstream.addImage('org/private', '1', { layers: [5000] });
  upstream.addImage('org/public', '1', { layers: [3000], seed: 'public' });
  const mirror = await startMirror(t, {
    upstreams: { 'ghcr.io': upstream.url },
    ...{ clock, directory, server },
    access: {
      users: { htpasswd: await writeHtpasswd(directory, { anna: PASSWORD, bert: 'his password' }) },
      tokens: robot.path,
      rules: [
        { who: 'anonymous', pull: 'ghcr.io/org/public' },
        { who: ['user:anna', 'token:ci-team'], pull: 'ghcr.io/org/*' },
        ...rules,
      ],
      ...access,
    },
  });
  return { clock, directory, robot, upstream, image, mirror };
}

function challengeOf({ headers }: TestReply): Record<string, string> {
  const text = String(headers['www-authenticate']);
  assert.match(text, /^Bearer /);
  return Object.fromEntries(
    [...text.matchAll(/(\w+)="([^"]*)"/g)].map(([, name = '', value = '']) => [name, value]),
  );
}

async function tokenOf(mirror: TestMirror, authorization?: string, query = 'scope=repository:x:pull') {
  const headers = authorization === undefined ? {} : { authorization };
  const reply = await mirror.get(`/token?service=millpond&${query}`, headers);
  return { reply, json: JSON.parse(reply.body.toString()) as Record<string, string> };
}

async function bearer(mirror: TestMirror, authorization?: string): Promise<string> {
  return `Bearer ${(await tokenOf(mirror, authorization)).json['token']}`;
}

test('nobody is told where to log in, with the scope in the spelling that was used, and nobody else is asked', async (t) => {
  const { mirror, upstream } = await setUp(t);
  const ping = await mirror.get('/v2/');
  assert.equal(ping.status, 401);
  assert.deepEqual(challengeOf(ping), { realm: `${mirror.url}/token`, service: 'millpond' });
  for (const [path, name] of [
    [MANIFEST, 'org/private'],
    ['/v2/ghcr.io/org/private/manifests/1', 'ghcr.io/org/private'],
    ['/ghcr.io/v2/org/private/tags/list?n=5', 'org/private'],
    ['/v2/org/private/manifests/1?ns=ghcr.io', 'org/private'],
  ] as const) {
    const reply = await mirror.get(path);
    assert.deepEqual([reply.status, reply.error], [401, 'UNAUTHORIZED'], path);
    const expected = { realm: `${mirror.url}/token`, service: 'millpond', scope: `repository:${name}:pull` };
    assert.deepEqual(challengeOf(reply), expected);
    assert.equal(reply.headers['cache-control'], 'no-store');
  }
  assert.equal(upstream.totalConnections, 0);
});

test('a user and a robot log in by GET and by POST, pull what the rules allow, and are refused the rest', async (t) => {
  const { mirror, image, robot } = await setUp(t);
  const credentials = { anna: PASSWORD, 'any name': robot.secret };
  for (const [user, password] of Object.entries(credentials)) {
    const { reply, json } = await tokenOf(
      mirror,
      basic(user, password),
      'scope=repository:org/private:pull&offline_token=true',
    );
    assert.equal(reply.status, 200);
    assert.equal(reply.headers['cache-control'], 'no-store');
    assert.equal(json['token'], json['access_token']);
    assert.equal(json['refresh_token'], undefined, 'config.json keeps the password');
    assert.equal(Number(json['expires_in']), 3600);
    const form = new URLSearchParams({
      grant_type: 'password',
      username: user,
      password,
      service: 'millpond',
    });
    const posted = await mirror.send(
      'POST',
      '/token',
      { 'content-type': 'application/x-www-form-urlencoded' },
      form.toString(),
    );
    const { access_token } = JSON.parse(posted.body.toString()) as { access_token: string };
    for (const token of [json['token'], access_token]) {
      const authorization = `Bearer ${token}`;
      assert.equal((await mirror.get('/v2/', { authorization })).status, 200);
      assert.deepEqual((await mirror.get(MANIFEST, { authorization })).body, image.top.bytes);
      assert.equal((await mirror.get('/v2/elsewhere/app/manifests/1', { authorization })).status, 403);
    }
  }
});

test('Basic works straight at the resource, and the secret of a robot as a Bearer', async (t) => {
  const { mirror, robot } = await setUp(t);
  for (const authorization of [basic('anna', PASSWORD), basic('x', robot.secret), `Bearer ${robot.secret}`]) {
    assert.equal((await mirror.get(MANIFEST, { authorization })).status, 200);
    assert.equal((await mirror.get('/v2/', { authorization })).status, 200);
  }
});

test('wrong credentials are 401 and invalid_token, also where anonymous clients may pull', async (t) => {
  const { mirror } = await setUp(t);
  for (const authorization of [
    basic('anna', 'wrong'),
    basic('nobody', PASSWORD),
    basic('x', `mpt_${'A'.repeat(43)}`),
    `Bearer mpt_${'A'.repeat(43)}`,
    'Bearer nonsense',
    'Bearer eyJhbGciOiJub25lIn0.eyJpc3MiOiJ4In0.',
    'Digest username="anna"',
    'Basic',
  ]) {
    for (const path of ['/v2/', MANIFEST, '/v2/org/public/manifests/1']) {
      const reply = await mirror.get(path, { authorization });
      assert.equal(reply.status, 401, `${authorization} ${path}`);
      assert.equal(challengeOf(reply)['error'], 'invalid_token');
    }
  }
});

test('docker login: wrong credentials without a scope are 401, with one they get an anonymous token that says so later', async (t) => {
  const { mirror } = await setUp(t);
  assert.equal((await tokenOf(mirror, basic('anna', 'wrong'), '')).reply.status, 401);
  const failed = await mirror.metric('millpond_access_decisions_total', { decision: 'unauthorized' });
  assert.equal(failed, 1);
  const authorization = await bearer(mirror, basic('hub-user', 'hub password'));
  assert.equal((await mirror.get('/v2/org/public/manifests/1', { authorization })).status, 200);
  const refused = await mirror.get(MANIFEST, { authorization });
  assert.equal(challengeOf(refused)['error'], 'insufficient_scope');
  assert.match(refused.body.toString(), /the credentials sent are not known here/);
  const anonymous = await mirror.get(MANIFEST, { authorization: await bearer(mirror) });
  assert.match(anonymous.body.toString(), /log in to pull/);
});

test('where anonymous clients may pull nothing, there is no anonymous token', async (t) => {
  const { mirror } = await setUp(t, { access: { rules: [{ who: 'user:anna', pull: '*' }] } });
  assert.equal((await tokenOf(mirror)).reply.status, 401);
  assert.equal((await tokenOf(mirror, basic('anna', 'wrong'))).reply.status, 401);
});

test('a JWT of five minutes begins a session of an hour, by its refresh token too, and then ends', async (t) => {
  const provider = await OidcProvider.start(t);
  const { mirror, clock } = await setUp(t, {
    access: {
      oidc: [{ name: 'ci', issuer: provider.issuer, audience: 'millpond' }],
      rules: [{ who: 'oidc:ci', claims: { client_id: 'ci' }, pull: 'ghcr.io/org/*' }],
    },
  });
  const jwt = await provider.jwt();
  const { json } = await tokenOf(mirror, basic('oauth', jwt), 'offline_token=true');
  const refresh = String(json['refresh_token']);
  const pull = async (authorization: string) => (await mirror.get(MANIFEST, { authorization })).status;
  assert.equal(await pull(`Bearer ${json['token']}`), 200);
  assert.equal(await pull(basic('oauth', jwt)), 200);
  clock.advance(10 * MINUTE);
  assert.equal(await pull(basic('oauth', jwt)), 401, 'the JWT itself has expired');
  assert.equal(await pull(`Bearer ${json['token']}`), 200);
  assert.equal(await pull(basic('oauth', refresh)), 200, 'podman keeps only the refresh token');
  const form = new URLSearchParams({ grant_type: 'refresh_token', refresh_token: refresh }).toString();
  const again = await mirror.send('POST', '/token', {}, form);
  const { access_token } = JSON.parse(again.body.toString()) as { access_token: string };
  assert.equal(await pull(`Bearer ${access_token}`), 200);
  clock.advance(51 * MINUTE);
  for (const authorization of [`Bearer ${access_token}`, basic('oauth', refresh)])
    assert.equal(await pull(authorization), 401);
  assert.equal((await mirror.send('POST', '/token', {}, form)).status, 401);
});

test('an issuer that is removed ends the sessions that came from it', async (t) => {
  const provider = await OidcProvider.start(t);
  const rules = [{ who: 'oidc:ci', claims: { client_id: 'ci' }, pull: 'ghcr.io/org/*' }];
  const oidc = [{ name: 'ci', issuer: provider.issuer, audience: 'millpond' }];
  const { mirror, clock, directory, upstream } = await setUp(t, { access: { oidc, rules } });
  const { json } = await tokenOf(mirror, basic('oauth', await provider.jwt()), 'offline_token=true');
  const proofs = [`Bearer ${json['token']}`, basic('oauth', String(json['refresh_token']))];
  await mirror.app.close();
  const another = [{ name: 'ci', issuer: 'https://another.example', audience: 'millpond' }];
  const upstreams = { 'ghcr.io': upstream.url };
  for (const [changed, status] of [
    [oidc, 200],
    [another, 401],
  ] as const) {
    const restarted = await startMirror(t, { clock, directory, upstreams, access: { oidc: changed, rules } });
    for (const authorization of proofs) {
      assert.equal(
        (await restarted.get(MANIFEST, { authorization })).status,
        status,
        authorization.slice(0, 8),
      );
    }
    await restarted.app.close();
  }
});

test('a revoked token and a changed password end within 5 s, tokens that were given for them too', async (t) => {
  const { mirror, clock, robot, directory } = await setUp(t);
  const proofs = [
    `Bearer ${robot.secret}`,
    await bearer(mirror, basic('x', robot.secret)),
    basic('anna', PASSWORD),
    await bearer(mirror, basic('anna', PASSWORD)),
  ];
  const pull = async (authorization: string) => (await mirror.get(MANIFEST, { authorization })).status;
  for (const proof of proofs) assert.equal(await pull(proof), 200);
  await revokeToken(robot.path, 'ci-team', clock);
  await writeHtpasswd(directory, { anna: 'another password' });
  clock.advance(5_000);
  for (const proof of proofs) assert.equal(await pull(proof), 401);
});

test('a rule that is removed from the configuration file ends within 5 s, without a restart; a file with mistakes changes nothing', async (t) => {
  const { mirror, clock, directory } = await setUp(t);
  const file = join(directory, 'millpond.yaml');
  const written = await readFile(file, 'utf8');
  // Not a token: looking may move the clock by more than its hour.
  const authorization = basic('anna', PASSWORD);
  const pull = async () => (await mirror.get(MANIFEST, { authorization })).status;
  const look = async (message: string) => {
    while (!mirror.log.some(({ msg }) => msg === message)) {
      clock.advance(1_000);
      await setImmediate();
    }
  };
  await writeFile(file, written.replace('user:anna', 'user anna'));
  await look('configuration not reloaded: the old one stays in use');
  assert.equal(await pull(), 200);
  await writeFile(file, written.replace('user:anna', 'user:bert'));
  await look('configuration reloaded');
  assert.equal(await pull(), 403);
});

test('networks of daemons are never challenged: /v2/ is 200, a refusal is 403, a token still counts', async (t) => {
  const { mirror } = await setUp(t, { access: { noChallenge: ['127.0.0.0/8'] } });
  assert.equal((await mirror.get('/v2/')).status, 200);
  assert.equal((await mirror.get('/v2/org/public/manifests/1')).status, 200);
  const refused = await mirror.get(MANIFEST);
  assert.deepEqual([refused.status, refused.headers['www-authenticate']], [403, undefined]);
  assert.equal((await mirror.get(MANIFEST, { authorization: basic('anna', PASSWORD) })).status, 200);
  assert.equal((await mirror.get('/v2/', { authorization: basic('anna', 'wrong') })).status, 401);
});

test('fetch: false gives what is cached, however old, and asks upstream for nothing', async (t) => {
  const { mirror, upstream, image, clock } = await setUp(t, {
    rules: [{ who: 'user:bert', pull: 'ghcr.io/org/*', fetch: false }],
  });
  const [anna, bert] = [basic('anna', PASSWORD), basic('bert', 'his password')];
  const layer = digestOf(image.blobs[1] ?? Buffer.alloc(0));
  const paths = [MANIFEST, `/v2/org/private/blobs/${layer}`, `/v2/org/private/manifests/${image.top.digest}`];
  const others = ['/v2/org/private/tags/list', `/v2/org/private/referrers/${image.top.digest}`];
  const ask = async (path: string, method = 'GET') =>
    (await mirror.send(method, path, { authorization: bert })).status;
  for (const path of [...paths, ...others]) assert.equal(await ask(path), 404, path);
  for (const path of paths) assert.equal(await ask(path, 'HEAD'), 404, path);
  assert.equal(upstream.totalConnections, 0);
  for (const path of paths) assert.equal((await mirror.get(path, { authorization: anna })).status, 200);
  await mirror.idle();
  const asked = upstream.requests.length;
  clock.advance(48 * 60 * MINUTE);
  for (const path of paths) {
    assert.equal(await ask(path), 200, path);
    assert.equal(await ask(path, 'HEAD'), 200, path);
  }
  assert.equal(await ask('/v2/org/public/manifests/1'), 200, 'as an anonymous client may');
  assert.equal(upstream.requests.length - asked, 1);
});

test('a request of a web page has no network identity', async (t) => {
  const { mirror } = await setUp(t, {
    rules: [{ who: 'anonymous', network: '127.0.0.0/8', pull: 'ghcr.io/org/private' }],
  });
  assert.equal((await mirror.get(MANIFEST)).status, 200);
  // The last is of a page whose name was made to lead here: of the same site, and only a browser's habits give it away.
  for (const headers of [
    { origin: 'https://evil.example' },
    { 'sec-fetch-site': 'cross-site' },
    { 'sec-fetch-site': 'same-origin', 'accept-language': 'en' },
  ])
    assert.equal((await mirror.get(MANIFEST, headers)).status, 401);
});

test('behind a trusted proxy the client is whom it names; without a name it is in no network', async (t) => {
  const { mirror } = await setUp(t, {
    server: { trustedProxies: ['127.0.0.1'] },
    rules: [
      { who: 'anonymous', network: '10.0.0.0/8', pull: 'ghcr.io/org/private' },
      { who: 'anonymous', network: '127.0.0.0/8', pull: 'ghcr.io/org/private' },
    ],
  });
  const ask = async (headers: Record<string, string>) => (await mirror.get(MANIFEST, headers)).status;
  assert.equal(await ask({ 'x-forwarded-for': '10.1.2.3' }), 200);
  assert.equal(mirror.log.at(-1)?.['client'], '10.1.2.3');
  assert.equal(await ask({ 'x-forwarded-for': '10.1.2.3, 192.0.2.1' }), 401);
  assert.equal(await ask({ forwarded: 'for=10.1.2.3' }), 401);
  assert.equal(await ask({}), 401);
  const secure = {
    'x-forwarded-for': '192.0.2.1',
    'x-forwarded-proto': 'https',
    'x-forwarded-host': 'mirror.example',
  };
  assert.equal(challengeOf(await mirror.get('/v2/', secure))['realm'], 'https://mirror.example/token');
  const login = { authorization: basic('anna', PASSWORD) };
  const open = await mirror.get(MANIFEST, { 'x-forwarded-for': '192.0.2.1', ...login });
  assert.equal(open.status, 401);
  assert.match(open.body.toString(), /only over TLS/);
  assert.equal((await mirror.get(MANIFEST, { ...secure, ...login })).status, 200);
});

test('the realm is externalUrl where there is one', async (t) => {
  const { mirror } = await setUp(t, { server: { externalUrl: 'https://mirror.example/registry/' } });
  assert.equal(challengeOf(await mirror.get('/v2/'))['realm'], 'https://mirror.example/registry/token');
});

test('no oracle: a refusal is the same for what is cached, not cached, missing and not reachable', async (t) => {
  const { mirror, upstream, image } = await setUp(t);
  await mirror.get(MANIFEST, { authorization: basic('anna', PASSWORD) });
  await mirror.idle();
  const asked = upstream.requests.length;
  const digest = image.top.digest;
  const routes = [
    'manifests/1',
    'manifests/none',
    `manifests/${digest}`,
    `blobs/${digest}`,
    'tags/list',
    `referrers/${digest}`,
  ];
  const askers = { nobody: {}, somebody: { authorization: basic('bert', 'his password') } };
  for (const [who, credentials] of Object.entries(askers)) {
    for (const route of routes) {
      for (const headers of [
        {},
        { range: 'bytes=0-1' },
        { 'if-none-match': `"${digest}"` },
        { 'cache-control': 'only-if-cached' },
      ]) {
        const replies = await Promise.all(
          ['org/private', 'org/unknown'].map(async (name) => {
            const reply = await mirror.get(`/v2/${name}/${route}`, { ...headers, ...credentials });
            const { date: _date, ...rest } = reply.headers;
            return { status: reply.status, headers: rest, body: reply.body.toString(), name };
          }),
        );
        const shown = replies.map(({ name, ...reply }) =>
          JSON.stringify(reply)
            .replaceAll(name, 'NAME')
            .replace(/"requestId\\":\\"[^"]*"/, ''),
        );
        assert.equal(
          new Set(shown.map((text) => text.replace(/content-length":"\d+"/, ''))).size,
          1,
          `${who} ${route}`,
        );
        assert.equal(replies[0]?.status, who === 'nobody' ? 401 : 403);
      }
    }
  }
  assert.equal(upstream.requests.length, asked);
});

test('replies are for one client: private, by Authorization; a blob keeps its age', async (t) => {
  const { mirror, image } = await setUp(t);
  const authorization = basic('anna', PASSWORD);
  const manifest = await mirror.get(MANIFEST, { authorization });
  assert.equal(manifest.headers['cache-control'], 'private');
  assert.equal(manifest.headers['vary'], 'Authorization, Accept');
  const blob = await mirror.get(`/v2/org/private/blobs/${digestOf(image.blobs[1] ?? Buffer.alloc(0))}`, {
    authorization,
  });
  assert.equal(blob.headers['cache-control'], 'private, max-age=31536000, immutable');
  assert.equal(blob.headers['vary'], 'Authorization');
  const other = await mirror.get(MANIFEST, {
    authorization: basic('bert', 'his password'),
    'if-none-match': `"${image.top.digest}"`,
  });
  assert.equal(other.status, 403, 'decided before it can become 304');
  assert.equal(other.headers['cache-control'], 'no-store');
});

test('the log says who and by which rule, metrics count decisions, and no credential is told or sent upstream', async (t) => {
  const { mirror, robot, upstream } = await setUp(t);
  const token = await bearer(mirror, basic('anna', PASSWORD));
  for (const authorization of [basic('anna', PASSWORD), token, `Bearer ${robot.secret}`]) {
    await mirror.get(MANIFEST, { authorization });
  }
  await mirror.get('/v2/org/public/manifests/1');
  await mirror.get(MANIFEST, { authorization: basic('bert', 'his password') });
  const lines = mirror.log.filter(({ msg }) => msg === 'request');
  const told = lines.slice(1).map(({ identity, rule }) => [identity, rule]);
  assert.deepEqual(told, [
    ['user:anna', 1],
    ['user:anna', 1],
    ['token:ci-team', 1],
    ['anonymous', 0],
    ['user:bert', undefined],
  ]);
  const decisions = (identity_kind: string, decision: string) =>
    mirror.metric('millpond_access_decisions_total', { identity_kind, decision });
  assert.equal(await decisions('user', 'allowed'), 2);
  assert.equal(await decisions('token', 'allowed'), 1);
  assert.equal(await decisions('anonymous', 'allowed'), 1);
  assert.equal(await decisions('user', 'denied'), 1);
  const everything = JSON.stringify([mirror.log, upstream.requests]);
  for (const secret of [PASSWORD, 'his password', robot.secret, token, basic('anna', PASSWORD).slice(6)])
    assert.ok(!everything.includes(secret), secret.slice(0, 8));
});

test('a mirror on an address that is not loopback says that it has no access control', async (t) => {
  const mirror = await startMirror(t, {
    upstreams: { 'ghcr.io': 'http://127.0.0.1:9' },
    server: { listen: '0.0.0.0:0' },
  });
  const warnings = mirror.log.filter(({ msg }) => String(msg).startsWith('there is no access control'));
  assert.equal(warnings.length, 1);
});
