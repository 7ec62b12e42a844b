/**
 * Compares the signer of a log entry with the signer of a signature.
 *
 * `@sigstore/verify` does not: an entry under another key would count, which those who watch the log for their own key
 * or name would never see.
 */

import { createPublicKey, type KeyObject, X509Certificate } from 'node:crypto';
import type { Bundle } from '@sigstore/bundle';
import { arrayOf, type JsonObject, objectOf, parseObject, stringOf } from '../reading/json.ts';

/** @param certificate of the signer, in DER; undefined: it has only a key */
export function isLoggedFor(bundle: Bundle, key: KeyObject, certificate?: Buffer): boolean {
  return bundle.verificationMaterial.tlogEntries.every(({ canonicalizedBody }) => {
    const logged = signerOf(parseObject(canonicalizedBody) ?? {});
    return certificate === undefined
      ? logged !== undefined && keyOf(logged).equals(key)
      : logged instanceof X509Certificate && logged.raw.equals(certificate);
  });
}

function keyOf(signer: X509Certificate | KeyObject): KeyObject {
  return signer instanceof X509Certificate ? signer.publicKey : signer;
}

/** @throws {Error} it cannot be read */
function signerOf({ kind, apiVersion, spec }: JsonObject): X509Certificate | KeyObject | undefined {
  const fields = objectOf(spec) ?? {};
  switch (`${stringOf(kind)} ${stringOf(apiVersion)}`) {
    case 'hashedrekord 0.0.1':
      return ofPem(at(fields, 'signature', 'publicKey')['content']);
    case 'dsse 0.0.1':
      return ofPem(first(fields['signatures'])['verifier']);
    case 'intoto 0.0.2':
      return ofPem(first(at(fields, 'content', 'envelope')['signatures'])['publicKey']);
    case 'hashedrekord 0.0.2':
      return ofDer(at(fields, 'hashedRekordV002', 'signature', 'verifier'));
    case 'dsse 0.0.2':
      return ofDer(at(first(at(fields, 'dsseV002')['signatures']), 'verifier'));
    default:
      return undefined;
  }
}

function at(object: JsonObject, ...path: readonly string[]): JsonObject {
  return path.reduce((inner, name) => objectOf(inner[name]) ?? {}, object);
}

function first(array: unknown): JsonObject {
  return objectOf(arrayOf(array)[0]) ?? {};
}

/** @param base64 of PEM */
function ofPem(base64: unknown): X509Certificate | KeyObject {
  const text = Buffer.from(stringOf(base64) ?? '', 'base64').toString('utf8');
  return text.includes('BEGIN CERTIFICATE') ? new X509Certificate(text) : createPublicKey(text);
}

function ofDer(verifier: JsonObject): X509Certificate | KeyObject {
  const certificate = stringOf(at(verifier, 'x509Certificate')['rawBytes']);
  if (certificate !== undefined) return new X509Certificate(Buffer.from(certificate, 'base64'));
  const key = Buffer.from(stringOf(at(verifier, 'publicKey')['rawBytes']) ?? '', 'base64');
  return createPublicKey({ key, format: 'der', type: 'spki' });
}
