/** What is sent to an issuer, and what of its answers is taken. */
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import type { ServerResponse } from 'node:http';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { IssuerSettings } from '../../src/access/oidc/issuer.ts';
import type { SendRequest } from '../../src/access/oidc/issuer-http.ts';
import { Issuers } from '../../src/access/oidc/issuers.ts';
import { createLogger } from '../../src/telemetry/log.ts';
import { FakeClock } from '../helpers/fake-clock.ts';
import { tempDir } from '../helpers/temp-dir.ts';
import { configuredIssuer, sendDirectly, TestIssuer } from '../helpers/test-issuer.ts';

const DISCOVERY = '/.well-known/openid-configuration';
const unavailable = { name: 'IssuerError', code: 'unavailable' };

async function setUp(t: TestContext, settings: (issuer: TestIssuer) => Partial<IssuerSettings> = () => ({})) {
  const issuer = await TestIssuer.start(t);
  const clock = new FakeClock();
  const reasons: string[] = [];
  const logger = createLogger({
    level: 'info',
    destination: { write: (line) => void reasons.push((JSON.parse(line) as { reason: string }).reason) },
    now: () => 0,
  });
  const issuers = new Issuers([
    configuredIssuer(t, { issuer: issuer.url, ...settings(issuer) }, { clock, logger }),
  ]);
  const logIn = async () => issuers.beginSession(await issuer.key.sign(issuer.claims(clock.now())));
  return { issuer, clock, reasons, logIn, paths: () => issuer.requests.map(({ path }) => path) };
}

/** Answers with `document` at `path`. */
function answer(issuer: TestIssuer, at: string, reply: (response: ServerResponse) => void) {
  issuer.script = (path, response) => {
    if (path !== at) return false;
    reply(response);
    return true;
  };
}

const json = (document: unknown) => (response: ServerResponse) => response.end(JSON.stringify(document));
const redirect = (location: string) => (response: ServerResponse) =>
  response.writeHead(302, { location }).end();

test('an issuer is asked for its discovery document and then for its keys', async (t) => {
  const { logIn, paths } = await setUp(t);
  assert.equal((await logIn()).name, 'ci');
  await logIn();
  assert.deepEqual(paths(), [DISCOVERY, '/keys']);
});

test('with jwksUrl it is asked for its keys alone', async (t) => {
  const { logIn, paths } = await setUp(t, ({ url }) => ({ jwksUrl: `${url}/keys` }));
  await logIn();
  assert.deepEqual(paths(), ['/keys']);
});

test('with a file of keys it is not asked at all', async (t) => {
  const file = join(await tempDir(t), 'jwks.json');
  const { issuer, logIn, paths } = await setUp(t, () => ({ jwks: file }));
  await writeFile(file, JSON.stringify({ keys: [issuer.key.jwk] }));
  await logIn();
  assert.deepEqual(paths(), []);
});

const wrongDocuments: Record<string, (url: string) => unknown> = {
  'of another issuer': (url) => ({ issuer: 'https://issuer.example', jwks_uri: `${url}/keys` }),
  'of an issuer with a slash more': (url) => ({ issuer: `${url}/`, jwks_uri: `${url}/keys` }),
  'of an issuer with another case': (url) => ({
    issuer: url.replace('http', 'HTTP'),
    jwks_uri: `${url}/keys`,
  }),
  'without an issuer': (url) => ({ jwks_uri: `${url}/keys` }),
  'without keys': (url) => ({ issuer: url }),
  'whose keys are nowhere': (url) => ({ issuer: url, jwks_uri: 'keys' }),
  'whose keys are in a file': (url) => ({ issuer: url, jwks_uri: 'file:///etc/passwd' }),
  'that is null': () => null,
};

for (const [what, document] of Object.entries(wrongDocuments)) {
  test(`a discovery document ${what} is not used`, async (t) => {
    const { issuer, logIn, paths } = await setUp(t);
    answer(issuer, DISCOVERY, json(document(issuer.url)));
    await assert.rejects(logIn(), unavailable);
    assert.deepEqual(paths(), [DISCOVERY]);
  });
}

test('keys that would come unencrypted are not fetched, unless the issuer is insecure: true', async (t) => {
  for (const insecure of [false, true]) {
    const issuer = await TestIssuer.start(t);
    const clock = new FakeClock();
    answer(issuer, DISCOVERY, json({ issuer: issuer.url, jwks_uri: 'http://keys.corp/keys' }));
    const direct = sendDirectly(t);
    const send: SendRequest = (url, options) =>
      direct(url.host === 'keys.corp' ? new URL(`${issuer.url}/keys`) : url, options);
    const issuers = new Issuers([configuredIssuer(t, { issuer: issuer.url, insecure }, { clock, send })]);
    const loggedIn = issuers.beginSession(await issuer.key.sign(issuer.claims(clock.now())));
    if (insecure) await loggedIn;
    else await assert.rejects(loggedIn, unavailable);
    assert.equal(issuer.requests.length, insecure ? 2 : 1);
  }
});

test('a redirect within the host is followed', async (t) => {
  const { issuer, logIn, paths } = await setUp(t, ({ url }) => ({ jwksUrl: `${url}/old` }));
  answer(issuer, '/old', redirect('/keys'));
  await logIn();
  assert.deepEqual(paths(), ['/old', '/keys']);
});

test('a redirect to another host is not followed: not even the request is sent', async (t) => {
  const { issuer, reasons, logIn } = await setUp(t);
  const other = await TestIssuer.start(t);
  answer(issuer, '/keys', redirect(`${other.url}/keys`));
  await assert.rejects(logIn(), unavailable);
  assert.deepEqual(other.requests, []);
  assert.match(reasons[0] ?? '', /redirects to another host/);
});

test('an issuer that redirects in a circle is given up', async (t) => {
  const { issuer, logIn, paths } = await setUp(t);
  answer(issuer, '/keys', redirect('/keys'));
  await assert.rejects(logIn(), unavailable);
  assert.equal(paths().length, 1 + 6);
});

test('more than a MiB is not read, even if it never ends', async (t) => {
  const { issuer, reasons, logIn } = await setUp(t);
  const closed = Promise.withResolvers<void>();
  answer(issuer, '/keys', (response) => {
    const piece = Buffer.alloc(64 * 1024, ' ');
    const go = () => {
      while (response.write(piece)) continue;
    };
    response.on('drain', go).on('close', () => closed.resolve());
    go();
  });
  await assert.rejects(logIn(), unavailable);
  await closed.promise;
  assert.match(reasons[0] ?? '', /longer than 1048576 bytes/);
});

test('a key set of just one MiB is read, and not one of a byte more', async (t) => {
  const { issuer, clock, logIn } = await setUp(t);
  const text = JSON.stringify({ keys: [issuer.key.jwk] });
  answer(issuer, '/keys', (response) => response.end(text.padEnd(1024 * 1024 + 1)));
  await assert.rejects(logIn(), unavailable);
  clock.advance(30_000);
  answer(issuer, '/keys', (response) => response.end(text.padEnd(1024 * 1024)));
  await logIn();
});

const refusals: Record<string, (response: ServerResponse) => void> = {
  '404': (response) => response.writeHead(404).end(),
  '500': (response) => response.writeHead(500).end('<html>sorry</html>'),
  '304': (response) => response.writeHead(304).end(),
  'a redirect to nowhere': (response) => response.writeHead(302).end(),
  'a page of HTML': (response) => response.end('<html>log in</html>'),
  'half a document': (response) => response.end('{"keys":['),
  'a connection that breaks': (response) => response.destroy(),
  'a body that breaks off': (response) => {
    response.writeHead(200, { 'content-length': 1000 }).write('{');
    setImmediate(() => response.destroy());
  },
};

for (const [what, reply] of Object.entries(refusals)) {
  test(`an issuer that answers with ${what} is an outage`, async (t) => {
    const { issuer, logIn } = await setUp(t);
    answer(issuer, '/keys', reply);
    await assert.rejects(logIn(), unavailable);
  });
}

test('an issuer that stalls in the middle of its answer is given up after five seconds', async (t) => {
  t.mock.timers.enable({ apis: ['AbortSignal.timeout' as never] }); // not in the type definitions yet
  const { issuer, logIn } = await setUp(t);
  const stalled = Promise.withResolvers<void>();
  answer(issuer, '/keys', (response) => {
    response.write('{"keys":', () => stalled.resolve());
  });
  const refused = assert.rejects(logIn(), unavailable);
  await stalled.promise;
  t.mock.timers.tick(5000);
  await refused;
});

test('an issuer that wants a login is sent the token of the file, as it is at that time', async (t) => {
  const file = join(await tempDir(t), 'token');
  const { issuer, clock, logIn } = await setUp(t, () => ({ token: { file } }));
  await writeFile(file, 'first\n');
  await logIn();
  await writeFile(file, 'second');
  clock.advance(600_000);
  await logIn();
  assert.deepEqual(issuer.requests, [
    { path: DISCOVERY, authorization: 'Bearer first' },
    { path: '/keys', authorization: 'Bearer first' },
    { path: DISCOVERY, authorization: 'Bearer second' },
    { path: '/keys', authorization: 'Bearer second' },
  ]);
});

test('keys on another host are fetched without the token, and a refusal says what to set', async (t) => {
  const file = join(await tempDir(t), 'token');
  await writeFile(file, 'cluster-secret');
  const { issuer, clock, reasons, logIn } = await setUp(t, () => ({ token: { file } }));
  const other = await TestIssuer.start(t);
  other.key = issuer.key;
  answer(issuer, DISCOVERY, json({ issuer: issuer.url, jwks_uri: `${other.url}/keys` }));
  await logIn();
  assert.deepEqual(other.requests, [{ path: '/keys', authorization: undefined }]);
  clock.advance(600_000);
  answer(other, '/keys', (response) => response.writeHead(401).end());
  await logIn(); // by the last keys
  assert.match(reasons[0] ?? '', new RegExp(`answered 401.*set jwksUrl: ${other.url}/keys`));
  assert.ok(!reasons.join().includes('cluster-secret'));
});

test('a secret in the query of jwksUrl is in no log line', async (t) => {
  const { issuer, clock, reasons, logIn, paths } = await setUp(t, ({ url }) => ({
    jwksUrl: `${url}/keys?key=s3cret`,
  }));
  for (const reply of [
    ...Object.values(refusals),
    redirect('http://192.0.2.1/'),
    redirect('/keys?key=s3cret'),
  ]) {
    answer(issuer, '/keys?key=s3cret', reply);
    await assert.rejects(logIn(), unavailable);
    clock.advance(30_000);
  }
  assert.equal(paths()[0], '/keys?key=s3cret');
  assert.equal(reasons.length, Object.keys(refusals).length + 2);
  assert.ok(!reasons.join().includes('s3cret'), reasons.join());
});

test('without the file of the token nothing is sent', async (t) => {
  const { logIn, paths } = await setUp(t, () => ({ token: { file: '/nowhere/token' } }));
  await assert.rejects(logIn(), unavailable);
  assert.deepEqual(paths(), []);
});

test('an issuer that would be asked unencrypted keeps the mirror from starting', (t) => {
  for (const settings of [
    { issuer: 'http://gitlab.corp' },
    { issuer: 'https://gitlab.corp', jwksUrl: 'http://gitlab.corp/keys' },
  ])
    assert.throws(() => configuredIssuer(t, settings), /the issuer ci: http:\/\/gitlab\.corp.* unencrypted/);
  configuredIssuer(t, { issuer: 'http://gitlab.corp', insecure: true });
  configuredIssuer(t, { issuer: 'http://gitlab.corp', jwksUrl: 'https://gitlab.corp/keys' });
  configuredIssuer(t, { issuer: 'http://gitlab.corp', jwks: '/etc/millpond/jwks.json' });
});

test('two issuers of the same name, or two names for one issuer, keep the mirror from starting', (t) => {
  const one = (name: string, issuer: string) => configuredIssuer(t, { name, issuer });
  for (const [a, b] of [
    [one('ci', 'https://a.example'), one('ci', 'https://b.example')],
    [one('ci', 'https://a.example'), one('cd', 'https://a.example')],
  ] as const)
    assert.throws(() => new Issuers([a, b]), /two issuers/);
});
