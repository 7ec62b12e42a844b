/**
 * Images that the real cosign and Notation's own library have signed, judged by what a real registry says.
 *
 * `UPDATE_FIXTURES=1` keeps what was seen for the unit tests.
 */
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { systemClock } from '../../src/clock.ts';
import { type Digest, digestOf } from '../../src/oci/digest.ts';
import { OCI_MANIFEST } from '../../src/oci/manifest.ts';
import { SignaturePart, type SignatureSettings } from '../../src/policy/parts/signature/signature-part.ts';
import { TestAuthority } from '../helpers/client-certificates.ts';
import { missingEngines } from '../helpers/engines.ts';
import { buildImage } from '../helpers/images.ts';
import { missingPrograms, run } from '../helpers/real-processes.ts';
import { RealRegistry } from '../helpers/real-registry.ts';
import { KEPT, type KeptCase, RegistryEvidence } from '../helpers/signatures/kept-evidence.ts';
import { cosign, missingGo, notationSigner } from '../helpers/signatures/signing-programs.ts';
import { testSubject } from '../helpers/signatures/test-evidence.ts';
import { tempDir } from '../helpers/temp-dir.ts';

const skip = missingPrograms('docker-registry', 'openssl') || missingEngines('cosign');
const kept: KeptCase[] = [];

const KEYS: Record<string, readonly string[]> = {
  'ECDSA P-256': ['-algorithm', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256'],
  'ECDSA P-384': ['-algorithm', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-384'],
  'ECDSA P-521': ['-algorithm', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-521'],
  'RSA 3072': ['-algorithm', 'rsa', '-pkeyopt', 'rsa_keygen_bits:3072'],
  Ed25519: ['-algorithm', 'ed25519'],
};
const OFFLINE = ['--allow-http-registry', '--tlog-upload=false', '--use-signing-config=false', '--yes'];
const OLDER = '--new-bundle-format=false';
const LEAF = ['keyUsage = critical, digitalSignature', 'extendedKeyUsage = codeSigning'];

async function push(registry: RealRegistry, repository: string): Promise<Buffer> {
  const { top, blobs } = buildImage({ seed: repository });
  const url = `${registry.url}/v2/${repository}`;
  for (const blob of blobs) {
    const started = await fetch(`${url}/blobs/uploads/`, { method: 'POST' });
    const location = new URL(started.headers.get('location') ?? '', registry.url);
    location.searchParams.set('digest', digestOf(blob));
    await fetch(location, { method: 'PUT', body: new Uint8Array(blob) });
  }
  const headers = { 'content-type': OCI_MANIFEST };
  const reply = await fetch(`${url}/manifests/1`, {
    method: 'PUT',
    body: new Uint8Array(top.bytes),
    headers,
  });
  assert.equal(reply.status, 201, await reply.text());
  return top.bytes;
}

async function verdict(
  settings: SignatureSettings,
  trusted: string,
  manifest: Buffer,
  evidence: RegistryEvidence,
) {
  const part = SignaturePart.create(settings, () => Buffer.from(trusted), systemClock);
  const finding = await part.judge(testSubject('', manifest), evidence);
  return finding.allowed ? 'allowed' : finding.reason;
}

/** Signs a new image, and returns what the policy says. */
async function signed(
  registry: RealRegistry,
  name: string,
  trusted: string,
  settings: SignatureSettings,
  sign: (image: string) => Promise<void>,
): Promise<string> {
  const repository = name.toLowerCase().replace(/[^a-z0-9]+/g, '-');
  const manifest = await push(registry, repository);
  const digest: Digest = digestOf(manifest);
  const evidence = new RegistryEvidence(`${registry.url}/v2/${repository}`, digest);
  assert.equal(await verdict(settings, trusted, manifest, evidence), 'it has no signature');
  await sign(`127.0.0.1:${registry.port}/${repository}@${digest}`);
  const said = await verdict(settings, trusted, manifest, evidence);
  kept.push({ name, manifest: manifest.toString(), trusted, madeAt: Date.now(), ...evidence.seen });
  return said;
}

async function makeKey(
  t: TestContext,
  kind: readonly string[],
): Promise<{ folder: string; publicKey: string }> {
  const folder = await tempDir(t);
  await run('openssl', ['genpkey', ...kind, '-out', join(folder, 'plain.pem')]);
  const files = ['--key', join(folder, 'plain.pem'), '--output-key-prefix', join(folder, 'cosign')];
  await cosign(folder, 'import-key-pair', ...files);
  return { folder, publicKey: await readFile(join(folder, 'cosign.pub'), 'utf8') };
}

const COSIGN: SignatureSettings = { cosign: { keys: ['/cosign.pub'] } };

test('what the real cosign has signed with any kind of key is let in, in both of its forms', {
  skip,
}, async (t) => {
  const registry = await RealRegistry.start(t);
  for (const [kind, options] of Object.entries(KEYS)) {
    const { folder, publicKey } = await makeKey(t, options);
    const key = ['--key', join(folder, 'cosign.key'), ...OFFLINE];
    const bundle = (image: string) => cosign(folder, 'sign', ...key, image);
    const older = (image: string) => cosign(folder, 'sign', ...key, OLDER, image);
    assert.equal(await signed(registry, `cosign bundle ${kind}`, publicKey, COSIGN, bundle), 'allowed', kind);
    assert.equal(await signed(registry, `cosign tag ${kind}`, publicKey, COSIGN, older), 'allowed', kind);
  }
});

test('an SBOM that the real cosign has signed with the right key is not a signature', { skip }, async (t) => {
  const registry = await RealRegistry.start(t);
  const { folder, publicKey } = await makeKey(t, KEYS['ECDSA P-256'] ?? []);
  const sbom = join(folder, 'sbom.json');
  await writeFile(sbom, JSON.stringify({ spdxVersion: 'SPDX-2.3', packages: [] }));
  const attest = (image: string) => {
    const what = ['--key', join(folder, 'cosign.key'), '--predicate', sbom, '--type', 'spdxjson'];
    return cosign(folder, 'attest', ...what, ...OFFLINE, image);
  };
  assert.equal(
    await signed(registry, 'cosign attestation', publicKey, COSIGN, attest),
    'it has attestations, but no signature of the image itself',
  );
});

test("what Notation's own library has signed is let in if it is in JWS, and refused clearly in COSE", {
  skip: skip || missingGo(),
}, async (t) => {
  const program = await notationSigner();
  const registry = await RealRegistry.start(t);
  const root = await TestAuthority.root(t, 'Root');
  const middle = await root.intermediate(t, 'Middle');
  const leaf = await middle.issue(t, { subject: '/C=US/ST=WA/O=acme/CN=builder', extensions: LEAF });
  const folder = await tempDir(t);
  await writeFile(join(folder, 'chain.pem'), [leaf.cert, middle.cert, root.cert].join(''));
  await writeFile(join(folder, 'key.pem'), leaf.key);
  const settings: SignatureSettings = {
    notation: { trustStore: ['/root.pem'], identities: ['x509.subject: C=US, ST=WA, O=acme'] },
  };
  const by = (mediaType: string, expiry: string) => async (image: string) => {
    await run(program, [join(folder, 'chain.pem'), join(folder, 'key.pem'), image, mediaType, expiry]);
  };
  const jws = 'application/jose+json';
  assert.equal(await signed(registry, 'notation JWS', root.cert, settings, by(jws, '0s')), 'allowed');
  assert.equal(
    await signed(registry, 'notation JWS for a day', root.cert, settings, by(jws, '24h')),
    'allowed',
  );
  assert.equal(
    await signed(registry, 'notation COSE', root.cert, settings, by('application/cose', '0s')),
    'its signature is in a COSE envelope, which is not supported: sign with JWS',
  );
});

test('what was seen is kept for the unit tests', {
  skip: skip || (process.env['UPDATE_FIXTURES'] !== '1' && 'writes only with UPDATE_FIXTURES=1'),
}, async () => {
  for (const { manifests, blobs } of kept) {
    // COSE is not text.
    for (const [digest, text] of Object.entries(blobs))
      if (digestOf(Buffer.from(text)) !== digest) blobs[digest] = '';
    for (const [reference, { text }] of Object.entries(manifests))
      if (reference.includes(':')) assert.equal(digestOf(Buffer.from(text)), reference);
  }
  await writeFile(KEPT, `${JSON.stringify(kept, null, 2)}\n`);
});
