/** JWTs of a real OpenID provider: from the job that gets one to the session that it begins. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { IssuerSettings } from '../../src/access/oidc/issuer.ts';
import { Issuers } from '../../src/access/oidc/issuers.ts';
import { MirrorTokens } from '../../src/access/tokens/mirror-tokens.ts';
import type { NamedOrigin } from '../../src/access/tokens/origin.ts';
import { ownSigningKey } from '../../src/access/tokens/signing-key.ts';
import { FakeClock } from '../helpers/fake-clock.ts';
import { JWT_LIFETIME, OidcProvider } from '../helpers/oidc-provider.ts';
import { tempDir } from '../helpers/temp-dir.ts';
import { configuredIssuer } from '../helpers/test-issuer.ts';

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const ROUND = ['/.well-known/openid-configuration', '/jwks'];

async function setUp(t: TestContext, settings: Partial<IssuerSettings> = {}) {
  const provider = await OidcProvider.start(t);
  const clock = new FakeClock();
  clock.advance(Date.now() - clock.now()); // the provider has no other
  const directory = await tempDir(t);
  /** A mirror with this configuration, as after a (re)start. */
  const start = async (changes: Partial<IssuerSettings> = {}) => {
    const issuer = configuredIssuer(
      t,
      { issuer: provider.issuer, claims: () => ['client_id'], ...settings, ...changes },
      { clock },
    );
    const issuers = new Issuers([issuer]);
    const { key } = await ownSigningKey(directory);
    const isCurrent = async (origin: NamedOrigin) => issuers.fingerprint(origin.name) === origin.fingerprint;
    return { issuers, tokens: new MirrorTokens(key, { clock, isCurrent }) };
  };
  return { provider, clock, start, ...(await start()) };
}

test('a JWT of a real provider begins a session with the claims that rules ask for', async (t) => {
  const { provider, clock, issuers } = await setUp(t);
  const session = await issuers.beginSession(await provider.jwt());
  assert.deepEqual(session, {
    kind: 'oidc',
    name: 'ci',
    fingerprint: issuers.fingerprint('ci'),
    claims: { sub: 'ci', client_id: 'ci' },
    endsAt: clock.now() + HOUR,
  });
  assert.deepEqual(provider.requests, ROUND);
});

test('fifty jobs at once cost one round of requests', async (t) => {
  const { provider, issuers } = await setUp(t);
  const jwts = await Promise.all(Array.from({ length: 50 }, () => provider.jwt()));
  await Promise.all(jwts.map((jwt) => issuers.beginSession(jwt)));
  assert.deepEqual(provider.requests, ROUND);
});

test('a JWT for another audience is refused', async (t) => {
  const { provider, issuers } = await setUp(t);
  provider.audience = 'https://other.example';
  await assert.rejects(issuers.beginSession(await provider.jwt()), { name: 'JwtError', code: 'audience' });
});

test('a JWT of a provider that is not configured is refused, and neither provider is asked', async (t) => {
  const { provider, issuers } = await setUp(t);
  const other = await OidcProvider.start(t);
  await assert.rejects(issuers.beginSession(await other.jwt()), { name: 'JwtError', code: 'unknown-issuer' });
  assert.deepEqual([...provider.requests, ...other.requests], []);
});

test('a JWT that has expired is refused, a minute of difference between the clocks allowed', async (t) => {
  const { provider, clock, issuers } = await setUp(t);
  const jwt = await provider.jwt();
  clock.advance((JWT_LIFETIME + 40) * SECOND);
  await issuers.beginSession(jwt);
  clock.advance(40 * SECOND);
  await assert.rejects(issuers.beginSession(jwt), { name: 'JwtError', code: 'expired' });
});

test('a JWT of the future is refused, a minute of difference between the clocks allowed', async (t) => {
  const { provider, clock, issuers } = await setUp(t);
  const jwt = await provider.jwt();
  clock.advance(-40 * SECOND);
  await issuers.beginSession(jwt);
  clock.advance(-40 * SECOND);
  await assert.rejects(issuers.beginSession(jwt), { name: 'JwtError', code: 'not-yet-valid' });
});

test('the provider changes its key: new JWTs are accepted at once, old ones refused, and it is asked once', async (t) => {
  const { provider, clock, issuers } = await setUp(t);
  const old = await provider.jwt();
  await issuers.beginSession(old);
  provider.rotate('key-2');
  clock.advance(30 * SECOND);
  await issuers.beginSession(old); // until somebody has reason to ask
  await issuers.beginSession(await provider.jwt());
  await assert.rejects(issuers.beginSession(old), { name: 'JwtError', code: 'unknown-key' });
  assert.deepEqual(provider.requests, [...ROUND, ...ROUND]);
});

test('a key that the provider has withdrawn is refused after ten minutes', async (t) => {
  const { provider, clock, issuers } = await setUp(t);
  clock.advance(-10 * MINUTE + 30 * SECOND);
  const early = new Issuers([configuredIssuer(t, { issuer: provider.issuer }, { clock })]);
  await assert.rejects(early.beginSession(await provider.jwt()), { code: 'not-yet-valid' });
  const jwt = await provider.jwt();
  provider.rotate('key-2');
  clock.advance(10 * MINUTE);
  await assert.rejects(early.beginSession(jwt), { name: 'JwtError', code: 'unknown-key' });
  await issuers.beginSession(await provider.jwt());
});

test('while the provider is down the last keys hold, as long as staleKeys says; then it is an outage', async (t) => {
  const { provider, clock, issuers } = await setUp(t, { staleKeys: 15 * MINUTE });
  // The JWTs of the provider live only five minutes, so the keys are fetched early.
  clock.advance(-14 * MINUTE);
  await assert.rejects(issuers.beginSession(await provider.jwt()), { code: 'not-yet-valid' });
  const jwt = await provider.jwt();
  await provider.goDown();
  clock.advance(14 * MINUTE);
  await issuers.beginSession(jwt);
  clock.advance(MINUTE);
  await assert.rejects(issuers.beginSession(jwt), { name: 'IssuerError', code: 'unavailable', issuer: 'ci' });
  await provider.goUp();
  clock.advance(30 * SECOND);
  await issuers.beginSession(jwt);
});

test('a mirror that starts while the provider is down tells an outage from a bad JWT', async (t) => {
  const { provider, clock, start } = await setUp(t);
  const jwt = await provider.jwt();
  await provider.goDown();
  const { issuers } = await start();
  await assert.rejects(issuers.beginSession(jwt), { name: 'IssuerError', code: 'unavailable' });
  await assert.rejects(issuers.beginSession(jwt.replace(/^[^.]+/, 'e30')), { name: 'JwtError' });
  await provider.goUp();
  clock.advance(30 * SECOND);
  await issuers.beginSession(jwt);
});

test('a build outlives its JWT of five minutes by its session, over a restart and without the provider', async (t) => {
  const { provider, clock, start, issuers, tokens } = await setUp(t);
  const session = await issuers.beginSession(await provider.jwt());
  const { token: refresh } = await tokens.issueRefresh(session);
  await provider.goDown();
  clock.advance(10 * MINUTE);
  const restarted = await start();
  const { token: access, expiresIn } = await restarted.tokens.issueAccess(
    await restarted.tokens.verifyRefresh(refresh),
  );
  assert.ok(expiresIn <= 50 * 60);
  assert.deepEqual(await restarted.tokens.verifyAccess(access), session);
  clock.advance(51 * MINUTE);
  await assert.rejects(restarted.tokens.verifyAccess(access), { name: 'TokenError', code: 'expired' });
  await assert.rejects(restarted.tokens.verifyRefresh(refresh), { name: 'TokenError', code: 'expired' });
});

test('an issuer that is taken out of the configuration, or becomes another, ends its sessions', async (t) => {
  const { provider, start, issuers, tokens } = await setUp(t);
  const session = await issuers.beginSession(await provider.jwt());
  const { token: access } = await tokens.issueAccess(session);
  const { token: refresh } = await tokens.issueRefresh(session);
  for (const changes of [{ name: 'other' }, { issuer: 'https://other.example' }]) {
    const changed = await start(changes);
    await assert.rejects(changed.tokens.verifyAccess(access), { name: 'TokenError', code: 'revoked' });
    await assert.rejects(changed.tokens.verifyRefresh(refresh), { name: 'TokenError', code: 'revoked' });
  }
  const same = await start({ audience: 'new', claims: () => [] });
  await same.tokens.verifyAccess(access);
});
