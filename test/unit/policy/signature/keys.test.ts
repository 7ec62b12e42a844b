/** Signatures of cosign by public keys. */
import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { test } from 'node:test';
import { systemClock } from '../../../../src/clock.ts';
import type { Digest } from '../../../../src/oci/digest.ts';
import type { Finding, Subject } from '../../../../src/policy/parts/part.ts';
import { SignaturePart } from '../../../../src/policy/parts/signature/signature-part.ts';
import {
  BUNDLE,
  bundleLayer,
  bundleOf,
  ecKeys,
  envelopeOf,
  type KeyPair,
  pemOf,
  SIGN_PREDICATE,
  simpleSigning,
  simpleSigningLayer,
} from '../../../helpers/signatures/cosign-signatures.ts';
import { TestEvidence, type TestLayer, testSubject } from '../../../helpers/signatures/test-evidence.ts';

const subject = testSubject();
const other = testSubject('other');
const keys = ecKeys();

function partFor(...pairs: readonly KeyPair[]): SignaturePart {
  const files = new Map(pairs.map(({ publicKey }, index) => [`/${index}.pub`, pemOf(publicKey)]));
  const read = (path: string) => files.get(path) ?? Buffer.alloc(0);
  return SignaturePart.create({ cosign: { keys: [...files.keys()] } }, read, systemClock);
}

const part = partFor(keys);

function bundle(by = keys, digest = subject.digest, options = {}): TestLayer {
  return bundleLayer(bundleOf(envelopeOf(digest, by, options)));
}

function older(by = keys, digest: string = subject.digest, options = {}): TestLayer {
  return simpleSigningLayer(simpleSigning(digest), by, options);
}

function withBundle(...layers: readonly TestLayer[]): TestEvidence {
  return new TestEvidence().addReferrer(BUNDLE, layers);
}

function withTag(...layers: readonly TestLayer[]): TestEvidence {
  return new TestEvidence().addTag(subject.digest, layers);
}

async function refused(
  judged: Promise<Finding>,
): Promise<{ reason: string; advice: string; detail: Record<string, unknown> }> {
  const finding = await judged;
  assert.ok(!finding.allowed, 'it was let in');
  return finding;
}

async function reasonOf(evidence: TestEvidence, by = part, image: Subject = subject): Promise<string> {
  return (await refused(by.judge(image, evidence))).reason;
}

async function allowed(evidence: TestEvidence, by = part, image: Subject = subject): Promise<void> {
  assert.deepEqual(await by.judge(image, evidence), { allowed: true });
}

test('an image that is signed with a key of the policy is let in, in both forms', async () => {
  await allowed(withBundle(bundle()));
  await allowed(withTag(older()));
});

test('every kind of key that the documents name verifies, with every hash that is in use', async () => {
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const all: readonly (readonly [KeyPair, ...(string | null)[]])[] = [
    [ecKeys('P-256'), 'sha256'],
    [ecKeys('P-384'), 'sha256', 'sha384'],
    [ecKeys('P-521'), 'sha256', 'sha512'],
    [rsa, 'sha256', 'sha384', 'sha512'],
    [generateKeyPairSync('ed25519'), null],
  ];
  for (const [pair, ...hashes] of all) {
    const by = partFor(pair);
    for (const hash of hashes) {
      await allowed(withBundle(bundle(pair, subject.digest, { hash })), by);
      await allowed(withTag(older(pair, subject.digest, { hash })), by);
    }
    assert.equal(await reasonOf(withBundle(bundle()), by), 'its signature is not by a key of the policy');
    assert.equal(await reasonOf(withTag(older()), by), 'its signature is not by a key of the policy');
  }
});

test('of several keys one suffices', async () => {
  const [first, second] = [ecKeys(), ecKeys('P-384')];
  const by = partFor(first, second);
  await allowed(withBundle(bundle(first)), by);
  await allowed(withBundle(bundle(second)), by);
  assert.match(await reasonOf(withBundle(bundle()), by), /not by a key of the policy/);
});

test('an image without a signature is refused, and the refusal says what to do', async () => {
  const { reason, advice, detail } = await refused(part.judge(subject, new TestEvidence()));
  assert.equal(reason, 'it has no signature');
  assert.equal(
    advice,
    `sign ${subject.digest} with cosign and a key of the policy; a signature that is pushed now is seen 30 seconds after the refusal`,
  );
  assert.deepEqual(detail, { missing: 'signature', found: 0, problems: [] });
});

test('a signature of another digest is refused, in both forms', async () => {
  for (const evidence of [withBundle(bundle(keys, other.digest)), withTag(older(keys, other.digest))]) {
    const { reason, detail } = await refused(part.judge(subject, evidence));
    assert.equal(reason, 'its signature is for another digest');
    assert.deepEqual(detail, { missing: 'signature', found: 1, problems: ['other-digest'] });
  }
});

test('the digest of the manifest is compared whole', async () => {
  const hex = subject.digest.slice('sha256:'.length);
  const wrong = [hex.slice(0, 63), `${hex}0`, hex.toUpperCase(), subject.digest, '', null, [hex], { hex }];
  for (const sha256 of wrong) {
    const layer = bundle(keys, subject.digest, { subjects: [{ digest: { sha256 } }] });
    assert.equal(await reasonOf(withBundle(layer)), 'its signature is for another digest');
  }
  for (const digest of [hex, `${subject.digest}0`, subject.digest.slice(0, -1), ''])
    assert.equal(await reasonOf(withTag(older(keys, digest))), 'its signature is for another digest');
  // Of several subjects one suffices.
  const subjects = [{ digest: { sha256: 'a'.repeat(64) } }, null, { digest: { sha256: hex } }];
  await allowed(withBundle(bundle(keys, subject.digest, { subjects })));
});

test('an SBOM that is signed with the right key is not a signature', async () => {
  for (const predicateType of [
    'https://spdx.dev/Document',
    'https://cyclonedx.org/bom',
    'https://slsa.dev/provenance/v1',
    `${SIGN_PREDICATE}/x`,
    SIGN_PREDICATE.slice(0, -1),
    '',
  ]) {
    const { reason, detail } = await refused(
      part.judge(subject, withBundle(bundle(keys, subject.digest, { predicateType }))),
    );
    assert.equal(reason, 'it has attestations, but no signature of the image itself');
    assert.deepEqual(detail, { missing: 'signature', found: 0, problems: [] });
  }
});

test('something else that is signed with the right key is not a signature', async () => {
  const wrongs = [{ payloadType: 'application/json' }, { statementType: 'https://example.com/Statement' }];
  for (const options of wrongs)
    assert.equal(
      await reasonOf(withBundle(bundle(keys, subject.digest, options))),
      'its signature cannot be read',
    );
  for (const type of ['atomic container signature', '', 'cosign container image signature ']) {
    const layer = simpleSigningLayer(simpleSigning(subject.digest, type), keys);
    assert.equal(await reasonOf(withTag(layer)), 'its signature cannot be read');
  }
});

test('what was changed after it was signed is refused', async () => {
  const envelope = envelopeOf(other.digest, keys);
  const changed = { ...envelope, payload: envelopeOf(subject.digest, keys).payload };
  assert.match(await reasonOf(withBundle(bundleLayer(bundleOf(changed)))), /not by a key of the policy/);
  const { annotations = {} } = older(keys, other.digest);
  assert.match(await reasonOf(withTag({ ...older(), annotations })), /not by a key of the policy/);
});

test('an old signature cannot stand in for a new one, nor a new one for an old', async () => {
  const moved = withBundle({ ...older(), mediaType: BUNDLE });
  assert.equal(await reasonOf(moved), 'its signature cannot be read');
  assert.equal(await reasonOf(withTag(bundle())), 'it has no signature');
  assert.equal(
    await reasonOf(new TestEvidence().addReferrer('application/json', [bundle()])),
    'it has no signature',
  );
});

test('one valid signature suffices, whatever stands beside it', async () => {
  const bad = [
    bundle(ecKeys()),
    bundle(keys, other.digest),
    bundleLayer(Buffer.from('{')),
    bundle(keys, subject.digest, { predicateType: 'https://spdx.dev/Document' }),
  ];
  await allowed(withBundle(...bad, bundle()));
  const many = new TestEvidence();
  for (const layer of [...bad, bundle(), ...bad]) many.addReferrer(BUNDLE, [layer]);
  await allowed(many);
  await allowed(withBundle(...bad).addTag(subject.digest, [older(ecKeys()), older()]));
});

test('of several bad signatures the refusal says each reason once', async () => {
  const strangers = withBundle(bundle(ecKeys()), bundle(ecKeys()));
  assert.equal(await reasonOf(strangers), 'none of its 2 signatures is by a key of the policy');
  const mixed = withBundle(bundle(ecKeys()), bundle(keys, other.digest), bundle(ecKeys()));
  const { reason, detail } = await refused(part.judge(subject, mixed));
  assert.equal(
    reason,
    'none of its 3 signatures counts: one is not by a key of the policy; one is for another digest',
  );
  assert.deepEqual(detail['problems'], ['other-key', 'other-digest']);
});

test('a manifest of a sha512 digest is let in by a signature of its sha256, as cosign makes it', async () => {
  const bySha512 = { ...subject, digest: `sha512:${'0'.repeat(128)}` as Digest };
  await allowed(withBundle(bundle()), part, bySha512);
  await allowed(withTag(older()), part, bySha512);
});

test('evidence that cannot be had is thrown on, unless another signature suffices', async () => {
  const failure = new Error('ghcr.io: no reply in time');
  const failing = (evidence: TestEvidence, ...what: readonly (string | undefined)[]) => {
    for (const one of what) evidence.failures.set(one ?? '', failure);
    return evidence;
  };
  const tag = `sha256-${subject.digest.slice('sha256:'.length)}.sig`;
  for (const evidence of [
    failing(new TestEvidence(), 'referrers'),
    failing(new TestEvidence(), tag),
    failing(withBundle(bundle(ecKeys())), tag),
  ])
    await assert.rejects(part.judge(subject, evidence), failure);
  const blob = withBundle(bundle());
  await assert.rejects(part.judge(subject, failing(blob, [...blob.blobs.keys()][0])), failure);
  const manifest = withBundle(bundle());
  await assert.rejects(part.judge(subject, failing(manifest, manifest.listed[0]?.digest)), failure);
  await allowed(failing(withTag(older()), 'referrers'));
  const one = withBundle(bundle()).addReferrer(BUNDLE, [bundle()]);
  await allowed(failing(one, one.listed[0]?.digest));
});

test('it stops when the decision takes too long', async () => {
  const reason = new Error('it took too long');
  const evidence = withBundle(bundle());
  evidence.onAsk = (what) => what === 'referrers' && evidence.abort(reason);
  await assert.rejects(part.judge(subject, evidence), reason);
  assert.deepEqual(evidence.asked, ['referrers']);
});

test('it stops in the middle of signatures that are all of one payload', async () => {
  const reason = new Error('it took too long');
  const evidence = withTag(...Array.from({ length: 60 }, () => older(ecKeys())), older());
  const [payload] = evidence.blobs.keys();
  evidence.onAsk = (what) => what === payload && setImmediate(() => evidence.abort(reason));
  await assert.rejects(part.judge(subject, evidence), reason);
});

test('a manifest with 10 000 layers is not read through, and neither are 10 000 manifests', async () => {
  const strangers = Array.from({ length: 10_000 }, (_, index) => bundleLayer(Buffer.from(`{"n":${index}}`)));
  const evidence = withBundle(...strangers);
  assert.match(await reasonOf(evidence), /^none of its 64 signatures can be read$/);
  assert.equal(evidence.asked.length, 1 + 1 + 64 + 1);
  const many = new TestEvidence();
  for (const layer of strangers.slice(0, 1000)) many.addReferrer(BUNDLE, [layer]);
  many.addTag(subject.digest, [older()]);
  await allowed(many);
  assert.equal(many.asked.length, 1 + 63 * 2 + 2);
});

test('a signature of more than 1 MiB is not read', async () => {
  const big = bundleLayer(Buffer.concat([bundle().content, Buffer.alloc(1024 * 1024, ' ')]));
  assert.equal(
    await reasonOf(withBundle(big)),
    'its signature is listed, but it is missing or larger than 1 MiB',
  );
});

test('several signatures of one payload cost one download', async () => {
  const evidence = withTag(older(ecKeys()), older(ecKeys()), older());
  await allowed(evidence);
  assert.equal(evidence.asked.length, 3);
});

test('a bundle with thousands of log entries or timestamps is refused at once', async () => {
  const entry = {
    logIndex: '1',
    logId: { keyId: 'AAAA' },
    kindVersion: { kind: 'dsse', version: '0.0.1' },
    integratedTime: '1',
    inclusionPromise: { signedEntryTimestamp: 'AAAA' },
    inclusionProof: { logIndex: '1', rootHash: '', treeSize: '1', hashes: [], checkpoint: { envelope: '' } },
    canonicalizedBody: '',
  };
  const tlogEntries = Array.from({ length: 3000 }, () => entry);
  const timestampVerificationData = {
    rfc3161Timestamps: Array.from({ length: 3000 }, () => ({ signedTimestamp: '' })),
  };
  for (const material of [{ tlogEntries }, { timestampVerificationData }]) {
    const layer = bundleLayer(bundleOf(envelopeOf(subject.digest, keys), material));
    assert.equal(await reasonOf(withBundle(layer)), 'its signature cannot be read');
  }
});

test('without keys it is enough that there is any signature of the image', async () => {
  const any = SignaturePart.create({}, () => Buffer.alloc(0), systemClock);
  await allowed(withBundle(bundle(ecKeys())), any);
  await allowed(withTag(older(ecKeys())), any);
  const notation = 'application/vnd.cncf.notary.signature';
  for (const mediaType of ['application/jose+json', 'application/cose'])
    await allowed(new TestEvidence().addReferrer(notation, [{ mediaType, content: Buffer.from('x') }]), any);
  assert.equal(await reasonOf(new TestEvidence(), any), 'it has no signature');
  assert.match(await reasonOf(withBundle(bundle(keys, other.digest)), any), /for another digest/);
  const sbom = bundle(keys, subject.digest, { predicateType: 'https://spdx.dev/Document' });
  assert.match(await reasonOf(withBundle(sbom), any), /it has attestations/);
});
