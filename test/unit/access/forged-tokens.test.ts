import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { test } from 'node:test';
import { SignJWT } from 'jose';
import { ANNA, type TokenSetup as Setup, setUpTokens as setUp } from '../../helpers/mirror-tokens.ts';

const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');

const forgeries: Record<string, (setup: Setup) => string | Promise<string>> = {
  'no token at all': () => '',
  'a text': () => 'hunter2',
  'three empty parts': () => '..',
  'a robot token': () => `mpt_${'a'.repeat(43)}`,
  'a token of 100 kB': async ({ tokens }) =>
    `${(await tokens.issueAccess(ANNA)).token}${'A'.repeat(100_000)}`,
  'alg: none': async ({ tokens }) => {
    const [, payload] = (await tokens.issueAccess(ANNA)).token.split('.');
    return `${part({ alg: 'none', typ: 'millpond-access+jwt' })}.${payload}.`;
  },
  'an HMAC with the public key': async ({ key, tokens }) => {
    const [, payload] = (await tokens.issueAccess(ANNA)).token.split('.');
    const signed = `${part({ alg: 'HS256', typ: 'millpond-access+jwt' })}.${payload}`;
    const secret = key.publicKey.export({ type: 'spki', format: 'pem' });
    return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
  },
  'another name under the same signature': async ({ tokens }) => {
    const [header, payload = '', signature] = (await tokens.issueAccess(ANNA)).token.split('.');
    const changed = Buffer.from(payload, 'base64url').toString().replace('anna', 'root');
    return `${header}.${Buffer.from(changed).toString('base64url')}.${signature}`;
  },
  'a signature that is cut off': async ({ tokens }) =>
    (await tokens.issueAccess(ANNA)).token.replace(/\.[^.]*$/, '.'),
  'a token without an origin': ({ key }) =>
    new SignJWT({})
      .setProtectedHeader({ alg: key.algorithm, typ: 'millpond-access+jwt' })
      .setIssuer(key.id)
      .setAudience(`${key.id}/access`)
      .setExpirationTime(9_999_999_999)
      .sign(key.privateKey),
  'a token without an end': ({ key }) =>
    new SignJWT({ origin: ANNA })
      .setProtectedHeader({ alg: key.algorithm, typ: 'millpond-access+jwt' })
      .setIssuer(key.id)
      .setAudience(`${key.id}/access`)
      .sign(key.privateKey),
};

for (const [what, forge] of Object.entries(forgeries)) {
  test(`a forged access token is refused: ${what}`, async (t) => {
    const setup = await setUp(t);
    const token = await forge(setup);
    await assert.rejects(setup.tokens.verifyAccess(token), { name: 'TokenError', code: 'foreign' });
    await assert.rejects(setup.tokens.verifyAccess(token), { code: 'foreign' }, 'it was not remembered');
    await assert.rejects(setup.tokens.verifyRefresh(token), { name: 'TokenError' });
  });
}

test('a token for another purpose under the same key is refused', async (t) => {
  const { key, tokens } = await setUp(t);
  const sign = (typ: string, audience: string) =>
    new SignJWT({ origin: ANNA })
      .setProtectedHeader({ alg: key.algorithm, typ })
      .setIssuer(key.id)
      .setAudience(audience)
      .setExpirationTime(9_999_999_999)
      .sign(key.privateKey);
  await tokens.verifyAccess(await sign('millpond-access+jwt', `${key.id}/access`));
  for (const [typ, audience] of [
    ['millpond-quarantine+jwt', `${key.id}/access`],
    ['JWT', `${key.id}/access`],
    ['millpond-access+jwt', `${key.id}/quarantine`],
    ['millpond-access+jwt', key.id],
  ] as const)
    await assert.rejects(tokens.verifyAccess(await sign(typ, audience)), { code: 'wrong-kind' });
});
