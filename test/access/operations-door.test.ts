/** Access control as the clients of the operations side meet it. */
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { Agent, request } from 'undici';
import { basic, createRobotToken, writeHtpasswd } from '../helpers/access-files.ts';
import { selfSigned } from '../helpers/certificates.ts';
import { cleanUp } from '../helpers/cleanup.ts';
import { TestAuthority } from '../helpers/client-certificates.ts';
import { FakeClock } from '../helpers/fake-clock.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { type MirrorOptions, startMirror, type TestMirror } from '../helpers/start-mirror.ts';
import { tempDir } from '../helpers/temp-dir.ts';

const RIGHTS = {
  puller: { pull: '*' },
  observer: { observe: true },
  'some-observer': { observe: 'ghcr.io/org/*' },
  operator: { operate: true, pull: '*' },
  'some-operator': { operate: 'ghcr.io/org/*', pull: 'ghcr.io/org/*' },
  ops: { operate: true, observe: true, pull: '*' },
};

const ASKERS = ['nobody', 'wrong', ...Object.keys(RIGHTS)];

function passwordOf(user: string): string {
  return `the password of ${user}`;
}

function headersOf(asker: string): Record<string, string> {
  if (asker === 'nobody') return {};
  const [user, password] = asker === 'wrong' ? ['ops', 'wrong'] : [asker, passwordOf(asker)];
  return { authorization: basic(user, password) };
}

async function setUp(t: TestContext, options: Partial<MirrorOptions> = {}) {
  const directory = await tempDir(t);
  const users = Object.keys(RIGHTS);
  const upstream = await ScriptedUpstream.start(t);
  for (const repository of ['org/app', 'other/app']) upstream.addImage(repository, '1', { seed: repository });
  const mirror = await startMirror(t, {
    upstreams: { 'ghcr.io': upstream.url },
    directory,
    operator: headersOf('ops'),
    ...options,
    operations: { listen: '127.0.0.1:0', ...options.operations },
    access: {
      users: {
        htpasswd: await writeHtpasswd(
          directory,
          Object.fromEntries(users.map((user) => [user, passwordOf(user)])),
        ),
      },
      rules: Object.entries(RIGHTS).map(([user, rights]) => ({ who: `user:${user}`, ...rights })),
      ...options.access,
    },
  });
  return { upstream, mirror, directory };
}

async function send(
  { operationsUrl }: TestMirror,
  route: string,
  headers: Record<string, string> = {},
  body?: string | Buffer,
) {
  const [method = '', path = ''] = route.split(' ');
  const reply = await request(`${operationsUrl}${path}`, { method, headers, body: body ?? null });
  return { status: reply.statusCode, headers: reply.headers, text: await reply.body.text() };
}

const images = (...names: string[]) => JSON.stringify({ images: names });

function admission(repository: string): string {
  const image = `${repository}@sha256:${'0'.repeat(64)}`;
  return JSON.stringify({ image, policies: ['a'], reason: 'a hotfix', until: '2027-12-31T00:00:00Z' });
}

/** For each route and asker, in the order of `ASKERS`, the status. */
const TABLE: [string, string | undefined, number[]][] = [
  ['GET /healthz', undefined, [200, 200, 200, 200, 200, 200, 200, 200]],
  ['GET /readyz', undefined, [200, 200, 200, 200, 200, 200, 200, 200]],
  ['GET /metrics', undefined, [401, 401, 403, 200, 403, 403, 403, 200]],
  ['HEAD /metrics', undefined, [401, 401, 403, 200, 403, 403, 403, 200]],
  ['GET /api/status', undefined, [401, 401, 403, 200, 403, 403, 403, 200]],
  ['GET /api/images', undefined, [401, 401, 403, 200, 200, 403, 403, 200]],
  ['GET /api/explain?image=ghcr.io/org/app:9', undefined, [401, 401, 403, 403, 403, 403, 403, 200]],
  ['GET /api/policy/admissions', undefined, [401, 401, 403, 200, 200, 403, 403, 200]],
  ['POST /api/policy/admit', admission('ghcr.io/org/app'), [401, 401, 403, 403, 403, 409, 409, 409]],
  ['POST /api/policy/admit', admission('ghcr.io/other/app'), [401, 401, 403, 403, 403, 409, 403, 409]],
  ['DELETE /api/images/ghcr.io/org/app:9', undefined, [401, 401, 403, 403, 403, 404, 404, 404]],
  ['DELETE /api/images/ghcr.io/other/app:9', undefined, [401, 401, 403, 403, 403, 404, 403, 404]],
  ['GET /api/export?image=ghcr.io/org/no:1', undefined, [401, 401, 403, 403, 403, 404, 404, 404]],
  ['GET /api/export?image=ghcr.io/other/no:1', undefined, [401, 401, 403, 403, 403, 404, 403, 404]],
  ['POST /api/export', images('ghcr.io/org/no:1'), [401, 401, 403, 403, 403, 404, 404, 404]],
  ['POST /api/export', images('ghcr.io/other/no:1'), [401, 401, 403, 403, 403, 404, 403, 404]],
  ['POST /api/warm', images('ghcr.io/org/app:1'), [401, 401, 403, 403, 403, 200, 200, 200]],
  [
    'POST /api/warm',
    images('ghcr.io/org/app:1', 'ghcr.io/other/app:1'),
    [401, 401, 403, 403, 403, 200, 403, 200],
  ],
  ['POST /api/warm', 'not JSON', [401, 401, 403, 403, 403, 400, 400, 400]],
  ['POST /api/import', 'no archive', [401, 401, 403, 403, 403, 200, 200, 200]],
  ['POST /api/import?name=ghcr.io/other/app:2', 'no archive', [401, 401, 403, 403, 403, 200, 403, 200]],
  ['GET /api/pins', undefined, [401, 401, 403, 200, 403, 403, 403, 200]],
  ['POST /api/pins', '{"pattern":"ghcr.io/org/*"}', [401, 401, 403, 403, 403, 200, 403, 200]],
  ['DELETE /api/pins/ghcr.io/no/*', undefined, [401, 401, 403, 403, 403, 404, 403, 404]],
  ['POST /api/scrub', undefined, [401, 401, 403, 403, 403, 200, 403, 200]],
  ['POST /api/seal', undefined, [401, 401, 403, 403, 403, 200, 403, 200]],
  ['POST /api/unseal', undefined, [401, 401, 403, 403, 403, 200, 403, 200]],
];

test('every route but those of health needs its right: nobody is 401, and somebody without it 403', async (t) => {
  const { mirror } = await setUp(t);
  for (const [route, body, expected] of TABLE) {
    const statuses: number[] = [];
    for (const asker of ASKERS) {
      const { status, headers, text } = await send(mirror, route, headersOf(asker), body);
      statuses.push(status);
      const challenge = status === 401 ? 'Basic realm="millpond operations", charset="UTF-8"' : undefined;
      assert.equal(headers['www-authenticate'], challenge);
      if (status > 400 && !route.startsWith('HEAD'))
        assert.equal(typeof (JSON.parse(text) as { error: unknown }).error, 'string');
    }
    assert.deepEqual(statuses, expected, `${route} ${body}`);
  }
});

test('each request counts as one decision, by the kind of its sender', async (t) => {
  const { mirror } = await setUp(t);
  const counted = (identity_kind: string, decision: string) =>
    mirror.metric('millpond_access_decisions_total', { identity_kind, decision });
  await send(mirror, 'GET /api/status');
  await send(mirror, 'GET /api/status', headersOf('wrong'));
  assert.equal(await counted('anonymous', 'unauthorized'), 2);
  await send(mirror, 'POST /api/scrub', headersOf('some-operator'));
  await send(mirror, 'GET /api/images', headersOf('puller'));
  assert.equal(await counted('user', 'denied'), 2);
  const before = await counted('user', 'allowed');
  await send(mirror, 'POST /api/warm', headersOf('some-operator'), images('ghcr.io/org/app:1'));
  await send(mirror, 'GET /api/images', headersOf('some-observer'));
  assert.equal(await counted('user', 'allowed'), before + 3, 'these two and a look at the metrics');
});

test('a client that leaves while its login waits is no defect: nothing is logged', async (t) => {
  const { mirror } = await setUp(t);
  const wrong = (n: number) => ({ authorization: basic('ops', `wrong ${n}`) });
  for (let n = 0; n < 5; n += 1) await send(mirror, 'GET /api/status', wrong(n));
  mirror.clock.impatient = false; // from now on logins wait
  const before = mirror.log.length;
  const leave = new AbortController();
  const leaving = request(`${mirror.operationsUrl}/api/status`, { headers: wrong(5), signal: leave.signal });
  await mirror.clock.waited();
  leave.abort();
  await assert.rejects(leaving);
  while (mirror.clock.isAwaited) await setImmediate();
  await setImmediate(); // what the refusal leads to
  assert.deepEqual(mirror.log.slice(before), []);
});

test('the list shows only the images that the asker may observe and may pull', async (t) => {
  const robots = { directory: await tempDir(t), clock: new FakeClock() };
  const puller = await createRobotToken(robots.directory, 'puller', robots.clock);
  const observer = await createRobotToken(robots.directory, 'observer', robots.clock);
  const rules = Object.entries(RIGHTS).map(([user, rights]) => ({ who: `user:${user}`, ...rights }));
  const { mirror } = await setUp(t, {
    ...robots,
    access: {
      tokens: puller.path,
      rules: [
        ...rules,
        { who: 'token:puller', observe: true, pull: 'ghcr.io/org/*' },
        { who: 'token:observer', observe: 'ghcr.io/org/*', pull: '*' },
      ],
    },
  });
  const both = images('ghcr.io/org/app:1', 'ghcr.io/other/app:1');
  await send(mirror, 'POST /api/warm', headersOf('ops'), both);
  const names = async (headers: Record<string, string>) => {
    const { text } = await send(mirror, 'GET /api/images', headers);
    return (JSON.parse(text) as { images: { name: string }[] }).images.map(({ name }) => name);
  };
  assert.deepEqual(await names(headersOf('ops')), ['ghcr.io/org/app:1', 'ghcr.io/other/app:1']);
  for (const { secret } of [puller, observer])
    assert.deepEqual(await names({ authorization: `Bearer ${secret}` }), ['ghcr.io/org/app:1']);
  assert.deepEqual(await names(headersOf('observer')), [], 'it may pull nothing');
});

test('warm needs the right to fetch, export that to pull; operate alone is neither', async (t) => {
  const robots = { directory: await tempDir(t), clock: new FakeClock() };
  const tokens: Record<string, string> = {};
  let path = '';
  for (const name of ['cached', 'blind', 'all']) {
    const robot = await createRobotToken(robots.directory, name, robots.clock);
    [tokens[name], path] = [robot.secret, robot.path];
  }
  const rule = { operate: 'ghcr.io/org/*' };
  const { mirror, upstream } = await setUp(t, {
    ...robots,
    operator: { authorization: `Bearer ${tokens['all']}` },
    access: {
      tokens: path,
      rules: [
        { who: 'token:blind', ...rule },
        { who: 'token:cached', ...rule, pull: 'ghcr.io/org/*', fetch: false },
        { who: 'token:all', ...rule, pull: '*', observe: true },
      ],
    },
  });
  const statuses = async (name: string) => {
    const headers = { authorization: `Bearer ${tokens[name]}` };
    const body = images('ghcr.io/org/app:1');
    const warmed = await send(mirror, 'POST /api/warm', headers, body);
    return [warmed.status, (await send(mirror, 'POST /api/export', headers, body)).status];
  };
  assert.deepEqual(await statuses('blind'), [403, 403]);
  assert.deepEqual(await statuses('cached'), [403, 404]);
  assert.equal(upstream.totalConnections, 0);
  assert.deepEqual(await statuses('all'), [200, 200]);
  assert.deepEqual(await statuses('cached'), [403, 200]);
});

test('operations.tls is served, and a client certificate is an identity there', async (t) => {
  const authority = await TestAuthority.root(t, 'clients');
  const client = await authority.issue(t, { subject: '/CN=prometheus' });
  const stranger = await (await TestAuthority.root(t, 'others')).issue(t, { subject: '/CN=prometheus' });
  const server = selfSigned('localhost');
  const folder = await tempDir(t);
  const write = async (name: string, text: string) => {
    await writeFile(join(folder, name), text);
    return join(folder, name);
  };
  const clock = new FakeClock();
  clock.advance(Date.now() - clock.now()); // the dates of the certificates are real
  const { mirror } = await setUp(t, {
    clock,
    operations: {
      tls: {
        certificate: await write('cert.pem', server.cert),
        key: await write('key.pem', server.key),
        clientCa: await write('ca.pem', authority.cert),
      },
    },
    access: { rules: [{ who: 'certificate:CN=prometheus', observe: true }] },
  });
  const status = async (path: string, certificate: object) => {
    const dispatcher = new Agent({ connect: { ca: server.cert, servername: 'localhost', ...certificate } });
    cleanUp(t, () => dispatcher.destroy());
    const reply = await request(`${mirror.operationsUrl}${path}`, { dispatcher });
    await reply.body.dump();
    return reply.statusCode;
  };
  assert.match(mirror.operationsUrl, /^https:/);
  assert.equal(await status('/metrics', client), 200);
  assert.equal(await status('/api/images', client), 200);
  assert.equal(await status('/metrics', stranger), 401);
  assert.equal(await status('/metrics', {}), 401);
  assert.equal(await status('/healthz', {}), 200);
});

test('whoever can open the socket is operator, without credentials and by any name', async (t) => {
  const folder = await tempDir(t);
  const socketPath = join(folder, 'ops.sock');
  const { mirror } = await setUp(t, { operations: { listen: `unix:${socketPath}` }, operator: {} });
  const dispatcher = new Agent({ connect: { socketPath } });
  cleanUp(t, () => dispatcher.destroy());
  const status = async (headers: Record<string, string>) => {
    const reply = await request('http://any.name/api/seal', { method: 'POST', dispatcher, headers });
    await reply.body.dump();
    return reply.statusCode;
  };
  assert.equal(await status({}), 200);
  assert.equal(await status(headersOf('wrong')), 200);
  assert.equal(await status({ origin: 'http://any.name' }), 403);
  assert.equal(await mirror.metric('millpond_access_decisions_total'), 0);
});

test('a rule that says less than was meant is a warning at start', async (t) => {
  const { mirror } = await setUp(t, {
    access: { rules: [{ who: 'user:ops', observe: true, fetch: false }] },
  });
  const warnings = mirror.log.filter(({ key }) => key !== undefined);
  assert.deepEqual(
    warnings.map(({ level, key, msg }) => [level, key, msg]),
    [['warn', 'access.rules[0].fetch', 'says nothing without pull']],
  );
});

for (const access of [undefined, { rules: [{ who: 'anonymous', operate: true, observe: true }] }]) {
  const where = access === undefined ? 'without access control' : 'with access for everybody';

  test(`${where}, a name that is not configured is 421, as after DNS rebinding`, async (t) => {
    const options = {
      operations: { listen: '127.0.0.1:0', hosts: ['ops.corp.example', 'ported.test:5001'] },
    };
    const mirror = await startMirror(t, {
      upstreams: { 'ghcr.io': 'http://127.0.0.1:9' },
      ...options,
      ...(access && { access }),
    });
    for (const host of [
      'localhost',
      'LocalHost:5001',
      '127.0.0.1:1',
      '10.1.2.3',
      '[::1]:5001',
      '[fe80::1]',
      'ops.corp.example',
      'OPS.corp.example:99',
      'ported.test',
    ]) {
      for (const route of ['GET /metrics', 'GET /api/status', 'POST /api/scrub'])
        assert.equal((await send(mirror, route, { host })).status, 200, host);
    }
    for (const host of [
      'evil.test',
      'localhost.evil.test',
      'evil.test:127',
      '127.0.0.1.evil.test',
      'localhost.',
      'a.ops.corp.example',
    ]) {
      for (const route of ['GET /metrics', 'GET /api/status', 'POST /api/seal', 'GET /nothing']) {
        const { status, text } = await send(mirror, route, { host });
        assert.equal(status, 421, `${route} ${host}`);
        assert.match((JSON.parse(text) as { error: string }).error, /operations\.hosts/);
      }
      for (const route of ['GET /healthz', 'GET /readyz'])
        assert.equal((await send(mirror, route, { host })).status, 200);
    }
  });

  test(`${where}, a request from another site is 403 on every route`, async (t) => {
    const mirror = await startMirror(t, {
      upstreams: { 'ghcr.io': 'http://127.0.0.1:9' },
      operations: { listen: '127.0.0.1:0' },
      ...(access && { access }),
    });
    const routes = [...new Set(TABLE.map(([route]) => route))];
    for (const headers of [
      { origin: 'http://evil.test' },
      { origin: 'null' },
      { 'sec-fetch-site': 'cross-site' },
      { 'sec-fetch-site': 'same-site' },
    ] as Record<string, string>[]) {
      for (const route of routes) assert.equal((await send(mirror, route, headers)).status, 403, route);
    }
    for (const site of ['none', 'same-origin'])
      assert.equal((await send(mirror, 'GET /metrics', { 'sec-fetch-site': site })).status, 200);
  });
}
