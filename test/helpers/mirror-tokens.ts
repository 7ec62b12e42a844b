/** The mirror's own tokens, with origins that a test can change. */
import type { TestContext } from 'node:test';
import type { OidcSession } from '../../src/access/oidc/issuer.ts';
import { MirrorTokens } from '../../src/access/tokens/mirror-tokens.ts';
import type { NamedOrigin } from '../../src/access/tokens/origin.ts';
import { ownSigningKey, type SigningKey } from '../../src/access/tokens/signing-key.ts';
import { FakeClock } from './fake-clock.ts';
import { tempDir } from './temp-dir.ts';

export const ANNA: NamedOrigin = { kind: 'user', name: 'anna', fingerprint: 'f-anna' };
export const ROBOT: NamedOrigin = { kind: 'token', name: 'ci-team', fingerprint: 'f-robot' };

export interface TokenSetup {
  clock: FakeClock;
  key: SigningKey;
  tokens: MirrorTokens;
  /** By kind and name; a test changes it. */
  fingerprints: Map<string, string>;
  session: (lifetimeMs: number) => OidcSession;
}

export async function setUpTokens(t: TestContext): Promise<TokenSetup> {
  const clock = new FakeClock();
  const { key } = await ownSigningKey(await tempDir(t));
  const fingerprints = new Map([
    ['user anna', 'f-anna'],
    ['token ci-team', 'f-robot'],
    ['oidc github', 'f-github'],
  ]);
  const tokens = new MirrorTokens(key, {
    clock,
    isCurrent: async ({ kind, name, fingerprint }) => fingerprints.get(`${kind} ${name}`) === fingerprint,
  });
  const session = (lifetimeMs: number): OidcSession => ({
    kind: 'oidc',
    name: 'github',
    fingerprint: 'f-github',
    claims: { sub: 'repo:acme/app', repository_owner_id: '123456', groups: ['a', 'b'] },
    endsAt: clock.now() + lifetimeMs,
  });
  return { clock, key, tokens, fingerprints, session };
}
