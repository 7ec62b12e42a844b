/** Notation signatures, with certificates of the test's own. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { type Clock, systemClock } from '../../../../src/clock.ts';
import type { Finding } from '../../../../src/policy/parts/part.ts';
import { SignaturePart } from '../../../../src/policy/parts/signature/signature-part.ts';
import type { Certificate } from '../../../helpers/certificates.ts';
import { type IssueOptions, TestAuthority } from '../../../helpers/client-certificates.ts';
import {
  type EnvelopeOptions,
  EXPIRY,
  jwsLayer,
  NOTATION,
  SCHEME,
  SIGNING_TIME,
} from '../../../helpers/signatures/notation-signatures.ts';
import { TestEvidence, type TestLayer, testSubject } from '../../../helpers/signatures/test-evidence.ts';

const HOUR = 3_600_000;
const SUBJECT = '/C=US/ST=WA/O=acme/CN=builder';
const USAGE = 'keyUsage = critical, digitalSignature';
const LEAF = [USAGE, 'extendedKeyUsage = codeSigning'];
const ACME = ['x509.subject: C=US, ST=WA, O=acme'];

// Outlives the tests of this file, so that the certificates are made once.
const t = { after } as unknown as Parameters<typeof TestAuthority.root>[0];
const root = await TestAuthority.root(t, 'Root');
const middle = await root.intermediate(t, 'Middle');
const leaf = await middle.issue(t, { subject: SUBJECT, extensions: LEAF });
const chain = [leaf.cert, middle.cert, root.cert];
const subject = testSubject();

interface Trust {
  identities?: readonly string[];
  trustStore?: string;
  clock?: Clock;
}

async function judge(layer: TestLayer, trust: Trust = {}): Promise<Finding> {
  const { identities = ACME, trustStore = root.cert, clock = systemClock } = trust;
  const settings = { notation: { trustStore: ['/root.pem'], identities } };
  const part = SignaturePart.create(settings, () => Buffer.from(trustStore), clock);
  return part.judge(subject, new TestEvidence().addReferrer(NOTATION, [layer]));
}

async function verdict(layer: TestLayer, trust: Trust = {}): Promise<string> {
  const finding = await judge(layer, trust);
  return finding.allowed ? 'allowed' : finding.reason;
}

function signed(options: EnvelopeOptions = {}, signer: Certificate = leaf, by: readonly string[] = chain) {
  return jwsLayer(subject.digest, signer, by, options);
}

/** A leaf of `middle` with other properties. */
async function leafWith(options: Partial<IssueOptions>): Promise<TestLayer> {
  const other = await middle.issue(t, { subject: SUBJECT, extensions: LEAF, ...options });
  return signed({}, other, [other.cert, middle.cert, root.cert]);
}

function at(ms: number): Clock {
  return { ...systemClock, now: () => systemClock.now() + ms };
}

const BAD_CERTIFICATE =
  'its signature has a certificate that no authority of the policy vouches for, or that was not valid when it was used';
const OTHER_IDENTITY = 'its signature is by another identity than the policy names';
const UNREADABLE = 'its signature cannot be read';
const UNSUPPORTED = 'its signature demands something that is not supported here';

test('a signature of the trusted authority and identity is let in for as long as its certificates are valid', async () => {
  const finding = await judge(await signed());
  assert.ok(finding.allowed && finding.until !== undefined);
  const left = finding.until - systemClock.now();
  assert.ok(left > 23 * HOUR && left <= 24 * HOUR);
  // The trust store may have an authority between.
  assert.equal(await verdict(await signed(), { trustStore: middle.cert }), 'allowed');
});

test('a certificate of another authority is refused', async () => {
  const stranger = await TestAuthority.root(t, 'Root');
  assert.equal(await verdict(await signed(), { trustStore: stranger.cert }), BAD_CERTIFICATE);
  const other = await stranger.issue(t, { subject: SUBJECT, extensions: LEAF });
  assert.equal(await verdict(await signed({}, other, [other.cert, stranger.cert])), BAD_CERTIFICATE);
  // Right certificates beside it prove nothing.
  assert.equal(
    await verdict(await signed({}, other, [other.cert, stranger.cert, ...chain])),
    BAD_CERTIFICATE,
  );
  assert.equal(await verdict(await signed({}, other, [other.cert, middle.cert, root.cert])), BAD_CERTIFICATE);
});

test('a chain that has a hole, has no end, or is in another order is refused', async () => {
  for (const wrong of [
    [],
    [leaf.cert],
    [leaf.cert, root.cert],
    [leaf.cert, middle.cert],
    [middle.cert, leaf.cert, root.cert],
    [leaf.cert, middle.cert, root.cert, root.cert],
  ])
    assert.equal(await verdict(await signed({}, leaf, wrong)), BAD_CERTIFICATE);
  const nine = Array.from({ length: 9 }, () => leaf.cert);
  assert.equal(await verdict(await signed({}, leaf, nine)), UNREADABLE);
});

test('a certificate that is not for signing code is refused', async () => {
  for (const extensions of [
    ['extendedKeyUsage = codeSigning'],
    ['keyUsage = digitalSignature', 'extendedKeyUsage = codeSigning'],
    ['keyUsage = critical, keyEncipherment', 'extendedKeyUsage = codeSigning'],
    [USAGE, 'extendedKeyUsage = serverAuth'],
    [USAGE, 'extendedKeyUsage = codeSigning, timeStamping'],
    [USAGE, 'extendedKeyUsage = anyExtendedKeyUsage'],
    [...LEAF, '1.2.3.4 = critical, ASN1:UTF8String:unknown'],
    ['keyUsage = critical, digitalSignature, keyCertSign', 'basicConstraints = critical, CA:TRUE'],
  ])
    assert.equal(await verdict(await leafWith({ extensions })), BAD_CERTIFICATE, extensions.join());
  assert.equal(await verdict(await leafWith({ extensions: [USAGE] })), 'allowed');
});

test('what is not an authority certifies nobody', async () => {
  const authority = ['keyUsage = critical, keyCertSign, digitalSignature', 'subjectKeyIdentifier = hash'];
  for (const extensions of [
    [...authority, 'basicConstraints = critical, CA:FALSE'],
    authority,
    ['basicConstraints = critical, CA:TRUE'],
    ['basicConstraints = critical, CA:TRUE', 'keyUsage = critical, cRLSign'],
  ]) {
    const fake = await root.intermediate(t, 'Fake', { extensions });
    const other = await fake.issue(t, { subject: SUBJECT, extensions: LEAF });
    assert.equal(await verdict(await signed({}, other, [other.cert, fake.cert, root.cert])), BAD_CERTIFICATE);
  }
  const extensions = ['basicConstraints = critical, CA:TRUE, pathlen:0', 'keyUsage = critical, keyCertSign'];
  const last = await root.intermediate(t, 'Last', { extensions });
  const direct = await last.issue(t, { subject: SUBJECT, extensions: LEAF });
  assert.equal(await verdict(await signed({}, direct, [direct.cert, last.cert, root.cert])), 'allowed');
  const below = await last.intermediate(t, 'Below');
  const other = await below.issue(t, { subject: SUBJECT, extensions: LEAF });
  const long = [other.cert, below.cert, last.cert, root.cert];
  assert.equal(await verdict(await signed({}, other, long)), BAD_CERTIFICATE);
});

test('outside the validity of any of its certificates a signature is refused', async () => {
  for (const ms of [-2 * HOUR, 25 * HOUR])
    assert.equal(await verdict(await signed(), { clock: at(ms) }), BAD_CERTIFICATE);
  const short = await root.intermediate(t, 'Short', { until: new Date(systemClock.now() + HOUR) });
  const other = await short.issue(t, { subject: SUBJECT, extensions: LEAF });
  const layer = await signed({}, other, [other.cert, short.cert, root.cert]);
  const finding = await judge(layer);
  assert.ok(finding.allowed && finding.until !== undefined && finding.until <= systemClock.now() + HOUR);
  assert.equal(await verdict(layer, { clock: at(2 * HOUR) }), BAD_CERTIFICATE);
});

test('a signature that has expired is refused, and one that will holds until then', async () => {
  const expiry = new Date(Math.floor(systemClock.now() / 1000) * 1000 + HOUR);
  const layer = await signed({ headers: { crit: [SCHEME, EXPIRY], [EXPIRY]: expiry.toISOString() } });
  assert.deepEqual(await judge(layer), { allowed: true, until: expiry.getTime() });
  assert.equal(await verdict(layer, { clock: at(HOUR + 1000) }), 'its signature has expired');
});

test('headers that change the meaning of a signature are understood, or it is refused', async () => {
  const soon = new Date(systemClock.now() + HOUR).toISOString();
  const cases: readonly (readonly [Record<string, unknown>, string])[] = [
    [
      { crit: [SCHEME, 'io.cncf.notary.verificationPlugin'], 'io.cncf.notary.verificationPlugin': 'x' },
      UNSUPPORTED,
    ],
    [{ [SCHEME]: 'notary.x509.signingAuthority' }, UNSUPPORTED],
    [{ 'io.cncf.notary.authenticSigningTime': soon }, UNSUPPORTED],
    [{ crit: undefined }, UNREADABLE],
    [{ [EXPIRY]: soon }, UNREADABLE],
    [{ crit: [SCHEME, EXPIRY], [EXPIRY]: 'tomorrow' }, UNREADABLE],
    [{ [SIGNING_TIME]: undefined }, UNREADABLE],
    [{ cty: 'application/json' }, UNREADABLE],
    [{ cty: undefined }, UNREADABLE],
  ];
  for (const [headers, reason] of cases)
    assert.equal(await verdict(await signed({ headers })), reason, JSON.stringify(headers));
  assert.equal(await verdict(await signed({ headers: { 'com.acme.build': 42 } })), 'allowed');
});

test('a signature of another digest is refused, and so is one that was changed', async () => {
  for (const payload of [
    { targetArtifact: { digest: testSubject('other').digest } },
    { digest: subject.digest },
    {},
  ])
    assert.equal(await verdict(await signed({ payload })), 'its signature is for another digest');
  const broken = 'its signature does not fit what it signs';
  const right = JSON.parse((await signed()).content.toString());
  const wrong = JSON.parse(
    (await signed({ payload: { targetArtifact: { digest: 'x' } } })).content.toString(),
  );
  const layer = (envelope: unknown) => ({
    mediaType: 'application/jose+json',
    content: Buffer.from(JSON.stringify(envelope)),
  });
  assert.equal(await verdict(layer({ ...wrong, payload: right.payload })), broken);
  assert.equal(await verdict(layer({ ...right, signature: wrong.signature })), broken);
  const other = await middle.issue(t, { subject: SUBJECT, extensions: LEAF });
  assert.equal(await verdict(await signed({}, other)), broken);
  // Headers that are not signed cannot add anything.
  assert.equal(await verdict(layer({ ...right, header: { ...right.header, crit: ['x'] } })), broken);
});

test('an identity is compared attribute by attribute, each whole', async () => {
  const layer = await signed();
  for (const right of [
    'x509.subject: C=US, ST=WA, O=acme, CN=builder',
    'x509.subject: O=acme',
    'x509.subject: o = acme , S=WA',
  ])
    assert.equal(await verdict(layer, { identities: [right] }), 'allowed', right);
  for (const wrong of [
    'x509.subject: C=US, ST=WA, O=acme, CN=builder2',
    'x509.subject: O=acm',
    'x509.subject: O=Acme',
    'x509.subject: O=acme\\, CN\\=builder',
    'x509.subject: C=US, ST=WA, O=acme, OU=build',
    'x509.subject: CN=acme',
    'x509.subject: O=*',
  ])
    assert.equal(await verdict(layer, { identities: [wrong] }), OTHER_IDENTITY, wrong);
  assert.equal(await verdict(layer, { identities: ['x509.subject: O=evil', ...ACME] }), 'allowed');
  const twice = await leafWith({ subject: '/C=US/ST=WA/O=acme/O=evil/CN=builder' });
  assert.equal(await verdict(twice), OTHER_IDENTITY);
  const inOne = await leafWith({ subject: '/CN=C=US, ST=WA, O=acme' });
  assert.equal(await verdict(inOne), OTHER_IDENTITY);
  const comma = await leafWith({ subject: '/C=US/ST=WA/O=acme, Inc.' });
  assert.equal(await verdict(comma, { identities: ['x509.subject: C=US, O=acme\\, Inc.'] }), 'allowed');
});

test('a certificate that is trusted by itself may sign by itself', async () => {
  const self = await TestAuthority.root(t, 'self', {
    subject: SUBJECT,
    extensions: [...LEAF, 'subjectKeyIdentifier = hash'],
  });
  const layer = await signed({}, self, [self.cert]);
  assert.equal(await verdict(layer, { trustStore: self.cert }), 'allowed');
  assert.equal(await verdict(layer), BAD_CERTIFICATE);
});

test('COSE is refused with a message that says what to do', async () => {
  assert.equal(
    await verdict({ mediaType: 'application/cose', content: Buffer.from([0xd2, 0x84]) }),
    'its signature is in a COSE envelope, which is not supported: sign with JWS',
  );
});
