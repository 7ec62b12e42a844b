/** Who a certificate of Fulcio is for. */
import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { test } from 'node:test';
import { type Signer, signerOf } from '../../../../src/policy/parts/signature/sigstore/signer.ts';
import { TestAuthority } from '../../../helpers/client-certificates.ts';

const CODE = 'extendedKeyUsage = codeSigning';
const ISSUER = '1.3.6.1.4.1.57264.1.8 = ASN1:UTF8String:https://issuer.example';
const NAME = 'subjectAltName = critical, URI:https://github.com/acme/app';
const ACME = { subject: 'https://github.com/acme/app', issuer: 'https://issuer.example' };

test('a certificate is for its one name, proved by its issuer, and only if it is for signing code', async (t) => {
  const authority = await TestAuthority.root(t, 'Fulcio');
  const cases: readonly (readonly [Signer | undefined, ...string[]])[] = [
    [ACME, CODE, ISSUER, NAME],
    [{ ...ACME, subject: 'build@acme.example' }, CODE, ISSUER, 'subjectAltName = email:build@acme.example'],
    [ACME, 'extendedKeyUsage = codeSigning, emailProtection', ISSUER, NAME],
    [undefined, ISSUER, NAME],
    [undefined, 'extendedKeyUsage = serverAuth', ISSUER, NAME],
    [undefined, 'extendedKeyUsage = anyExtendedKeyUsage', ISSUER, NAME],
    [undefined, CODE, NAME],
    [undefined, CODE, ISSUER],
    [undefined, CODE, ISSUER, 'subjectAltName = DNS:acme.example'],
    [undefined, CODE, ISSUER, `${NAME}, URI:https://evil.example`],
    [undefined, CODE, ISSUER, `${NAME}, email:evil@evil.example`],
    [undefined, CODE, ISSUER, `${NAME}, DNS:evil.example`],
    [undefined, CODE, ISSUER, `${NAME}/with a blank`],
    [undefined, CODE, `${ISSUER}/with a blank`, NAME],
    // One byte with its top bit set: without the bit it is an a.
    [undefined, CODE, '1.3.6.1.4.1.57264.1.1 = DER:e1', NAME],
    [{ ...ACME, issuer: 'a' }, CODE, '1.3.6.1.4.1.57264.1.1 = DER:61', NAME],
    [ACME, CODE, '1.3.6.1.4.1.57264.1.1 = DER:61', ISSUER, NAME],
  ];
  for (const [signer, ...extensions] of cases) {
    const { cert } = await authority.issue(t, { subject: '/CN=x', extensions });
    assert.deepEqual(signerOf(new X509Certificate(cert).raw), signer, extensions.join('\n'));
  }
});
