/** Garbage of every kind in place of signatures: nothing of it lets anything in, breaks the process or keeps it busy. */
import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { after, test } from 'node:test';
import { asyncProperty, assert as check, constantFrom, jsonValue, nat, record, uint8Array } from 'fast-check';
import { systemClock } from '../../../../src/clock.ts';
import {
  SignaturePart,
  type SignatureSettings,
} from '../../../../src/policy/parts/signature/signature-part.ts';
import { TestAuthority } from '../../../helpers/client-certificates.ts';
import {
  BUNDLE,
  bundleLayer,
  bundleOf,
  ecKeys,
  envelopeOf,
  pemOf,
  SIMPLE_SIGNING,
  simpleSigning,
  simpleSigningLayer,
} from '../../../helpers/signatures/cosign-signatures.ts';
import { jwsLayer, NOTATION } from '../../../helpers/signatures/notation-signatures.ts';
import { TestEvidence, type TestLayer, testSubject } from '../../../helpers/signatures/test-evidence.ts';
import { ISSUER, TestSigstore, WORKFLOW } from '../../../helpers/signatures/test-sigstore.ts';

const subject = testSubject();
const { digest } = subject;
const keys = ecKeys();
const sigstore = await TestSigstore.create();
const t = { after } as unknown as Parameters<typeof TestAuthority.root>[0];
const authority = await TestAuthority.root(t, 'Root');
const leaf = await authority.issue(t, {
  subject: '/O=acme',
  extensions: ['keyUsage = critical, digitalSignature', 'extendedKeyUsage = codeSigning'],
});

const FILES = new Map([
  ['/key', pemOf(keys.publicKey)],
  ['/root', Buffer.from(JSON.stringify(sigstore.trustedRoot()))],
  ['/authority', Buffer.from(authority.cert)],
]);

function partFor(settings: SignatureSettings): SignaturePart {
  return SignaturePart.create(settings, (path) => FILES.get(path) ?? Buffer.alloc(0), systemClock);
}

const keyless = { issuer: ISSUER, subject: WORKFLOW, trustedRoot: '/root' };
const notation = { trustStore: ['/authority'], identities: ['x509.subject: O=acme'] };
const part = partFor({ cosign: { keys: ['/key'] }, keyless, notation });
const logging = partFor({
  cosign: { keys: ['/key'], transparencyLog: { trustedRoot: '/root' } },
  keyless,
  notation,
});

const GOOD = {
  bundle: bundleLayer(bundleOf(envelopeOf(digest, keys))),
  older: simpleSigningLayer(simpleSigning(digest), keys),
  keyless: await sigstore.bundle(digest),
  proven: await sigstore.provenBundle(digest),
  keylessOlder: await sigstore.older(digest),
  logged: await sigstore.loggedBundle(digest, keys),
  loggedOlder: await sigstore.loggedOlder(digest, keys),
  notation: await jwsLayer(digest, leaf, [leaf.cert, authority.cert]),
} as const;
/** Those that are good only because of a log, whose every part must count. */
const WITH_LOG: readonly string[] = ['keyless', 'proven', 'keylessOlder', 'logged', 'loggedOlder'];

function evidenceOf(layer: TestLayer): TestEvidence {
  if (layer.mediaType === SIMPLE_SIGNING) return new TestEvidence().addTag(digest, [layer]);
  return new TestEvidence().addReferrer(layer.mediaType === BUNDLE ? BUNDLE : NOTATION, [layer]);
}

async function isAllowed(layer: TestLayer, by = part): Promise<boolean> {
  return (await by.judge(subject, evidenceOf(layer))).allowed;
}

test('the good signatures of this file are good', async () => {
  for (const layer of Object.values(GOOD))
    assert.ok(await isAllowed(closed(layer, opened(layer) as Record<string, unknown>)));
  for (const [name, layer] of Object.entries(GOOD)) {
    assert.ok(await isAllowed(layer), name);
    assert.equal(await isAllowed(layer, logging), name !== 'bundle' && name !== 'older', name);
  }
});

test('random bytes and random JSON never let anything in', async () => {
  const mediaType = constantFrom(BUNDLE, SIMPLE_SIGNING, 'application/jose+json', 'application/cose');
  const noise = record({
    mediaType,
    bytes: uint8Array({ maxLength: 300 }),
    json: jsonValue(),
    annotation: jsonValue(),
  });
  await check(
    asyncProperty(noise, async ({ mediaType, bytes, json, annotation }) => {
      const annotations = {
        'dev.cosignproject.cosign/signature': annotation,
        'dev.sigstore.cosign/bundle': annotation,
        'dev.sigstore.cosign/certificate': annotation,
      };
      for (const content of [Buffer.from(bytes), Buffer.from(JSON.stringify(json))]) {
        assert.ok(!(await isAllowed({ mediaType, content, annotations })));
        // Also as an annotation beside the right payload, and as a manifest.
        assert.ok(!(await isAllowed({ ...GOOD.older, annotations })));
        const evidence = evidenceOf(GOOD.bundle);
        for (const manifest of evidence.manifests.values()) manifest.bytes = content;
        assert.ok(!(await part.judge(subject, evidence)).allowed);
      }
    }),
    { numRuns: 300 },
  );
});

/** Every string in a JSON value, by its path. */
function stringsOf(value: unknown, path: readonly string[] = []): (readonly string[])[] {
  if (typeof value === 'string') return [path];
  if (typeof value !== 'object' || value === null) return [];
  return Object.entries(value).flatMap(([name, inner]) => stringsOf(inner, [...path, name]));
}

function changed(
  value: unknown,
  [name, ...rest]: readonly string[],
  change: (text: string) => unknown,
): unknown {
  if (name === undefined) return change(String(value));
  if (Array.isArray(value))
    return value.map((one, at) => (String(at) === name ? changed(one, rest, change) : one));
  const object = value as Record<string, unknown>;
  return { ...object, [name]: changed(object[name], rest, change) };
}

/**
 * What does not change the meaning of a signature, and may be anything. Of a timestamp only a part is signed: the time
 * itself has tests of its own.
 */
const FREE =
  /^verificationMaterial\.publicKey\.hint$|keyid$|^verificationMaterial\.tlogEntries\.0\.(?:logIndex|integratedTime|inclusionProof\.(?:logIndex|rootHash|treeSize))$|signedTimestamp$/;

const LOGGED = 'dev.sigstore.cosign/bundle';
const CERTIFICATE = 'dev.sigstore.cosign/certificate';

/** Everything in a layer as JSON, and with bytes in base64. */
function opened({ mediaType, content, annotations = {} }: TestLayer): unknown {
  if (mediaType !== SIMPLE_SIGNING) return JSON.parse(content.toString());
  const { [LOGGED]: logged, [CERTIFICATE]: certificate, ...rest } = annotations;
  return {
    ...{ content: content.toString(), rest },
    ...(typeof logged === 'string' ? { logged: JSON.parse(logged) as unknown } : {}),
    ...(typeof certificate === 'string'
      ? { certificate: new X509Certificate(certificate).raw.toString('base64') }
      : {}),
  };
}

function closed(layer: TestLayer, value: Record<string, unknown>): TestLayer {
  if (layer.mediaType !== SIMPLE_SIGNING) return { ...layer, content: Buffer.from(JSON.stringify(value)) };
  const { content, rest, logged, certificate } = value;
  const pem = `-----BEGIN CERTIFICATE-----\n${String(certificate)}\n-----END CERTIFICATE-----\n`;
  const annotations = {
    ...(rest as Record<string, unknown>),
    ...(logged === undefined ? {} : { [LOGGED]: JSON.stringify(logged) }),
    ...(certificate === undefined ? {} : { [CERTIFICATE]: pem }),
  };
  return { ...layer, content: Buffer.from(String(content)), annotations };
}

test('a good signature in which a bit was changed never lets anything in', async () => {
  const names = Object.keys(GOOD) as (keyof typeof GOOD)[];
  const mutation = record({ name: constantFrom(...names), which: nat(), where: nat(), bit: nat(7) });
  const judged = (name: string) => (WITH_LOG.includes(name) ? logging : part);
  await check(
    asyncProperty(mutation, async ({ name, which, where, bit }) => {
      const layer = GOOD[name];
      const whole = opened(layer);
      const paths = stringsOf(whole).filter((path) => !FREE.test(path.join('.')));
      const path = paths[which % paths.length] ?? [];
      const result = changed(whole, path, (text) => flipped(text, where, bit)) as Record<string, unknown>;
      if (isSame(path, whole, result)) return;
      const mutated = closed(layer, result);
      assert.ok(!(await isAllowed(mutated, judged(name))), `${name}: ${path.join('.')}`);
    }),
    { numRuns: 1000 },
  );
});

const BASE64 = /^[A-Za-z0-9+/_-]+={0,2}$/;

/** In base64 the bit of a byte, so that it always counts. */
function flipped(text: string, where: number, bit: number): string {
  const encoding =
    BASE64.test(text) && text.length > 12 ? (/[-_]/.test(text) ? 'base64url' : 'base64') : 'utf8';
  const bytes = Buffer.from(text, encoding);
  if (bytes.length === 0) return 'x';
  const at = where % bytes.length;
  bytes[at] = (bytes[at] ?? 0) ^ (encoding === 'utf8' ? 1 << (bit % 6) : 1 << bit);
  return bytes.toString(encoding);
}

/** Whether the change is one of writing only: base64 has bits at its end that mean nothing, and ends where its padding begins. */
function isSame(path: readonly string[], before: unknown, after: unknown): boolean {
  const at = (value: unknown) =>
    String(path.reduce<unknown>((inner, name) => (inner as Record<string, unknown>)[name], value)).replaceAll(
      /([A-Za-z0-9+/]{12,})(?:(?:[=<?]|[^\s -~])\S?)?/g,
      (_, bytes: string) => Buffer.from(bytes, 'base64').toString('hex'),
    );
  return at(before) === at(after);
}

test('what is built to keep the mirror busy is refused within a second', async () => {
  const started = performance.now();
  const deep = (open: string, close: string) => open.repeat(250_000) + close.repeat(250_000);
  const der = Buffer.alloc(700_000, 0x30);
  const bundle = JSON.parse(GOOD.keyless.content.toString());
  const withCertificate = (rawBytes: string) => {
    const verificationMaterial = { ...bundle.verificationMaterial, certificate: { rawBytes } };
    return bundleLayer(Buffer.from(JSON.stringify({ ...bundle, verificationMaterial })));
  };
  const [entry] = bundle.verificationMaterial.tlogEntries;
  const withCheckpoint = (envelope: string) => {
    const inclusionProof = { ...entry.inclusionProof, checkpoint: { envelope } };
    const verificationMaterial = {
      ...bundle.verificationMaterial,
      tlogEntries: [{ ...entry, inclusionProof }],
    };
    return bundleLayer(Buffer.from(JSON.stringify({ ...bundle, verificationMaterial })));
  };
  const nested = Buffer.concat([
    ...Array.from({ length: 90 }, () => Buffer.from([0x30, 0x80])),
    Buffer.alloc(600_000, 4),
  ]);
  for (const layer of [
    bundleLayer(Buffer.from(deep('[', ']'))),
    bundleLayer(Buffer.from(deep('{"a":', '}').replaceAll(':}', ':1}'))),
    withCertificate(der.toString('base64')),
    withCertificate(Buffer.alloc(700_000, 0x04).toString('base64')),
    withCertificate(nested.toString('base64')),
    withCheckpoint(`a\n${'9'.repeat(500_000)}\nAAAA\n\n${'— a '.repeat(50_000)}`),
    withCheckpoint(`a\n1\nAAAA\n\n${'— x AAAAAAAA\n'.repeat(30_000)}`),
    { mediaType: 'application/jose+json', content: Buffer.from(deep('[', ']')) },
    {
      ...GOOD.older,
      annotations: { 'dev.sigstore.cosign/certificate': '-----BEGIN CERTIFICATE-----\n'.repeat(20_000) },
    },
  ])
    assert.ok(!(await isAllowed(layer)));
  assert.ok(performance.now() - started < 9_000);
});
