/** Makes signatures in the two forms that cosign has, with a key of the test. */
import { generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { type Digest, digestHex } from '../../../src/oci/digest.ts';
import type { TestLayer } from './test-evidence.ts';

export const BUNDLE = 'application/vnd.dev.sigstore.bundle.v0.3+json';
export const SIMPLE_SIGNING = 'application/vnd.dev.cosign.simplesigning.v1+json';
export const SIGN_PREDICATE = 'https://sigstore.dev/cosign/sign/v1';
const IN_TOTO = 'application/vnd.in-toto+json';

export interface KeyPair {
  publicKey: KeyObject;
  privateKey: KeyObject;
}

export function ecKeys(namedCurve = 'P-256'): KeyPair {
  return generateKeyPairSync('ec', { namedCurve });
}

export function pemOf(key: KeyObject): Buffer {
  return Buffer.from(key.export({ format: 'pem', type: 'spki' }));
}

export interface SignOptions {
  /** Null: the key has a hash of its own. */
  hash?: string | null;
  predicateType?: string;
  payloadType?: string;
  statementType?: string;
  /** In place of the only subject. */
  subjects?: readonly unknown[];
}

export interface Envelope {
  payload: string;
  payloadType: string;
  signatures: { sig: string; keyid: string }[];
}

export function statementOf(digest: Digest, options: SignOptions = {}): Buffer {
  return Buffer.from(
    JSON.stringify({
      _type: options.statementType ?? 'https://in-toto.io/Statement/v1',
      subject: options.subjects ?? [{ digest: { sha256: digestHex(digest) } }],
      predicateType: options.predicateType ?? SIGN_PREDICATE,
      predicate: {},
    }),
  );
}

/** The bytes that a DSSE signature is over. */
export function preAuthEncoding(payload: Buffer, payloadType = IN_TOTO): Buffer {
  return Buffer.concat([
    Buffer.from(`DSSEv1 ${Buffer.byteLength(payloadType)} ${payloadType} ${payload.length} `),
    payload,
  ]);
}

export function envelopeOf(digest: Digest, { privateKey }: KeyPair, options: SignOptions = {}): Envelope {
  const payload = statementOf(digest, options);
  const { payloadType = IN_TOTO, hash = 'sha256' } = options;
  const sig = sign(hash, preAuthEncoding(payload, payloadType), privateKey).toString('base64');
  return { payload: payload.toString('base64'), payloadType, signatures: [{ sig, keyid: '' }] };
}

/** @param material what proves the signer; default: a key that everybody has to know */
export function bundleOf(dsseEnvelope: Envelope, material: Record<string, unknown> = {}): Buffer {
  const verificationMaterial = { publicKey: { hint: 'test' }, ...material };
  return Buffer.from(JSON.stringify({ mediaType: BUNDLE, verificationMaterial, dsseEnvelope }));
}

export function bundleLayer(content: Buffer): TestLayer {
  return { mediaType: BUNDLE, content };
}

export function simpleSigning(digest: string, type = 'cosign container image signature'): Buffer {
  const identity = { 'docker-reference': 'ghcr.io/acme/app' };
  const image = { 'docker-manifest-digest': digest };
  return Buffer.from(JSON.stringify({ critical: { identity, image, type }, optional: null }));
}

export function simpleSigningLayer(
  content: Buffer,
  { privateKey }: KeyPair,
  { hash = 'sha256', ...more }: { hash?: string | null } & Record<string, unknown> = {},
): TestLayer {
  const signature = sign(hash, content, privateKey).toString('base64');
  const annotations = { 'dev.cosignproject.cosign/signature': signature, ...more };
  return { mediaType: SIMPLE_SIGNING, content, annotations };
}
