import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { decodeJwt, decodeProtectedHeader } from 'jose';
import { MirrorTokens } from '../../../src/access/tokens/mirror-tokens.ts';
import type { NamedOrigin, TokenOrigin } from '../../../src/access/tokens/origin.ts';
import { ownSigningKey, type SigningKey, signingKeyFrom } from '../../../src/access/tokens/signing-key.ts';
import { ANNA, ROBOT, type TokenSetup as Setup, setUpTokens as setUp } from '../../helpers/mirror-tokens.ts';
import { tempDir } from '../../helpers/temp-dir.ts';

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;

const origins: [string, (setup: Setup) => TokenOrigin][] = [
  ['anonymous', () => ({ kind: 'anonymous', unknownCredentials: false })],
  ['anonymous with credentials that nobody knows', () => ({ kind: 'anonymous', unknownCredentials: true })],
  ['a user', () => ANNA],
  ['a robot token', () => ROBOT],
  ['a session of a JWT', ({ session }) => session(HOUR)],
];

for (const [what, make] of origins) {
  test(`an access token tells where it came from: ${what}`, async (t) => {
    const setup = await setUp(t);
    const origin = make(setup);
    const { token, expiresIn, issuedAt } = await setup.tokens.issueAccess(origin);
    assert.equal(expiresIn, 3600);
    assert.equal(issuedAt, setup.clock.now());
    assert.deepEqual(await setup.tokens.verifyAccess(token), origin);
    assert.deepEqual(await setup.tokens.verifyAccess(token), origin, 'remembered');
  });
}

test('an access token is refused after its hour, remembered or not', async (t) => {
  const { clock, tokens } = await setUp(t);
  const { token: used } = await tokens.issueAccess(ANNA);
  const { token: unused } = await tokens.issueAccess(ANNA);
  clock.advance(HOUR - SECOND);
  await tokens.verifyAccess(used);
  clock.advance(SECOND);
  await assert.rejects(tokens.verifyAccess(used), { name: 'TokenError', code: 'expired' });
  await assert.rejects(
    tokens.verifyAccess(used),
    { name: 'TokenError', code: 'expired' },
    'forgotten by now',
  );
  await assert.rejects(tokens.verifyAccess(unused), { name: 'TokenError', code: 'expired' });
});

test('an access token never outlives its session', async (t) => {
  const { clock, tokens, session } = await setUp(t);
  const { token, expiresIn } = await tokens.issueAccess(session(10 * MINUTE));
  assert.equal(expiresIn, 600);
  clock.advance(10 * MINUTE - SECOND);
  await tokens.verifyAccess(token);
  clock.advance(SECOND);
  await assert.rejects(tokens.verifyAccess(token), { code: 'expired' });
});

test('a session with less than a minute left gives no more tokens', async (t) => {
  const { clock, tokens, session } = await setUp(t);
  const begun = session(10 * MINUTE);
  clock.advance(9 * MINUTE);
  assert.equal((await tokens.issueAccess(begun)).expiresIn, 60);
  clock.advance(1);
  await assert.rejects(tokens.issueAccess(begun), { name: 'TokenError', code: 'expired' });
  await assert.rejects(tokens.issueRefresh(begun), { name: 'TokenError', code: 'expired' });
});

test('a refresh token lives as long as its session, and gives access tokens meanwhile', async (t) => {
  const { clock, tokens, session } = await setUp(t);
  const begun = session(12 * HOUR);
  const { token, expiresIn } = await tokens.issueRefresh(begun);
  assert.equal(expiresIn, 12 * 3600);
  clock.advance(11 * HOUR);
  const found = await tokens.verifyRefresh(token);
  assert.deepEqual(found, begun);
  assert.equal((await tokens.issueAccess(found)).expiresIn, 3600);
  clock.advance(HOUR - 90 * SECOND);
  assert.equal((await tokens.issueAccess(await tokens.verifyRefresh(token))).expiresIn, 90);
  clock.advance(90 * SECOND);
  await assert.rejects(tokens.verifyRefresh(token), { name: 'TokenError', code: 'expired' });
});

const changes: [string, NamedOrigin['kind'], string, string | undefined][] = [
  ['a changed password', 'user', 'anna', 'f-anna-2'],
  ['a removed user', 'user', 'anna', undefined],
  ['a robot token that was made again', 'token', 'ci-team', 'f-robot-2'],
  ['a revoked robot token', 'token', 'ci-team', undefined],
  ['another issuer of the same name', 'oidc', 'github', 'f-other'],
  ['a removed issuer', 'oidc', 'github', undefined],
];

for (const [what, kind, name, fingerprint] of changes) {
  test(`${what} ends the tokens that came from it, remembered or not`, async (t) => {
    const { tokens, fingerprints, session } = await setUp(t);
    const begun = session(HOUR);
    const origin = [ANNA, ROBOT, begun].find((one) => one.kind === kind) ?? ANNA;
    const { token: used } = await tokens.issueAccess(origin);
    const { token: unused } = await tokens.issueAccess({ ...origin });
    const { token: refresh } = await tokens.issueRefresh(begun);
    await tokens.verifyAccess(used);
    if (fingerprint === undefined) fingerprints.delete(`${kind} ${name}`);
    else fingerprints.set(`${kind} ${name}`, fingerprint);
    await assert.rejects(tokens.verifyAccess(used), { name: 'TokenError', code: 'revoked' });
    await assert.rejects(tokens.verifyAccess(unused), { name: 'TokenError', code: 'revoked' });
    if (kind === 'oidc') await assert.rejects(tokens.verifyRefresh(refresh), { code: 'revoked' });
    else await tokens.verifyRefresh(refresh);
  });
}

test('a user and a robot token of the same name are not the same', async (t) => {
  const { tokens, fingerprints } = await setUp(t);
  fingerprints.set('token anna', 'f-anna');
  const { token } = await tokens.issueAccess(ANNA);
  fingerprints.delete('user anna');
  await assert.rejects(tokens.verifyAccess(token), { code: 'revoked' });
});

test('a restart with the same key changes nothing; another key ends all tokens', async (t) => {
  const { clock, key, tokens, session } = await setUp(t);
  const { token: access } = await tokens.issueAccess(session(HOUR));
  const { token: refresh } = await tokens.issueRefresh(session(HOUR));
  const context = { clock, isCurrent: async ({ fingerprint }: NamedOrigin) => fingerprint === 'f-github' };
  const restarted = new MirrorTokens(key, context);
  assert.equal((await restarted.verifyAccess(access)).kind, 'oidc');
  assert.equal((await restarted.verifyRefresh(refresh)).name, 'github');
  const { key: otherKey } = await ownSigningKey(await tempDir(t));
  const other = new MirrorTokens(otherKey, context);
  assert.equal(other.isOwn(access), false);
  await assert.rejects(other.verifyAccess(access), { name: 'TokenError', code: 'foreign' });
  await assert.rejects(other.verifyRefresh(refresh), { name: 'TokenError', code: 'foreign' });
});

test('mirrors with the same Ed25519 key in a file take each other’s tokens', async (t) => {
  const { clock } = await setUp(t);
  const file = join(await tempDir(t), 'key.pem');
  const { privateKey } = generateKeyPairSync('ed25519');
  await writeFile(file, privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 });
  const start = async () => {
    const { key } = await signingKeyFrom(file);
    return new MirrorTokens(key, {
      clock,
      isCurrent: async ({ fingerprint }) => fingerprint === ANNA.fingerprint,
    });
  };
  const { token } = await (await start()).issueAccess(ANNA);
  assert.deepEqual(await (await start()).verifyAccess(token), ANNA);
});

test('access and refresh tokens are refused in each other’s place', async (t) => {
  const { tokens, session } = await setUp(t);
  const { token: access } = await tokens.issueAccess(session(HOUR));
  const { token: refresh } = await tokens.issueRefresh(session(HOUR));
  await assert.rejects(tokens.verifyAccess(refresh), { name: 'TokenError', code: 'wrong-kind' });
  await assert.rejects(tokens.verifyRefresh(access), { name: 'TokenError', code: 'wrong-kind' });
  await tokens.verifyAccess(access);
  await assert.rejects(tokens.verifyRefresh(access), { code: 'wrong-kind' }, 'also once it is remembered');
});

test('each kind of token has a type and an audience of its own', async (t) => {
  const { key, tokens, session } = await setUp(t);
  const { token: access } = await tokens.issueAccess(session(HOUR));
  const { token: refresh } = await tokens.issueRefresh(session(HOUR));
  assert.equal(decodeProtectedHeader(access).typ, 'millpond-access+jwt');
  assert.equal(decodeProtectedHeader(refresh).typ, 'millpond-refresh+jwt');
  assert.equal(decodeJwt(access).aud, `${key.id}/access`);
  assert.equal(decodeJwt(refresh).aud, `${key.id}/refresh`);
});

const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');

test('our own tokens are told from others by what they say, before anything is verified', async (t) => {
  const { key, tokens } = await setUp(t);
  assert.equal(tokens.isOwn((await tokens.issueAccess(ANNA)).token), true);
  assert.equal(tokens.isOwn(`${part({ alg: 'none' })}.${part({ iss: key.id })}.`), true);
  assert.equal(tokens.isOwn(`${part({ alg: 'none' })}.${part({ iss: 'https://issuer' })}.`), false);
  assert.equal(tokens.isOwn('hunter2'), false);
});

/** The mirror's tokens, and how often a signature was checked. */
function counted({ key, clock }: Setup) {
  const counter = { checks: 0 };
  const counting: SigningKey = {
    ...key,
    get publicKey() {
      counter.checks += 1;
      return key.publicKey;
    },
  };
  const context = { clock, isCurrent: async ({ fingerprint }: NamedOrigin) => fingerprint === 'f-github' };
  return { counter, tokens: new MirrorTokens(counting, context) };
}

test('the signature of an access token is checked once, however many requests bring it', async (t) => {
  const setup = await setUp(t);
  const { counter, tokens } = counted(setup);
  const { token } = await tokens.issueAccess(setup.session(HOUR));
  for (let request = 0; request < 100; request += 1) await tokens.verifyAccess(token);
  assert.equal(counter.checks, 1);
});

test('access tokens are remembered up to a limit: those used last', async (t) => {
  const setup = await setUp(t);
  const { counter, tokens } = counted(setup);
  const claims = { sub: 'job', ref: 'x'.repeat(4000) };
  const issue = async () => (await tokens.issueAccess({ ...setup.session(HOUR), claims })).token;
  const [first, second] = [await issue(), await issue()];
  await tokens.verifyAccess(first);
  await tokens.verifyAccess(second);
  for (let index = 0; index < 1000; index += 1) {
    await tokens.verifyAccess(await issue());
    await tokens.verifyAccess(second);
  }
  assert.equal(counter.checks, 1002);
  await tokens.verifyAccess(second);
  assert.equal(counter.checks, 1002, 'in use');
  await tokens.verifyAccess(first);
  assert.equal(counter.checks, 1003, 'forgotten, and still good');
});
