/** Files of keys, roots and authorities: what cannot be used is named with its line, and never lets anything in. */
import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { after, test } from 'node:test';
import { systemClock } from '../../../../src/clock.ts';
import { FileError } from '../../../../src/files/errors.ts';
import {
  SignaturePart,
  type SignatureSettings,
  signatureFiles,
} from '../../../../src/policy/parts/signature/signature-part.ts';
import { TestAuthority } from '../../../helpers/client-certificates.ts';
import { ecKeys, pemOf } from '../../../helpers/signatures/cosign-signatures.ts';
import { TestSigstore } from '../../../helpers/signatures/test-sigstore.ts';

const KEYS: SignatureSettings = { cosign: { keys: ['/file'] } };
const LOG: SignatureSettings = { cosign: { keys: ['/key'], transparencyLog: { trustedRoot: '/file' } } };
const KEYLESS: SignatureSettings = {
  keyless: { issuer: 'https://a', subject: 'https://b', trustedRoot: '/file' },
};
const NOTATION: SignatureSettings = {
  notation: { trustStore: ['/file'], identities: ['x509.subject: O=acme'] },
};

const key = pemOf(ecKeys().publicKey).toString();
const sigstore = await TestSigstore.create();
const t = { after } as unknown as Parameters<typeof TestAuthority.root>[0];
const authority = await TestAuthority.root(t, 'Root');
const leaf = await authority.issue(t, { subject: '/CN=leaf' });

function create(settings: SignatureSettings, content: string | Buffer): SignaturePart {
  const read = (path: string) => Buffer.from(path === '/key' ? key : content);
  return SignaturePart.create(settings, read, systemClock);
}

function refuses(settings: SignatureSettings, content: string | Buffer, message: RegExp): void {
  assert.throws(
    () => create(settings, content),
    (error) => error instanceof FileError && error.file === '/file' && message.test(error.message),
    `${message}`,
  );
}

test('a file that is not one public key keeps the policy from being used, and is named with the line', () => {
  const secret = ecKeys().privateKey.export({ format: 'pem', type: 'pkcs8' }).toString();
  const weak = generateKeyPairSync('rsa', { modulusLength: 1024 }).publicKey;
  const curve = generateKeyPairSync('ec', { namedCurve: 'secp256k1' }).publicKey;
  const x25519 = generateKeyPairSync('x25519').publicKey;
  refuses(KEYS, '', /^\/file: holds no PUBLIC KEY or RSA PUBLIC KEY in PEM$/);
  refuses(KEYS, 'not a key', /holds no PUBLIC KEY/);
  refuses(KEYS, `\n${secret}`, /^\/file:2: holds a PRIVATE KEY, and PUBLIC KEY or RSA PUBLIC KEY is needed$/);
  refuses(KEYS, leaf.cert, /^\/file:1: holds a CERTIFICATE/);
  refuses(KEYS, `${key}${key}`, /^\/file:5: holds more than one key/);
  refuses(KEYS, key.replace('MFk', 'AAA'), /^\/file:1: the key cannot be read/);
  refuses(KEYS, key.replace(/-----END.*/, ''), /^\/file:1: the block has no END line/);
  refuses(KEYS, `${key}-----END PUBLIC KEY-----\n`, /^\/file:5: BEGIN and END lines do not belong together/);
  for (const other of [weak, curve, x25519])
    refuses(KEYS, pemOf(other), /^\/file:1: not a key that is supported/);
  create(KEYS, `# of the build server\r\n${key.replaceAll('\n', '\r\n')}`);
  create(
    KEYS,
    generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey.export({ format: 'pem', type: 'pkcs1' }),
  );
});

test('the message of a bad file shows nothing of its content', () => {
  for (const settings of [KEYS, LOG, NOTATION])
    assert.throws(
      () => create(settings, 'hunter2 is the password\n{"x":'),
      (error) =>
        error instanceof FileError && !/hunter2|password/.test(`${error.message} ${String(error.cause)}`),
    );
});

test('a trusted root that is none, or has nothing to check against, is refused', () => {
  const root = sigstore.trustedRoot();
  for (const settings of [LOG, KEYLESS]) {
    refuses(settings, '', /^\/file: not JSON: fetch/);
    refuses(settings, '{\n"tlogs": [}\n', /^\/file: not JSON: fetch/);
    for (const other of ['{}', '[]', 'null', '1', '{"mediaType":"application/json"}'])
      refuses(settings, other, /not a trusted root of Sigstore/);
    refuses(settings, JSON.stringify({ ...root, mediaType: undefined }), /not a trusted root/);
    refuses(settings, JSON.stringify({ ...root, tlogs: [] }), /^\/file: names no transparency log/);
    refuses(
      settings,
      JSON.stringify({ ...root, tlogs: [{ publicKey: { rawBytes: 'AAAA' } }] }),
      /not a trusted root/,
    );
    create(settings, JSON.stringify(root));
    create(
      settings,
      JSON.stringify({ ...root, mediaType: 'application/vnd.dev.sigstore.trustedroot.v0.2+json' }),
    );
  }
  for (const name of ['certificateAuthorities', 'ctlogs'])
    refuses(
      KEYLESS,
      JSON.stringify({ ...root, [name]: [] }),
      /names no (certificate authority|log of certificates)/,
    );
  const hollow = [{ certChain: { certificates: [] } }];
  refuses(
    KEYLESS,
    JSON.stringify({ ...root, certificateAuthorities: hollow }),
    /names no certificate authority/,
  );
  create(LOG, JSON.stringify({ ...root, certificateAuthorities: [], ctlogs: [] }));
});

test('a trust store without certificates, or with one of no authority, is refused', () => {
  refuses(NOTATION, '', /^\/file: holds no CERTIFICATE in PEM$/);
  refuses(NOTATION, key, /^\/file:1: holds a PUBLIC KEY, and CERTIFICATE is needed$/);
  const lines = authority.cert.trimEnd().split('\n').length;
  refuses(
    NOTATION,
    `${authority.cert}${leaf.cert}`,
    new RegExp(`^/file:${lines + 1}: not the certificate of an authority$`),
  );
  refuses(NOTATION, authority.cert.replace('MII', 'AAA'), /^\/file:1: the certificate cannot be read/);
  create(NOTATION, `subject=CN = Root\n${authority.cert}`);
});

test('settings that nothing could satisfy are refused', () => {
  for (const settings of [
    { cosign: { keys: [] } },
    { notation: { trustStore: [], identities: ['x509.subject: O=acme'] } },
    { notation: { trustStore: ['/file'], identities: [] } },
    { keyless: { issuer: '', subject: 'x', trustedRoot: '/file' } },
    { keyless: { issuer: 'x', subject: '', trustedRoot: '/file' } },
  ] satisfies SignatureSettings[])
    assert.throws(() => create(settings, authority.cert), RangeError);
  for (const identity of [
    '*',
    '',
    'O=acme',
    'x509.subject:',
    'x509.subject: ',
    'x509.subject: O',
    'x509.subject: O=',
    'x509.subject: O=acme,',
    'x509.subject: ,O=acme',
    'x509.subject: O=acme,,C=US',
    'x509.subject: O=acme, O=evil',
    'x509.subject: ST=WA, S=OR',
    'x509.subject: SERIAL=1',
    'x509.subject: O=a+C=US',
    'x509.subject: O=acme\\',
  ])
    assert.throws(
      () => create({ notation: { trustStore: ['/file'], identities: [identity] } }, authority.cert),
      /is not an identity: write x509\.subject: C=US, ST=WA, O=acme/,
      identity,
    );
});

test('all files are named, each once', () => {
  assert.deepEqual(signatureFiles({}), []);
  assert.deepEqual(
    signatureFiles({
      cosign: { keys: ['/a', '/b'], transparencyLog: { trustedRoot: '/root' } },
      keyless: { issuer: 'x', subject: 'x', trustedRoot: '/root' },
      notation: { trustStore: ['/c', '/a'], identities: [] },
    }),
    ['/a', '/b', '/root', '/c'],
  );
});
