/**
 * Reads what a signature of cosign is about, before anybody knows whether it is genuine.
 *
 * What is signed is only a signature if it says so, and names the manifest: an SBOM by the right key is none.
 */

import { createHash, X509Certificate } from 'node:crypto';
import { type Bundle, bundleFromJSON } from '@sigstore/bundle';
import { dsse } from '@sigstore/core';
import { type Digest, digestHex } from '../../../../oci/digest.ts';
import { arrayOf, type JsonObject, objectOf, parseObject, stringOf } from '../reading/json.ts';
import { invalid, type Outcome } from '../reading/outcome.ts';
import { BUNDLE } from '../reading/signatures.ts';

/** https://github.com/sigstore/cosign/blob/main/specs/BUNDLE_SPEC.md */
const SIGN_PREDICATE = 'https://sigstore.dev/cosign/sign/v1';
const IN_TOTO = 'application/vnd.in-toto+json';
const STATEMENTS: readonly unknown[] = [
  'https://in-toto.io/Statement/v1',
  'https://in-toto.io/Statement/v0.1',
];
/** https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md */
const SIMPLE_SIGNING_TYPE = 'cosign container image signature';
/** Real ones have one or two. Sigstore's library compares each with each. */
const MAX_ENTRIES = 8;

/** Something signed that says it is a signature of the manifest. */
export interface Claim {
  bundle: Bundle;
  /** The bytes that the signature is over. */
  signed: Buffer;
}

/** @returns undefined for an attestation, which is not a signature of an image */
export function claimOfBundle(content: Buffer, sha256: Digest): Claim | Outcome | undefined {
  const json = parseObject(content);
  if (json === undefined || json['mediaType'] !== BUNDLE || hasTooMuch(json)) return invalid('unreadable');
  let bundle: Bundle;
  try {
    bundle = bundleFromJSON(json);
  } catch {
    return invalid('unreadable');
  }
  if (bundle.content.$case !== 'dsseEnvelope') return invalid('unreadable');
  const { payload, payloadType } = bundle.content.dsseEnvelope;
  const statement = payloadType === IN_TOTO ? parseObject(payload) : undefined;
  if (statement === undefined || !STATEMENTS.includes(statement['_type'])) return invalid('unreadable');
  if (statement['predicateType'] !== SIGN_PREDICATE) return undefined;
  const isAboutIt = arrayOf(statement['subject']).some(
    (subject) => objectOf(objectOf(subject)?.['digest'])?.['sha256'] === digestHex(sha256),
  );
  if (!isAboutIt) return invalid('other-digest');
  return { bundle, signed: dsse.preAuthEncoding(payloadType, payload) };
}

function hasTooMuch({ verificationMaterial }: JsonObject): boolean {
  const material = objectOf(verificationMaterial);
  const stamps = objectOf(material?.['timestampVerificationData'])?.['rfc3161Timestamps'];
  return arrayOf(material?.['tlogEntries']).length > MAX_ENTRIES || arrayOf(stamps).length > MAX_ENTRIES;
}

/** @param annotations of the layer: signature, certificate and log entry */
export function claimOfSimpleSigning(
  payload: Buffer,
  annotations: JsonObject,
  sha256: Digest,
): Claim | Outcome {
  const critical = objectOf(parseObject(payload)?.['critical']);
  if (critical?.['type'] !== SIMPLE_SIGNING_TYPE) return invalid('unreadable');
  if (objectOf(critical['image'])?.['docker-manifest-digest'] !== sha256) return invalid('other-digest');
  try {
    return { bundle: bundleOf(payload, annotations), signed: payload };
  } catch {
    return invalid('unreadable');
  }
}

/** Puts the old form into one that Sigstore's library reads. @throws {Error} it cannot be read */
function bundleOf(payload: Buffer, annotations: JsonObject): Bundle {
  const certificate = stringOf(annotations['dev.sigstore.cosign/certificate']);
  const entry = stringOf(annotations['dev.sigstore.cosign/bundle']);
  const rawBytes = certificate && new X509Certificate(certificate).raw.toString('base64');
  const logged = entry === undefined ? undefined : logEntryOf(parseObject(entry) ?? {});
  return bundleFromJSON({
    mediaType: 'application/vnd.dev.sigstore.bundle+json;version=0.1',
    messageSignature: {
      messageDigest: messageDigestOf(payload, logged),
      signature: annotations['dev.cosignproject.cosign/signature'],
    },
    verificationMaterial: {
      ...(rawBytes
        ? { x509CertificateChain: { certificates: [{ rawBytes }] } }
        : { publicKey: { hint: '' } }),
      tlogEntries: logged === undefined ? [] : [logged],
    },
  });
}

/** With the hash that the log entry has, so that the two can be compared: it depends on the key. */
function messageDigestOf(payload: Buffer, logged: JsonObject | undefined): JsonObject {
  const spec = objectOf(bodyOf(logged?.['canonicalizedBody'])['spec']);
  const named = stringOf(objectOf(objectOf(spec?.['data'])?.['hash'])?.['algorithm']) ?? '';
  const hash = ['sha384', 'sha512'].includes(named) ? named : 'sha256';
  const digest = createHash(hash).update(payload).digest('base64');
  return { algorithm: hash.replace('sha', 'SHA2_'), digest };
}

function bodyOf(base64: unknown): JsonObject {
  return parseObject(Buffer.from(stringOf(base64) ?? '', 'base64')) ?? {};
}

function logEntryOf(entry: JsonObject): JsonObject {
  const { body, integratedTime, logIndex, logID } = objectOf(entry['Payload']) ?? {};
  const { kind, apiVersion } = bodyOf(body);
  return {
    logIndex: String(logIndex),
    logId: { keyId: Buffer.from(stringOf(logID) ?? '', 'hex').toString('base64') },
    kindVersion: { kind, version: apiVersion },
    integratedTime: String(integratedTime),
    inclusionPromise: { signedEntryTimestamp: entry['SignedEntryTimestamp'] },
    canonicalizedBody: body,
  };
}
