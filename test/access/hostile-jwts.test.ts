/** JWTs that nobody should get in with; each is refused for its own reason, and most cost the issuer no request. */
import assert from 'node:assert/strict';
import { createHmac, generateKeyPairSync, sign as signBytes } from 'node:crypto';
import { type TestContext, test } from 'node:test';
import type { JwtErrorCode } from '../../src/access/oidc/errors.ts';
import { Issuers } from '../../src/access/oidc/issuers.ts';
import { MirrorTokens } from '../../src/access/tokens/mirror-tokens.ts';
import type { NamedOrigin } from '../../src/access/tokens/origin.ts';
import { ownSigningKey } from '../../src/access/tokens/signing-key.ts';
import { FakeClock } from '../helpers/fake-clock.ts';
import { tempDir } from '../helpers/temp-dir.ts';
import { configuredIssuer, TestIssuer, TestKey } from '../helpers/test-issuer.ts';

interface Setup {
  issuer: TestIssuer;
  issuers: Issuers;
  clock: FakeClock;
  tokens: MirrorTokens;
  /** A JWT as it should be, but for these claims and headers. */
  sign: (claims?: Record<string, unknown>, header?: Record<string, unknown>) => Promise<string>;
  /** In seconds. */
  now: number;
}

async function setUp(t: TestContext): Promise<Setup> {
  const issuer = await TestIssuer.start(t);
  const clock = new FakeClock();
  const issuers = new Issuers([configuredIssuer(t, { issuer: issuer.url }, { clock })]);
  const { key } = await ownSigningKey(await tempDir(t));
  const isCurrent = async (origin: NamedOrigin) => issuers.fingerprint(origin.name) === origin.fingerprint;
  const tokens = new MirrorTokens(key, { clock, isCurrent });
  return {
    issuer,
    issuers,
    clock,
    tokens,
    sign: (claims, header) => issuer.key.sign(issuer.claims(clock.now(), claims), header),
    now: clock.now() / 1000,
  };
}

const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');
const unsigned = (setup: Setup, header: unknown) =>
  `${part(header)}.${part(setup.issuer.claims(setup.clock.now()))}`;

function hmac(setup: Setup, secret: string): string {
  const signed = unsigned(setup, { alg: 'HS256', kid: 'key-1' });
  return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
}

/** The reason, and the requests that the issuer sees: two for its document and its keys. */
const hostile: Record<string, [JwtErrorCode, 0 | 2, (setup: Setup) => string | Promise<string>]> = {
  'the audience of another service': ['audience', 2, ({ sign }) => sign({ aud: 'https://other.example' })],
  'a longer audience': ['audience', 2, ({ sign }) => sign({ aud: 'millpond-staging' })],
  'the audience in another case': ['audience', 2, ({ sign }) => sign({ aud: 'Millpond' })],
  'many audiences, none of them ours': ['audience', 2, ({ sign }) => sign({ aud: ['a', 'b'] })],
  'an audience that is an object': ['audience', 2, ({ sign }) => sign({ aud: { millpond: true } })],
  'no audience': ['audience', 2, ({ sign }) => sign({ aud: undefined })],
  'another issuer': ['unknown-issuer', 0, ({ sign }) => sign({ iss: 'https://issuer.example' })],
  'an issuer with a slash more': ['unknown-issuer', 0, ({ issuer, sign }) => sign({ iss: `${issuer.url}/` })],
  'an issuer in upper case': [
    'unknown-issuer',
    0,
    ({ issuer, sign }) => sign({ iss: issuer.url.toUpperCase() }),
  ],
  'an issuer that is a list': ['malformed', 0, ({ issuer, sign }) => sign({ iss: [issuer.url] })],
  'no issuer': ['malformed', 0, ({ sign }) => sign({ iss: undefined })],
  'an end that has passed': ['expired', 2, ({ now, sign }) => sign({ exp: now - 60 })],
  'no end': ['malformed', 2, ({ sign }) => sign({ exp: undefined })],
  'an end that is a text': ['malformed', 2, ({ now, sign }) => sign({ exp: String(now + 300) })],
  'a beginning that is to come': ['not-yet-valid', 2, ({ now, sign }) => sign({ nbf: now + 61 })],
  'a beginning that is a text': ['malformed', 2, ({ sign }) => sign({ nbf: 'now' })],
  'an issue in the future': ['not-yet-valid', 2, ({ now, sign }) => sign({ iat: now + 61 })],
  'an issue that is a text': ['malformed', 2, ({ sign }) => sign({ iat: 'now' })],
  'no subject': ['malformed', 2, ({ sign }) => sign({ sub: undefined })],
  'alg: none': ['algorithm', 0, (setup) => `${unsigned(setup, { alg: 'none' })}.`],
  'alg: None': ['algorithm', 0, (setup) => `${unsigned(setup, { alg: 'None' })}.`],
  'no alg': ['algorithm', 0, (setup) => `${unsigned(setup, { kid: 'key-1' })}.c2ln`],
  'an alg that is a list': ['algorithm', 0, (setup) => `${unsigned(setup, { alg: ['ES256'] })}.c2ln`],
  'an HMAC with the public key as PEM': [
    'algorithm',
    0,
    (setup) => hmac(setup, setup.issuer.key.publicKey.export({ type: 'spki', format: 'pem' }).toString()),
  ],
  'an HMAC with the public key as JWK': [
    'algorithm',
    0,
    (setup) => hmac(setup, JSON.stringify(setup.issuer.key.jwk)),
  ],
  'an algorithm that is not pinned': [
    'algorithm',
    0,
    (setup) => {
      const { privateKey } = generateKeyPairSync('ed25519');
      const signed = unsigned(setup, { alg: 'EdDSA', kid: 'key-1' });
      return `${signed}.${signBytes(null, Buffer.from(signed), privateKey).toString('base64url')}`;
    },
  ],
  'the algorithm of another kind of key': [
    'unknown-key',
    2,
    (setup) => {
      const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
      const signed = unsigned(setup, { alg: 'RS256', kid: 'key-1' });
      return `${signed}.${signBytes('sha256', Buffer.from(signed), privateKey).toString('base64url')}`;
    },
  ],
  'an RSA key that is too short': [
    'unknown-key',
    2,
    (setup) => {
      const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 1024 });
      setup.issuer.published = [{ ...publicKey.export({ format: 'jwk' }), kid: 'key-1', alg: 'RS256' }];
      const signed = unsigned(setup, { alg: 'RS256', kid: 'key-1' });
      return `${signed}.${signBytes('sha256', Buffer.from(signed), privateKey).toString('base64url')}`;
    },
  ],
  'the key of somebody else': [
    'signature',
    2,
    ({ issuer, clock }) => new TestKey('key-1').sign(issuer.claims(clock.now())),
  ],
  'a key of its own in the header': [
    'signature',
    2,
    ({ issuer, clock }) => {
      const own = new TestKey('key-1');
      return own.sign(issuer.claims(clock.now()), { jwk: own.jwk, jku: 'http://127.0.0.1:1/keys' });
    },
  ],
  'a key that nobody knows': ['unknown-key', 2, ({ sign }) => sign({}, { kid: '../../etc/passwd' })],
  'a kid of 10 kB': ['malformed', 0, ({ sign }) => sign({}, { kid: 'k'.repeat(10_000) })],
  'a kid that is an object': [
    'malformed',
    0,
    (setup) => `${unsigned(setup, { alg: 'ES256', kid: {} })}.c2ln`,
  ],
  'other claims under the same signature': [
    'signature',
    2,
    async (setup) => {
      const [header, , signature] = (await setup.sign()).split('.');
      return `${header}.${part(setup.issuer.claims(setup.clock.now(), { sub: 'root' }))}.${signature}`;
    },
  ],
  'no signature': ['signature', 2, async ({ sign }) => (await sign()).replace(/\.[^.]*$/, '.')],
  'a header that must be understood': [
    'malformed',
    2,
    (setup) => `${unsigned(setup, { alg: 'ES256', kid: 'key-1', crit: ['x'], x: 1 })}.c2ln`,
  ],
  '100 kB': ['too-large', 0, ({ sign }) => sign({ padding: 'x'.repeat(100_000) })],
  'a depth of a thousand': ['malformed', 0, () => `eyJ${'['.repeat(1000)}.e30.c2ln`],
  'a header that is not JSON': [
    'malformed',
    0,
    () => `${Buffer.from('{"alg').toString('base64url')}.e30.c2ln`,
  ],
  'claims that are a list': ['malformed', 0, () => `${part({ alg: 'ES256' })}.${part([])}.c2ln`],
  'two parts': ['malformed', 0, () => `${part({ alg: 'ES256' })}.e30`],
  'nothing in it': ['malformed', 0, () => ''],
  'our own access token': [
    'unknown-issuer',
    0,
    async ({ tokens }) => (await tokens.issueAccess({ kind: 'anonymous', unknownCredentials: false })).token,
  ],
  'our own refresh token': [
    'unknown-issuer',
    0,
    async ({ issuers, sign, tokens, issuer }) => {
      const { token } = await tokens.issueRefresh(await issuers.beginSession(await sign()));
      issuer.requests.length = 0;
      return token;
    },
  ],
  'a robot token': ['malformed', 0, () => `mpt_${'a'.repeat(43)}`],
};

for (const [what, [code, requests, make]] of Object.entries(hostile)) {
  test(`a JWT with ${what} is refused (${code})`, async (t) => {
    const setup = await setUp(t);
    const jwt = await make(setup);
    await assert.rejects(setup.issuers.beginSession(jwt), (error: Error & { code?: string }) => {
      assert.equal(error.name, 'JwtError');
      assert.equal(error.code, code, error.message);
      assert.equal(error.cause, undefined);
      assert.ok(error.message.length < 200 && !error.message.includes('job'), error.message);
      return true;
    });
    assert.equal(setup.issuer.requests.length, requests);
  });
}

for (const [what, make] of Object.entries<(setup: Setup) => Promise<string>>({
  'as it should be': ({ sign }) => sign(),
  'with several audiences, one of them ours': ({ sign }) => sign({ aud: ['other', 'millpond'] }),
  'that ended within the last minute': ({ now, sign }) => sign({ exp: now - 59 }),
  'that begins within the next minute': ({ now, sign }) => sign({ nbf: now + 60, iat: now + 60 }),
  'that does not say when it was issued': ({ sign }) => sign({ iat: undefined }),
  'of just 16 KiB': async ({ sign }) => {
    // A character of padding is four thirds of one in base64url.
    const spare = 16 * 1024 - (await sign({ padding: '' })).length;
    return sign({ padding: 'x'.repeat(Math.floor((spare * 3) / 4)) });
  },
})) {
  test(`a JWT ${what} is accepted`, async (t) => {
    const setup = await setUp(t);
    const { kind, name, claims } = await setup.issuers.beginSession(await make(setup));
    assert.deepEqual({ kind, name, claims }, { kind: 'oidc', name: 'ci', claims: { sub: 'job' } });
  });
}

test('a JWT of an outside issuer is neither an access token nor a refresh token of ours', async (t) => {
  const { issuers, sign, tokens } = await setUp(t);
  const jwt = await sign();
  await issuers.beginSession(jwt);
  assert.equal(tokens.isOwn(jwt), false);
  await assert.rejects(tokens.verifyAccess(jwt), { name: 'TokenError', code: 'foreign' });
  await assert.rejects(tokens.verifyRefresh(jwt), { name: 'TokenError', code: 'foreign' });
});

test('two issuers do not vouch for each other', async (t) => {
  const clock = new FakeClock();
  const [a, b] = [await TestIssuer.start(t), await TestIssuer.start(t)];
  const issuers = new Issuers([
    configuredIssuer(t, { name: 'a', issuer: a.url }, { clock }),
    configuredIssuer(t, { name: 'b', issuer: b.url, audience: 'other' }, { clock }),
  ]);
  assert.equal((await issuers.beginSession(await a.key.sign(a.claims(clock.now())))).name, 'a');
  await assert.rejects(issuers.beginSession(await b.key.sign(a.claims(clock.now()))), { code: 'signature' });
  await assert.rejects(issuers.beginSession(await b.key.sign(b.claims(clock.now()))), { code: 'audience' });
});
