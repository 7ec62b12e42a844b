/** A Sigstore of the test's own: an authority, its log of certificates, a transparency log, and a trusted root. */
import { createHash, type KeyObject, X509Certificate } from 'node:crypto';
import { initializeCA, initializeCTLog, initializeTLog, initializeTSA } from '@sigstore/mock';
import type { Digest } from '../../../src/oci/digest.ts';
import {
  bundleLayer,
  bundleOf,
  type Envelope,
  ecKeys,
  envelopeOf,
  type KeyPair,
  preAuthEncoding,
  type SignOptions,
  simpleSigning,
  simpleSigningLayer,
} from './cosign-signatures.ts';
import type { TestLayer } from './test-evidence.ts';

export const ISSUER = 'https://token.actions.githubusercontent.com';
export const WORKFLOW = 'https://github.com/acme/app/.github/workflows/build.yml@refs/heads/main';
const ISSUER_OID = '1.3.6.1.4.1.57264.1.8';
const OLD_ISSUER_OID = '1.3.6.1.4.1.57264.1.1';
const MINUTE = 60_000;

export interface KeylessOptions extends SignOptions {
  subject?: string;
  /** Undefined: the certificate names none. */
  issuer?: string | undefined;
  /** In the older of two extensions. */
  oldIssuer?: string;
  /** When the certificate was made; it is valid for ten minutes. */
  certifiedAt?: Date;
  /** What the log says; default: a minute later. */
  loggedAt?: Date;
  /** Whose key is in the log. Default: that of the certificate. */
  loggedBy?: string;
  /** Makes the entry with which the digest was signed by another envelope. */
  loggedEnvelope?: Envelope;
  /** Leaves out the proof that the certificate is in a log. */
  withoutSct?: boolean;
}

export interface TrustedRootOptions {
  /** Until when the authority was in use. */
  authorityUntil?: Date;
  /** Until when the transparency log was in use. */
  logUntil?: Date;
  /** Until when the log of certificates was in use. */
  certificateLogUntil?: Date;
}

interface LogEntry {
  body: string;
  integratedTime: number;
  logID: string;
  logIndex: number;
  verification: {
    inclusionProof: {
      logIndex: number;
      rootHash: string;
      treeSize: number;
      hashes: string[];
      checkpoint: string;
    };
    signedEntryTimestamp: string;
  };
}

export class TestSigstore {
  /** When it was made: nothing is valid before. */
  readonly start = new Date(Math.ceil(Date.now() / 1000 + 1) * 1000);
  readonly #authority = ecKeys();
  readonly #certificateLog = ecKeys();
  readonly #log = ecKeys();
  readonly #stamps = ecKeys();
  #root: Buffer | undefined;
  #stampRoot: Buffer[] = [];

  static async create(): Promise<TestSigstore> {
    const sigstore = new TestSigstore();
    sigstore.#root = bytesOf((await initializeCA(sigstore.#authority)).rootCertificate);
    const tsa = await initializeTSA(sigstore.#stamps);
    sigstore.#stampRoot = [bytesOf(tsa.intCertificate), bytesOf(tsa.rootCertificate)];
    return sigstore;
  }

  /** `minutes` after the start. */
  at(minutes: number): Date {
    return new Date(this.start.getTime() + minutes * MINUTE);
  }

  trustedRoot(options: TrustedRootOptions = {}): Record<string, unknown> {
    const subject = { organization: 'sigstore.test', commonName: 'sigstore' };
    const validFor = (end?: Date) => ({
      start: '2020-01-01T00:00:00Z',
      ...(end && { end: end.toISOString() }),
    });
    const authority = (certificates: readonly Buffer[], end?: Date) => ({
      subject,
      uri: 'https://fulcio.test',
      certChain: { certificates: certificates.map((raw) => ({ rawBytes: raw.toString('base64') })) },
      validFor: validFor(end),
    });
    const log = ({ publicKey }: KeyPair, baseUrl: string, end?: Date) => ({
      baseUrl,
      hashAlgorithm: 'SHA2_256',
      publicKey: {
        rawBytes: spki(publicKey).toString('base64'),
        keyDetails: 'PKIX_ECDSA_P256_SHA_256',
        validFor: validFor(end),
      },
      logId: { keyId: createHash('sha256').update(spki(publicKey)).digest('base64') },
    });
    return {
      mediaType: 'application/vnd.dev.sigstore.trustedroot+json;version=0.1',
      tlogs: [log(this.#log, 'https://rekor.test', options.logUntil)],
      ctlogs: [log(this.#certificateLog, 'https://ctfe.test', options.certificateLogUntil)],
      certificateAuthorities: [authority([this.#root ?? Buffer.alloc(0)], options.authorityUntil)],
      timestampAuthorities: [authority(this.#stampRoot)],
    };
  }

  /** The newer form. */
  async bundle(digest: Digest, options: KeylessOptions = {}): Promise<TestLayer> {
    const { keys, certificate, loggedAt } = await this.#certified(options);
    const envelope = envelopeOf(digest, keys, options);
    const entry = await this.logEnvelope(
      options.loggedEnvelope ?? envelope,
      options.loggedBy ?? pem(certificate),
      loggedAt,
    );
    const material = {
      publicKey: undefined,
      certificate: { rawBytes: certificate.toString('base64') },
      tlogEntries: [entryOf(entry, 'dsse')],
    };
    return bundleLayer(bundleOf(envelope, material));
  }

  /** The older form. */
  async older(digest: Digest, options: KeylessOptions = {}): Promise<TestLayer> {
    const { keys, certificate, loggedAt } = await this.#certified(options);
    const content = simpleSigning(digest);
    const layer = simpleSigningLayer(content, keys);
    const entry = await this.logPayload(layer, options.loggedBy ?? pem(certificate), loggedAt);
    const annotations = {
      ...layer.annotations,
      'dev.sigstore.cosign/certificate': pem(certificate),
      'dev.sigstore.cosign/bundle': entry,
    };
    return { ...layer, annotations };
  }

  /** A bundle by a key, that is in the log. */
  async loggedBundle(digest: Digest, keys: KeyPair, options: KeylessOptions = {}): Promise<TestLayer> {
    const envelope = envelopeOf(digest, keys, options);
    const by = options.loggedBy ?? keyPem(keys);
    const entry = await this.logEnvelope(
      options.loggedEnvelope ?? envelope,
      by,
      options.loggedAt ?? this.at(1),
    );
    return bundleLayer(bundleOf(envelope, { tlogEntries: [entryOf(entry, 'dsse')] }));
  }

  /** The older form by a key, that is in the log. */
  async loggedOlder(digest: Digest, keys: KeyPair, options: KeylessOptions = {}): Promise<TestLayer> {
    const { hash = 'sha256', loggedBy = keyPem(keys), loggedAt = this.at(1) } = options;
    const layer = simpleSigningLayer(simpleSigning(digest), keys, { hash });
    const entry = await this.logPayload(layer, loggedBy, loggedAt, hash ?? 'sha256');
    return { ...layer, annotations: { ...layer.annotations, 'dev.sigstore.cosign/bundle': entry } };
  }

  /** A bundle whose log only proves that it has the entry (Rekor 2); a timestamp authority tells the time. */
  async provenBundle(digest: Digest, options: KeylessOptions = {}): Promise<TestLayer> {
    const { keys, certificate, loggedAt } = await this.#certified(options);
    const envelope = envelopeOf(digest, keys, options);
    const signature = Buffer.from(envelope.signatures[0]?.sig ?? '', 'base64');
    const stamped = await (await initializeTSA(this.#stamps, loggedAt)).timestamp({
      artifactHash: createHash('sha256').update(signature).digest(),
      hashAlgorithmOID: '2.16.840.1.101.3.4.2.1',
      nonce: 1,
      policyOID: '1.3.6.1.4.1.57264.2',
      certReq: true,
    });
    const signed = preAuthEncoding(Buffer.from(envelope.payload, 'base64'));
    const verifier = {
      x509Certificate: { rawBytes: certificate.toString('base64') },
      keyDetails: 'PKIX_ECDSA_P256_SHA_256',
    };
    const spec = {
      hashedRekordV002: {
        data: { algorithm: 'SHA2_256', digest: createHash('sha256').update(signed).digest('base64') },
        signature: { content: signature.toString('base64'), verifier },
      },
    };
    const entry = await this.#enter({ apiVersion: '0.0.2', kind: 'hashedrekord', spec }, loggedAt);
    const proven = entryOf(entry, 'hashedrekord', '0.0.2');
    const material = {
      publicKey: undefined,
      certificate: { rawBytes: certificate.toString('base64') },
      tlogEntries: [{ ...proven, inclusionPromise: undefined }],
      timestampVerificationData: {
        rfc3161Timestamps: [{ signedTimestamp: bytesOf(stamped).toString('base64') }],
      },
    };
    return bundleLayer(bundleOf(envelope, material));
  }

  async logEnvelope({ payload, signatures }: Envelope, signer: string, at: Date): Promise<LogEntry> {
    const value = createHash('sha256').update(Buffer.from(payload, 'base64')).digest('hex');
    const spec = {
      envelopeHash: { algorithm: 'sha256', value },
      payloadHash: { algorithm: 'sha256', value },
      signatures: [{ signature: signatures[0]?.sig, verifier: Buffer.from(signer).toString('base64') }],
    };
    return this.#enter({ apiVersion: '0.0.1', kind: 'dsse', spec }, at);
  }

  /** @returns the annotation of cosign */
  async logPayload(
    { content, annotations = {} }: TestLayer,
    signer: string,
    at: Date,
    algorithm = 'sha256',
  ): Promise<string> {
    const value = createHash(algorithm).update(content).digest('hex');
    const spec = {
      data: { hash: { algorithm, value } },
      signature: {
        content: annotations['dev.cosignproject.cosign/signature'],
        publicKey: { content: Buffer.from(signer).toString('base64') },
      },
    };
    const entry = await this.#enter({ apiVersion: '0.0.1', kind: 'hashedrekord', spec }, at);
    const { body, integratedTime, logIndex, logID } = entry;
    const SignedEntryTimestamp = entry.verification.signedEntryTimestamp;
    return JSON.stringify({ SignedEntryTimestamp, Payload: { body, integratedTime, logIndex, logID } });
  }

  async #certified(options: KeylessOptions) {
    const { subject = WORKFLOW, certifiedAt = this.at(0), oldIssuer, withoutSct = false } = options;
    const issuer = 'issuer' in options ? options.issuer : ISSUER;
    const keys = ecKeys();
    const ctLog = withoutSct ? undefined : await initializeCTLog(this.#certificateLog, certifiedAt);
    const authority = await initializeCA(this.#authority, ctLog, certifiedAt);
    const extensions = [
      ...(issuer === undefined ? [] : [{ oid: ISSUER_OID, value: issuer }]),
      ...(oldIssuer === undefined ? [] : [{ oid: OLD_ISSUER_OID, value: oldIssuer, legacy: true }]),
    ];
    const publicKey = new Uint8Array(spki(keys.publicKey));
    const issued = await authority.issueCertificate({ publicKey, subjectAltName: subject, extensions });
    const loggedAt = options.loggedAt ?? new Date(certifiedAt.getTime() + MINUTE);
    return { keys, certificate: bytesOf(issued), loggedAt };
  }

  async #enter(entry: object, at: Date): Promise<LogEntry> {
    const log = await initializeTLog('https://rekor.test', this.#log, at);
    const [made] = Object.values(await log.log(entry)) as unknown as LogEntry[];
    if (made === undefined) throw new Error('the log made no entry');
    return made;
  }
}

function entryOf(entry: LogEntry, kind: string, version = '0.0.1'): Record<string, unknown> {
  const { inclusionProof: proof, signedEntryTimestamp } = entry.verification;
  return {
    logIndex: String(entry.logIndex),
    logId: { keyId: Buffer.from(entry.logID, 'hex').toString('base64') },
    kindVersion: { kind, version },
    integratedTime: String(entry.integratedTime),
    inclusionPromise: { signedEntryTimestamp },
    inclusionProof: {
      logIndex: String(proof.logIndex),
      rootHash: Buffer.from(proof.rootHash, 'hex').toString('base64'),
      treeSize: String(proof.treeSize),
      hashes: [],
      checkpoint: { envelope: proof.checkpoint },
    },
    canonicalizedBody: entry.body,
  };
}

export function keyPem({ publicKey }: KeyPair): string {
  return publicKey.export({ format: 'pem', type: 'spki' }).toString();
}

function spki(key: KeyObject): Buffer {
  return key.export({ format: 'der', type: 'spki' });
}

function pem(certificate: Buffer): string {
  return new X509Certificate(certificate).toString();
}

function bytesOf({ buffer, byteOffset, byteLength }: ArrayBufferView): Buffer {
  return Buffer.from(buffer, byteOffset, byteLength);
}
