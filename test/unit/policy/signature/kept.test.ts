/** What the real cosign and notation-go have signed, from the bytes that test/e2e/signatures.test.ts has kept. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemClock } from '../../../../src/clock.ts';
import { digestOf } from '../../../../src/oci/digest.ts';
import {
  SignaturePart,
  type SignatureSettings,
} from '../../../../src/policy/parts/signature/signature-part.ts';
import { ecKeys, pemOf } from '../../../helpers/signatures/cosign-signatures.ts';
import { type KeptCase, KeptEvidence, keptCases } from '../../../helpers/signatures/kept-evidence.ts';
import { testSubject } from '../../../helpers/signatures/test-evidence.ts';

const DAY = 24 * 60 * 60 * 1000;
const COSIGN: SignatureSettings = { cosign: { keys: ['/trusted'] } };
const NOTATION: SignatureSettings = {
  notation: { trustStore: ['/trusted'], identities: ['x509.subject: C=US, ST=WA, O=acme'] },
};

const kept = keptCases();

interface Judging {
  trusted?: Buffer;
  manifest?: string;
  now?: number;
}

async function verdict(one: KeptCase, changes: Judging = {}): Promise<string> {
  const { trusted = Buffer.from(one.trusted), manifest = one.manifest, now = one.madeAt } = changes;
  const settings = one.name.startsWith('cosign') ? COSIGN : NOTATION;
  const part = SignaturePart.create(settings, () => trusted, { ...systemClock, now: () => now });
  const finding = await part.judge(testSubject('', Buffer.from(manifest)), new KeptEvidence(one));
  return finding.allowed ? 'allowed' : finding.reason;
}

function named(start: string): readonly KeptCase[] {
  const cases = kept.filter(({ name }) => name.startsWith(start));
  assert.notEqual(cases.length, 0, start);
  return cases;
}

test('the kept bytes are those of their digests', () => {
  assert.equal(kept.length, 14);
  for (const { name, manifests, blobs } of kept) {
    if (name === 'notation COSE') continue;
    for (const [digest, text] of Object.entries(blobs))
      assert.equal(digestOf(Buffer.from(text)), digest, name);
    for (const [reference, { text }] of Object.entries(manifests))
      if (reference.includes(':')) assert.equal(digestOf(Buffer.from(text)), reference, name);
  }
});

test('what the real cosign has signed is let in by its key, and by no other', async () => {
  const stranger = pemOf(ecKeys().publicKey);
  for (const start of ['cosign bundle', 'cosign tag']) {
    assert.equal(named(start).length, 5);
    for (const one of named(start)) {
      assert.equal(await verdict(one), 'allowed', one.name);
      assert.equal(
        await verdict(one, { trusted: stranger }),
        'its signature is not by a key of the policy',
        one.name,
      );
    }
  }
});

test('what the real cosign has signed does not let in another image', async () => {
  const manifest = testSubject('other').bytes.toString();
  for (const one of named('cosign bundle'))
    assert.equal(await verdict(one, { manifest }), 'its signature is for another digest', one.name);
  const { digest } = testSubject('other');
  for (const one of named('cosign tag')) {
    // Put under the tag of the other image.
    const [signature] = Object.values(one.manifests);
    assert.ok(signature !== undefined);
    const moved = { ...one, manifests: { [`${digest.replace(':', '-')}.sig`]: signature } };
    assert.equal(await verdict(moved, { manifest }), 'its signature is for another digest', one.name);
  }
});

test('an attestation of the real cosign is not a signature', async () => {
  const [attestation] = named('cosign attestation');
  assert.ok(attestation !== undefined);
  assert.equal(await verdict(attestation), 'it has attestations, but no signature of the image itself');
});

test("what Notation's library has signed is let in while its certificate is valid and its expiry has not come", async () => {
  const [jws, forADay, cose] = named('notation');
  assert.ok(jws !== undefined && forADay !== undefined && cose !== undefined);
  for (const one of [jws, forADay]) {
    assert.equal(await verdict(one), 'allowed');
    for (const days of [-1, 2])
      assert.match(await verdict(one, { now: one.madeAt + days * DAY }), /not valid when it was used/);
    const manifest = testSubject('other').bytes.toString();
    assert.equal(await verdict(one, { manifest }), 'its signature is for another digest');
  }
  assert.match(await verdict(cose), /COSE envelope, which is not supported: sign with JWS/);
});
