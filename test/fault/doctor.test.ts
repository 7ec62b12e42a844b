import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer as createTlsServer } from 'node:https';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { systemClock } from '../../src/clock.ts';
import { type Certificate, selfSigned } from '../helpers/certificates.ts';
import { cleanUp } from '../helpers/cleanup.ts';
import { ConfigFolder } from '../helpers/config-folder.ts';
import { runDoctor } from '../helpers/doctor.ts';
import { FakeClock } from '../helpers/fake-clock.ts';
import { errorReply, ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { TestProxy } from '../helpers/test-proxy.ts';

const folder = await ConfigFolder.create();
const HUB_LIMIT = 'ratelimitpreview/test';

/** @returns its URL */
async function tlsRegistry(t: TestContext, certificate: Certificate): Promise<string> {
  const server = createTlsServer(certificate, (_request, response) => response.end('{}'));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  cleanUp(t, () => {
    server.close();
    server.closeAllConnections();
  });
  return `https://localhost:${(server.address() as AddressInfo).port}`;
}

/** A server that takes connections and says nothing. */
async function silentServer(t: TestContext) {
  const sockets: Socket[] = [];
  const { promise: spokenTo, resolve } = Promise.withResolvers<void>();
  const server = createServer((socket) => {
    sockets.push(socket);
    socket.on('error', () => undefined).on('data', () => resolve());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  cleanUp(t, () => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  /** `spokenTo` resolves when a client has sent something. */
  return { port: (server.address() as AddressInfo).port, spokenTo };
}

/** What the doctor says about one upstream, by default `docker.io`. */
async function examine(
  t: TestContext,
  upstream: Record<string, unknown>,
  { name = 'docker.io', environment = {} }: { name?: string; environment?: Record<string, string> } = {},
) {
  const diagnosis = await runDoctor(
    t,
    { upstreams: { [name]: upstream }, defaultUpstream: name },
    { environment },
  );
  return { ...diagnosis, lines: diagnosis.about(name) };
}

test('all is well: each step is told, nothing is pulled, and the command ends with 0', async (t) => {
  const upstream = await ScriptedUpstream.start(t, { auth: {} });
  upstream.addImage(HUB_LIMIT, 'latest');
  upstream.script({ kind: 'manifest' }, ({ headers }) => {
    Object.assign(headers, { 'ratelimit-limit': '100;w=21600', 'ratelimit-remaining': '76;w=21600' });
  });
  const { lines, exitCode, stderr, stdout, about } = await examine(t, { url: upstream.url });
  const { port } = new URL(upstream.url);
  assert.deepEqual(lines, [
    'ok name: 127.0.0.1 is an address',
    `ok connection: connected to 127.0.0.1:${port}`,
    'skipped certificate: it is reached without TLS (http://)',
    'ok registry: it answers /v2/ and demands a token',
    `ok token: ${new URL(upstream.tokens?.realm ?? '').host} gives one`,
    'ok credentials: none are configured: pulls are anonymous',
    'ok limit: 76 of 100 pulls are left, counted over 6 h',
  ]);
  assert.match(about('clock').join(), /^ok clock: the clock agrees with that of the upstreams/);
  assert.match(about('disk').join(), /^ok disk: .*data is not there yet and can be made, .* free$/);
  assert.deepEqual([exitCode, stderr], [0, '']);
  assert.match(stdout, /\n9 ok, 0 warnings, 0 failed, 1 skipped\n$/);
  assert.deepEqual(
    upstream.requests.filter(({ kind, method }) => kind !== 'ping' && method !== 'HEAD'),
    [],
  );
});

test('a name that does not resolve, and a port that nobody listens on', async (t) => {
  const name = await examine(t, { url: 'https://registry.invalid' });
  assert.match(
    name.lines[0] ?? '',
    /^failed name: its name registry\.invalid cannot be resolved \((ENOTFOUND|EAI_AGAIN)\): check upstreams\.docker\.io\.url, and the DNS server of this machine/,
  );
  assert.deepEqual(name.lines.slice(1), [
    'skipped rest: what follows is not checked, because the check of name failed',
  ]);
  assert.deepEqual([name.exitCode, name.stderr], [1, 'millpond: 1 check failed\n']);

  const port = await examine(t, { url: 'http://127.0.0.1:1' });
  assert.equal(
    port.lines[1],
    'failed connection: the connection was refused (127.0.0.1:1): check whether the registry runs, and the port in upstreams.docker.io.url',
  );
});

test('with every upstream hanging at another step, it ends within 30 s', async (t) => {
  const [silent, handshake, tokens] = await Promise.all([silentServer(t), silentServer(t), silentServer(t)]);
  const registry = await ScriptedUpstream.start(t);
  registry.script({ kind: 'ping' }, (reply) => {
    const realm = `http://127.0.0.1:${tokens.port}/token`;
    Object.assign(reply, errorReply(401, 'UNAUTHORIZED', { 'www-authenticate': `Bearer realm="${realm}"` }));
  });
  const clock = new FakeClock();
  clock.impatient = false;
  const begin = clock.now();
  const upstreams = {
    'a.example': { url: `http://127.0.0.1:${silent.port}` },
    'b.example': { url: `https://127.0.0.1:${handshake.port}` },
    'c.example': { url: registry.url },
  };
  const running = runDoctor(t, { upstreams, defaultUpstream: 'a.example' }, { clock });
  await Promise.all([silent, handshake, tokens].map(({ spokenTo }) => spokenTo));
  clock.advance(8_000);
  const { about, exitCode } = await running;
  const failed = ['a.example', 'b.example', 'c.example'].map((name) =>
    about(name).find((line) => line.startsWith('failed')),
  );
  const advice =
    'check the firewall and the proxy, or ask whoever runs the registry whether it is overloaded';
  assert.deepEqual(
    failed,
    ['registry', 'certificate', 'token'].map((check) => `failed ${check}: no answer within 8 s: ${advice}`),
  );
  assert.equal(exitCode, 1);
  assert.ok(clock.now() - begin <= 30_000);
});

test('an upstream that is slow at each step does not make the whole longer', async (t) => {
  const silent = await silentServer(t);
  const clock = new FakeClock();
  clock.impatient = false;
  /** The sleep of a step never ends, as if each were a little too short for its deadline. */
  const patient = {
    now: () => clock.now(),
    every: clock.every.bind(clock),
    sleep: (ms: number, signal?: AbortSignal) => clock.sleep(ms === 8_000 ? 1e9 : ms, signal),
  };
  const upstreams = { 'a.example': { url: `http://127.0.0.1:${silent.port}` } };
  const running = runDoctor(t, { upstreams, defaultUpstream: 'a.example' }, { clock: patient });
  await silent.spokenTo;
  clock.advance(25_000);
  assert.match((await running).about('a.example').join('\n'), /failed registry: no answer within 25 s/);
});

test('a certificate that has expired, expires soon, is of nobody one trusts, or is for another host', async (t) => {
  const certificateLine = async (host: string, end: string | undefined, trusted: boolean) => {
    const certificate = selfSigned(host, `${host} ${end}`, end);
    const ca = await folder.write('ca.pem', certificate.cert);
    const url = await tlsRegistry(t, certificate);
    const { lines } = await examine(t, { url, ...(trusted ? { ca } : {}) });
    return lines.find((line) => / certificate:/.test(line));
  };
  assert.equal(
    await certificateLine('localhost', '2021-03-04', true),
    'failed certificate: its certificate expired on 2021-03-04 (CERT_HAS_EXPIRED): tell whoever runs the registry to renew it; if the date is still to come, set the clock of this machine',
  );
  const soon = new Date(systemClock.now() + 4 * 86_400_000).toISOString().slice(0, 10);
  assert.match(
    (await certificateLine('localhost', soon, true)) ?? '',
    new RegExp(
      `^warning certificate: TLSv1.3, the certificate is valid for another 3 days, until ${soon}: tell`,
    ),
  );
  assert.match(
    (await certificateLine('localhost', undefined, true)) ?? '',
    /^ok certificate: TLSv1.3, the certificate is valid for another \d+ days, until 2120-01-01$/,
  );
  assert.equal(
    await certificateLine('localhost', undefined, false),
    'failed certificate: its certificate is of an authority that this machine does not trust (DEPTH_ZERO_SELF_SIGNED_CERT): if you trust it, name its PEM file in upstreams.docker.io.ca',
  );
  assert.equal(
    await certificateLine('other.example', undefined, true),
    'failed certificate: its certificate is not for localhost (ERR_TLS_CERT_ALTNAME_INVALID): check the host in upstreams.docker.io.url',
  );
});

test('a server that does not speak TLS, and one that is no registry', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const { lines } = await examine(t, { url: upstream.url.replace('http:', 'https:') });
  assert.match(
    lines[2] ?? '',
    /^failed certificate: no TLS with 127\.0\.0\.1:\d+: the server does not speak TLS: check upstreams\.docker\.io\.url: a registry without TLS needs http:\/\/$/,
  );
  for (const [change, said] of [
    [errorReply(404, 'NOT_FOUND'), /it answered 404: NOT_FOUND not found: check upstreams\.docker\.io\.url$/],
    [errorReply(503, 'UNAVAILABLE'), /it answered 503: UNAVAILABLE unavailable: wait, or ask whoever runs/],
    [
      { headers: { 'content-type': 'text/html' } },
      /it answers \/v2\/ with a web page, and so is no registry/,
    ],
    [errorReply(401, 'UNAUTHORIZED'), /with 401 and does not say what it demands/],
    [
      errorReply(429, 'TOOMANYREQUESTS', { 'retry-after': '120' }),
      /it answered 429: TOOMANYREQUESTS toomanyrequests: wait 120 s, and run this command again$/,
    ],
  ] as const) {
    upstream.clearScripts();
    upstream.script({ kind: 'ping' }, (reply) => void Object.assign(reply, change));
    assert.match((await examine(t, { url: upstream.url })).lines[3] ?? '', said);
  }
});

test('a token server that says 401 to anybody, is broken, or is on a foreign host', async (t) => {
  const upstream = await ScriptedUpstream.start(t, { auth: {} });
  const { tokens } = upstream;
  assert.ok(tokens !== undefined);
  tokens.refusal = { status: 401, body: '' };
  const refused = await examine(t, { url: upstream.url });
  assert.equal(
    refused.lines[4],
    'failed token: its token server answered 401, and no credentials are configured: configure upstreams.docker.io.credentials',
  );
  tokens.refusal = { status: 500, body: '' };
  assert.match(
    (await examine(t, { url: upstream.url })).lines[4] ?? '',
    /^failed token: its token server answered 500: wait/,
  );
  await tokens.close();
  assert.match(
    (await examine(t, { url: upstream.url })).lines[4] ?? '',
    /^failed token: the connection was refused \(127\.0\.0\.1:\d+\): check the way to it/,
  );
  const foreign = await ScriptedUpstream.start(t);
  foreign.script({ kind: 'ping' }, (reply) => {
    const challenge = 'Bearer realm="http://tokens.example/"';
    Object.assign(reply, errorReply(401, 'UNAUTHORIZED', { 'www-authenticate': challenge }));
  });
  assert.match(
    (await examine(t, { url: foreign.url })).lines[4] ?? '',
    /^failed token: its token server tokens\.example is on a foreign host; if you trust it, add it to realmHosts/,
  );
});

test('credentials that are right, wrong, refused without a token, missing, or that cannot be read', async (t) => {
  const account = { username: 'ops', password: 'right-password' };
  const upstream = await ScriptedUpstream.start(t, { auth: { credentials: account } });
  const environment = { PASSWORD: 'right-password', WRONG: 'wrong-password' };
  const credentialsLine = async (credentials: unknown, url = upstream.url) => {
    const { lines } = await examine(t, { url, credentials }, { environment });
    return lines.filter((line) => / (token|credentials):/.test(line)).at(-1);
  };
  assert.equal(
    await credentialsLine({ username: 'ops', password: { env: 'PASSWORD' } }),
    'ok credentials: the registry accepts them',
  );
  const advice =
    'check the user name and the password in upstreams.docker.io.credentials, and whether they have expired';
  assert.match(
    (await credentialsLine({ username: 'ops', password: { env: 'WRONG' } })) ?? '',
    new RegExp(
      `^failed credentials: they are not accepted: its token server answered 401: UNAUTHORIZED.*: ${advice}$`,
    ),
  );
  const empty = await folder.write('config.json', '{"auths":{}}');
  upstream.clearScripts();
  const helper = await credentialsLine({ helper: 'that-is-not-there' });
  assert.equal(
    helper,
    'failed credentials: they cannot be read: docker-credential-that-is-not-there failed: it is not on the PATH: check upstreams.docker.io.credentials',
  );
  const basic = await ScriptedUpstream.start(t);
  const { authorization } = { authorization: `Basic ${btoa('ops:right-password')}` };
  basic.script({ kind: 'ping' }, (reply, { headers }) => {
    if (headers.authorization === authorization) return;
    Object.assign(reply, errorReply(401, 'UNAUTHORIZED', { 'www-authenticate': 'Basic realm="x"' }));
  });
  assert.deepEqual(
    [
      await credentialsLine('none', basic.url),
      await credentialsLine({ username: 'ops', password: { env: 'WRONG' } }, basic.url),
      await credentialsLine({ username: 'ops', password: { env: 'PASSWORD' } }, basic.url),
    ],
    [
      'failed credentials: it demands a password, and none is configured: configure upstreams.docker.io.credentials',
      `failed credentials: they are not accepted: it answered 401: UNAUTHORIZED unauthorized: ${advice}`,
      'ok credentials: the registry accepts them',
    ],
  );
  const open = await ScriptedUpstream.start(t);
  assert.equal(
    await credentialsLine({ dockerConfig: empty }, open.url),
    'warning credentials: what upstreams.docker.io.credentials names has none for this registry: pulls are anonymous: log in there, or remove the key',
  );
  assert.equal(
    await credentialsLine({ username: 'ops', password: { env: 'PASSWORD' } }, open.url),
    'skipped credentials: not checked, because the registry demands none for /v2/',
  );
});

test('a limit that is nearly used, used up, answered with 429, or not told', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  upstream.addImage(HUB_LIMIT, 'latest');
  const limitLine = async (left: number | undefined) => {
    upstream.clearScripts();
    upstream.script({ kind: 'manifest' }, (reply) => {
      if (left === undefined) Object.assign(reply, errorReply(429, 'TOOMANYREQUESTS'));
      else
        Object.assign(reply.headers, { 'ratelimit-limit': '100;w=21600', 'ratelimit-remaining': `${left}` });
    });
    return (await examine(t, { url: upstream.url })).lines.at(-1);
  };
  const advice = 'wait, or configure upstreams.docker.io.credentials of an account that is allowed more';
  assert.deepEqual(
    [await limitLine(10), await limitLine(0)],
    [
      `warning limit: 10 of 100 pulls are left, counted over 6 h: ${advice}`,
      `failed limit: 0 of 100 pulls are left, counted over 6 h: ${advice}`,
    ],
  );
  assert.match(
    (await limitLine(undefined)) ?? '',
    /^failed limit: it answered 429.*: wait 5 s, and run this command/,
  );
  upstream.clearScripts();
  const other = await examine(t, { url: upstream.url }, { name: 'registry.corp' });
  assert.equal(other.lines.at(-1), 'skipped limit: it says nothing about a limit');
});

test('an upstream behind a proxy is checked through it, and a proxy that fails is named', async (t) => {
  const certificate = selfSigned('registry.corp.example');
  const ca = await folder.write('proxied.pem', certificate.cert);
  const target = await tlsRegistry(t, certificate);
  const routes = { 'registry.corp.example:443': Number(new URL(target).port) };
  const upstream = { url: 'https://registry.corp.example', ca };
  const proxy = await TestProxy.start(t, { routes });
  const good = await examine(t, { ...upstream, proxy: proxy.url });
  assert.deepEqual(good.lines.slice(0, 2), [
    'ok name: the proxy resolves registry.corp.example; 127.0.0.1 is an address',
    `ok connection: connected through the proxy ${proxy.host}`,
  ]);
  assert.match(good.lines[2] ?? '', /^ok certificate: /);
  assert.equal(good.lines[3], 'ok registry: it answers /v2/ and demands nothing');

  const strict = await TestProxy.start(t, { routes, authorization: () => 'Basic nobody-knows' });
  const { lines } = await examine(t, upstream, { environment: { HTTPS_PROXY: strict.url } });
  assert.equal(
    lines[1],
    `failed connection: the proxy ${strict.host} refused to connect to registry.corp.example:443: it answered 407; check its user name and password: check HTTPS_PROXY and HTTP_PROXY, and whether the proxy lets this machine through`,
  );
  const gone = await examine(t, { ...upstream, proxy: 'http://127.0.0.1:1' });
  assert.match(
    gone.lines[1] ?? '',
    /refused \(the proxy 127\.0\.0\.1:1\): check upstreams\.docker\.io\.proxy, and/,
  );
});

test('a clock that is wrong is told, and one that an upstream has wrong is not', async (t) => {
  const [right, wrong] = await Promise.all([ScriptedUpstream.start(t), ScriptedUpstream.start(t)]);
  const at = (ms: number) => new Date(systemClock.now() + ms).toUTCString();
  wrong.script({ kind: 'ping' }, ({ headers }) => void (headers['date'] = at(-600_000)));
  const upstreams = { 'wrong.example': { url: wrong.url } };
  const alone = await runDoctor(t, { upstreams, defaultUpstream: 'wrong.example' });
  assert.match(
    alone.about('clock').join(),
    /^warning clock: the clock is (599|600|601) s ahead of that of every upstream that answered: set it, for example with NTP/,
  );
  assert.equal(alone.exitCode, 0);
  const both = { ...upstreams, 'right.example': { url: right.url } };
  const told = await runDoctor(t, { upstreams: both, defaultUpstream: 'wrong.example' });
  assert.match(told.about('clock').join(), /^ok clock/);
});

test('sealed, no upstream is asked, and that is told', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const config = { sealed: true, upstreams: { 'docker.io': { url: upstream.url } } };
  const { stdout, exitCode } = await runDoctor(t, config);
  assert.match(stdout, /\nskipped +upstreams: not checked, because the configuration says sealed: true\n/);
  assert.deepEqual([exitCode, upstream.totalConnections], [0, 0]);
});

test('each URL of an upstream is checked by itself', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const { stdout } = await examine(t, { url: 'http://127.0.0.1:1', fallbackUrls: [upstream.url] });
  assert.match(stdout, /\nfailed +docker\.io \(http:\/\/127\.0\.0\.1:1\) connection: /);
  assert.match(stdout, new RegExp(`\\nok +docker\\.io \\(${upstream.url}\\) registry: `));
});

test('--json says the same to programs', async (t) => {
  const upstreams = { 'docker.io': { url: 'http://127.0.0.1:1' } };
  const { stdout, exitCode } = await runDoctor(t, { upstreams }, { args: ['--json'] });
  const { ok, checks } = JSON.parse(stdout) as { ok: boolean; checks: Record<string, unknown>[] };
  assert.deepEqual([ok, exitCode], [false, 1]);
  assert.deepEqual(
    checks.find(({ outcome }) => outcome === 'failed'),
    {
      check: 'connection',
      upstream: 'docker.io',
      outcome: 'failed',
      message: 'the connection was refused (127.0.0.1:1)',
      advice: 'check whether the registry runs, and the port in upstreams.docker.io.url',
    },
  );
});

test('a whole round leaves the event loop as it was', async (t) => {
  const upstream = await ScriptedUpstream.start(t, { auth: {} });
  await examine(t, { url: upstream.url });
  while (upstream.openConnections.size > 0) await setImmediate();
});
