/** Signatures of cosign by identities, against a Sigstore of the test's own. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Clock, systemClock } from '../../../../src/clock.ts';
import {
  SignaturePart,
  type SignatureSettings,
} from '../../../../src/policy/parts/signature/signature-part.ts';
import { FakeClock } from '../../../helpers/fake-clock.ts';
import { BUNDLE, ecKeys, envelopeOf, pemOf } from '../../../helpers/signatures/cosign-signatures.ts';
import { TestEvidence, type TestLayer, testSubject } from '../../../helpers/signatures/test-evidence.ts';
import {
  ISSUER,
  type KeylessOptions,
  keyPem,
  TestSigstore,
  type TrustedRootOptions,
  WORKFLOW,
} from '../../../helpers/signatures/test-sigstore.ts';

const sigstore = await TestSigstore.create();
const { digest, ...rest } = testSubject();
const image = { digest, ...rest };
const ACME = 'https://github.com/acme/*';

function partFor(
  settings: SignatureSettings,
  root: TrustedRootOptions = {},
  clock: Clock = systemClock,
): SignaturePart {
  const trustedRoot = Buffer.from(JSON.stringify(sigstore.trustedRoot(root)));
  return SignaturePart.create(settings, (path) => (path === '/root.json' ? trustedRoot : KEY_FILE), clock);
}

function keyless(subject = ACME, issuer = ISSUER, root: TrustedRootOptions = {}): SignaturePart {
  return partFor({ keyless: { issuer, subject, trustedRoot: '/root.json' } }, root);
}

const keys = ecKeys();
const KEY_FILE = pemOf(keys.publicKey);
const LOGGED: SignatureSettings = {
  cosign: { keys: ['/cosign.pub'], transparencyLog: { trustedRoot: '/root.json' } },
};

async function verdict(part: SignaturePart, layer: TestLayer): Promise<string> {
  const evidence = new TestEvidence();
  if (layer.mediaType === BUNDLE) evidence.addReferrer(BUNDLE, [layer]);
  else evidence.addTag(digest, [layer]);
  const finding = await part.judge(image, evidence);
  return finding.allowed ? 'allowed' : finding.reason;
}

const BOTH = ['bundle', 'older'] as const;
const BAD_CERTIFICATE =
  'its signature has a certificate that no authority of the policy vouches for, or that was not valid when it was used';
const BAD_LOG = 'its signature is not in a transparency log of the trusted root';

test('an image that is signed by the identity of the policy is let in, in both forms and with either kind of log', async () => {
  for (const form of [...BOTH, 'provenBundle'] as const) {
    const layer = await sigstore[form](digest);
    assert.equal(await verdict(keyless(), layer), 'allowed', form);
    assert.equal(await verdict(keyless(WORKFLOW), layer), 'allowed', form);
  }
  const oldIssuer = await sigstore.bundle(digest, { issuer: undefined, oldIssuer: ISSUER });
  assert.equal(await verdict(keyless(), oldIssuer), 'allowed');
});

test('an identity that only looks like that of the policy is refused', async () => {
  const wrong = 'its signature is by another identity than the policy names';
  for (const subject of [
    'https://evil.example/?https://github.com/acme/x',
    'https://github.com/acme-evil/x',
    'https://github.com/acme',
    'https://githubxcom/acme/x',
    'HTTPS://GITHUB.COM/ACME/x',
    'xhttps://github.com/acme/x',
  ]) {
    for (const form of BOTH)
      assert.equal(await verdict(keyless(), await sigstore[form](digest, { subject })), wrong, subject);
  }
  for (const pattern of [
    'https://github.com/acme',
    'github.com/acme/*',
    `${WORKFLOW}x`,
    '.*',
    'https://github.com/acme/?*',
  ])
    assert.equal(await verdict(keyless(pattern), await sigstore.bundle(digest)), wrong, pattern);
});

test('a certificate of another issuer, or of none, is refused', async () => {
  const wrong = 'its signature is by an identity of another issuer than the one of the policy';
  for (const issuer of [
    'https://accounts.evil.example',
    `${ISSUER}/`,
    `${ISSUER}.evil.example`,
    ISSUER.slice(0, -1),
  ])
    for (const form of BOTH)
      assert.equal(await verdict(keyless(), await sigstore[form](digest, { issuer })), wrong, issuer);
  assert.equal(
    await verdict(keyless(), await sigstore.bundle(digest, { issuer: undefined })),
    BAD_CERTIFICATE,
  );
  // Of two extensions the newer one counts.
  const both = await sigstore.bundle(digest, { issuer: 'https://evil.example', oldIssuer: ISSUER });
  assert.equal(await verdict(keyless(), both), wrong);
  const oldIssuer = ISSUER.replace('token', 'Token');
  const almost = await sigstore.bundle(digest, { issuer: undefined, oldIssuer });
  assert.notEqual(await verdict(keyless(), almost), 'allowed');
});

test('an attestation by the right identity is not a signature', async () => {
  const sbom = await sigstore.bundle(digest, { predicateType: 'https://spdx.dev/Document' });
  assert.equal(await verdict(keyless(), sbom), 'it has attestations, but no signature of the image itself');
});

test('a signature of another digest by the right identity is refused', async () => {
  for (const form of BOTH)
    assert.equal(
      await verdict(keyless(), await sigstore[form](testSubject('other').digest)),
      'its signature is for another digest',
    );
});

test('a certificate counts while it was valid, by the time that the log tells', async () => {
  const at = (minutes: number): KeylessOptions => ({
    certifiedAt: sigstore.at(60),
    loggedAt: sigstore.at(minutes),
  });
  for (const form of [...BOTH, 'provenBundle'] as const) {
    for (const inside of [60, 65, 70])
      assert.equal(
        await verdict(keyless(), await sigstore[form](digest, at(inside))),
        'allowed',
        `${form} ${inside}`,
      );
    for (const outside of [59, 71, 600])
      assert.equal(
        await verdict(keyless(), await sigstore[form](digest, at(outside))),
        BAD_CERTIFICATE,
        `${form} ${outside}`,
      );
  }
});

test('a trusted root that is out of date vouches for nothing that was signed later', async () => {
  const signed = { certifiedAt: sigstore.at(60) };
  for (const form of [...BOTH, 'provenBundle'] as const) {
    const layer = await sigstore[form](digest, signed);
    const at = (root: TrustedRootOptions) => verdict(keyless(ACME, ISSUER, root), layer);
    assert.equal(await at({ authorityUntil: sigstore.at(30) }), BAD_CERTIFICATE);
    assert.equal(await at({ certificateLogUntil: sigstore.at(30) }), BAD_CERTIFICATE);
    assert.equal(await at({ logUntil: sigstore.at(30) }), BAD_LOG, form);
    // It was in use then, and is no more.
    const until = sigstore.at(90);
    assert.equal(await at({ authorityUntil: until, certificateLogUntil: until, logUntil: until }), 'allowed');
  }
});

test('a signature of another Sigstore is refused', async () => {
  const stranger = await TestSigstore.create();
  for (const form of [...BOTH, 'provenBundle'] as const)
    assert.notEqual(await verdict(keyless(), await stranger[form](digest)), 'allowed');
});

test('a certificate that is in no log is refused, and so is a signature that is in none', async () => {
  assert.equal(
    await verdict(keyless(), await sigstore.bundle(digest, { withoutSct: true })),
    BAD_CERTIFICATE,
  );
  const bundle = await sigstore.bundle(digest);
  const json = JSON.parse(bundle.content.toString());
  json.verificationMaterial.tlogEntries = [];
  const unlogged = { ...bundle, content: Buffer.from(JSON.stringify(json)) };
  assert.equal(
    await verdict(keyless(), unlogged),
    'its signature has no time that the trusted root vouches for',
  );
  const older = await sigstore.older(digest);
  delete older.annotations?.['dev.sigstore.cosign/bundle'];
  assert.equal(
    await verdict(keyless(), older),
    'its signature has no time that the trusted root vouches for',
  );
});

test('an entry of the log for something else, or for another signer, does not count', async () => {
  const loggedEnvelope = envelopeOf(testSubject('other').digest, ecKeys());
  assert.equal(await verdict(keyless(), await sigstore.bundle(digest, { loggedEnvelope })), BAD_LOG);
  for (const form of BOTH) {
    const layer = await sigstore[form](digest, { loggedBy: keyPem(ecKeys()) });
    assert.equal(await verdict(keyless(), layer), BAD_LOG);
  }
  const [one, another] = [await sigstore.older(digest), await sigstore.older(digest)];
  const name = 'dev.sigstore.cosign/bundle';
  const swapped = { ...one, annotations: { ...one.annotations, [name]: another.annotations?.[name] } };
  assert.equal(await verdict(keyless(), swapped), BAD_LOG);
});

test('a policy of keys that wants the log lets in only what the log has, for this key', async () => {
  const part = partFor(LOGGED);
  for (const form of ['loggedBundle', 'loggedOlder'] as const) {
    assert.equal(await verdict(part, await sigstore[form](digest, keys)), 'allowed', form);
    assert.match(await verdict(part, await sigstore[form](digest, ecKeys())), /not by a key of the policy/);
    const loggedBy = keyPem(ecKeys());
    assert.equal(await verdict(part, await sigstore[form](digest, keys, { loggedBy })), BAD_LOG);
    const late = { logUntil: sigstore.at(0) };
    assert.equal(await verdict(partFor(LOGGED, late), await sigstore[form](digest, keys)), BAD_LOG);
  }
  const older = await sigstore.loggedOlder(digest, keys);
  delete older.annotations?.['dev.sigstore.cosign/bundle'];
  assert.equal(await verdict(part, older), BAD_LOG);
  const bundle = await sigstore.loggedBundle(digest, keys, { loggedEnvelope: envelopeOf(digest, ecKeys()) });
  assert.equal(await verdict(part, bundle), BAD_LOG);
  const large = ecKeys('P-384');
  const byLarge = SignaturePart.create(
    LOGGED,
    (path) =>
      path === '/root.json' ? Buffer.from(JSON.stringify(sigstore.trustedRoot())) : pemOf(large.publicKey),
    systemClock,
  );
  for (const form of ['loggedBundle', 'loggedOlder'] as const)
    assert.equal(await verdict(byLarge, await sigstore[form](digest, large, { hash: 'sha384' })), 'allowed');
  // Without the wish for a log, an entry of an unknown one does no harm.
  const stranger = await TestSigstore.create();
  const plain = partFor({ cosign: { keys: ['/cosign.pub'] } });
  assert.equal(await verdict(plain, await stranger.loggedBundle(digest, keys)), 'allowed');
  assert.equal(await verdict(part, await stranger.loggedBundle(digest, keys)), BAD_LOG);
});

test('a log that tells no time counts only while it is in use', async () => {
  const bundle = await sigstore.loggedBundle(digest, keys);
  const json = JSON.parse(bundle.content.toString());
  delete json.verificationMaterial.tlogEntries[0].inclusionPromise;
  const proven = { ...bundle, content: Buffer.from(JSON.stringify(json)) };
  const clock = new FakeClock();
  const logUntil = new Date(clock.now() + 60_000);
  const part = partFor(LOGGED, { logUntil }, clock);
  assert.equal(await verdict(part, proven), 'allowed');
  clock.advance(61_000);
  assert.equal(await verdict(part, proven), BAD_LOG);
});

test('a key is not an identity, and an identity is not a key', async () => {
  assert.equal(
    await verdict(keyless(), await sigstore.loggedBundle(digest, keys)),
    'its signature is by a key, and the policy wants an identity',
  );
  const plain = partFor({ cosign: { keys: ['/cosign.pub'] } });
  assert.match(await verdict(plain, await sigstore.bundle(digest)), /not by a key of the policy/);
  const either = partFor({
    cosign: { keys: ['/cosign.pub'] },
    keyless: { issuer: ISSUER, subject: ACME, trustedRoot: '/root.json' },
  });
  assert.equal(await verdict(either, await sigstore.bundle(digest)), 'allowed');
  assert.equal(await verdict(either, await sigstore.loggedBundle(digest, keys)), 'allowed');
  const evil = { subject: 'https://github.com/evil/x' };
  assert.match(await verdict(either, await sigstore.bundle(digest, evil)), /another identity/);
  assert.match(await verdict(either, await sigstore.loggedBundle(digest, ecKeys())), /not by a key/);
});
