/**
 * Checks the certificates of a Notation signature, from the signer's to the root.
 *
 * https://github.com/notaryproject/specifications/blob/main/specs/signature-specification.md#certificate-requirements
 */

import type { X509Certificate } from 'node:crypto';
import { AsnConvert } from '@peculiar/asn1-schema';
import {
  BasicConstraints,
  Certificate,
  id_ce_basicConstraints,
  id_ce_certificatePolicies,
  id_ce_extKeyUsage,
  id_ce_keyUsage,
  id_ce_subjectAltName,
  KeyUsage,
  KeyUsageFlags,
} from '@peculiar/asn1-x509';
import { isIssuedBy, isSelfSigned } from './trust-store.ts';

const CODE_SIGNING = '1.3.6.1.5.5.7.3.3';
/** RSA (PKCS #1 1.5) and ECDSA, with SHA-256, SHA-384 and SHA-512. */
const ALGORITHMS: readonly string[] = [
  '1.2.840.113549.1.1.11',
  '1.2.840.113549.1.1.12',
  '1.2.840.113549.1.1.13',
  '1.2.840.10045.4.3.2',
  '1.2.840.10045.4.3.3',
  '1.2.840.10045.4.3.4',
];
/** What is critical and is none of these may limit the certificate in a way that we do not know. */
const KNOWN_EXTENSIONS: readonly string[] = [
  id_ce_basicConstraints,
  id_ce_certificatePolicies,
  id_ce_extKeyUsage,
  id_ce_keyUsage,
  id_ce_subjectAltName,
];

export interface Period {
  /** Milliseconds since the epoch. Includes both ends. */
  from: number;
  until: number;
}

/**
 * The time in which all certificates are valid. Undefined: the chain does not end at a root that signs itself, a
 * certificate may not be used so, or the trust store has none of them.
 *
 * @param chain the signer's first
 * @throws {Error} a certificate cannot be read
 */
export function periodOf(
  chain: readonly X509Certificate[],
  trustStore: readonly X509Certificate[],
): Period | undefined {
  if (chain.length === 0) return undefined;
  const isTrusted = chain.some(({ raw }) => trustStore.some((trusted) => trusted.raw.equals(raw)));
  const isWhole = chain.every((certificate, index) => {
    const issuer = chain[index + 1];
    return issuer === undefined
      ? isSelfSigned(certificate)
      : !isSelfSigned(certificate) && isIssuedBy(certificate, issuer);
  });
  if (!isTrusted || !isWhole || !chain.every(isUnderstood)) return undefined;
  // The first authority has no other below it, the second has one.
  const mayBeUsed = chain.every((certificate, index) => {
    return index === 0 ? maySign(certificate) : mayCertify(certificate, index - 1);
  });
  if (!mayBeUsed) return undefined;
  return {
    from: Math.max(...chain.map(({ validFromDate }) => validFromDate.getTime())),
    until: Math.min(...chain.map(({ validToDate }) => validToDate.getTime())),
  };
}

export function parseCertificate({ raw }: X509Certificate): Certificate {
  return AsnConvert.parse(raw, Certificate);
}

function maySign(certificate: X509Certificate): boolean {
  const usages = certificate.keyUsage; // the extended ones
  return (
    !certificate.ca &&
    hasUsage(certificate, KeyUsageFlags.digitalSignature) &&
    !hasUsage(certificate, KeyUsageFlags.keyCertSign) &&
    (usages === undefined || (usages.length === 1 && usages[0] === CODE_SIGNING))
  );
}

function mayCertify(certificate: X509Certificate, authoritiesBelow: number): boolean {
  const constraints = extensionOf(certificate, id_ce_basicConstraints);
  if (constraints === undefined) return false;
  const { cA, pathLenConstraint = authoritiesBelow } = AsnConvert.parse(
    constraints.extnValue,
    BasicConstraints,
  );
  return cA && pathLenConstraint >= authoritiesBelow && hasUsage(certificate, KeyUsageFlags.keyCertSign);
}

/** Refuses also what is not known of how the certificate may be used. */
function hasUsage(certificate: X509Certificate, flag: number): boolean {
  const extension = extensionOf(certificate, id_ce_keyUsage);
  if (extension?.critical !== true) return false;
  return (AsnConvert.parse(extension.extnValue, KeyUsage).toNumber() & flag) !== 0;
}

function extensionOf(certificate: X509Certificate, oid: string) {
  const [extension, ...more] = (parseCertificate(certificate).tbsCertificate.extensions ?? []).filter(
    ({ extnID }) => extnID === oid,
  );
  return more.length > 0 ? undefined : extension;
}

/** Whether a certificate is signed with a hash that is still safe, and demands nothing that we do not know. */
function isUnderstood(certificate: X509Certificate): boolean {
  const { signatureAlgorithm, tbsCertificate } = parseCertificate(certificate);
  return (
    ALGORITHMS.includes(signatureAlgorithm.algorithm) &&
    (tbsCertificate.extensions ?? []).every(
      ({ critical, extnID }) => !critical || KNOWN_EXTENSIONS.includes(extnID),
    )
  );
}
