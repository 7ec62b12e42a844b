/**
 * Reads who a certificate of Fulcio is for.
 *
 * From its structure and in full: `@sigstore/verify` drops the top bit of each byte, and takes the first of several names.
 */

import { AsnConvert } from '@peculiar/asn1-schema';
import {
  Certificate,
  DirectoryString,
  ExtendedKeyUsage,
  id_ce_extKeyUsage,
  id_ce_subjectAltName,
  SubjectAlternativeName,
} from '@peculiar/asn1-x509';

/** https://github.com/sigstore/fulcio/blob/main/docs/oid-info.md */
const ISSUER_V1 = '1.3.6.1.4.1.57264.1.1';
const ISSUER_V2 = '1.3.6.1.4.1.57264.1.8';
const CODE_SIGNING = '1.3.6.1.5.5.7.3.3';
/** A URL or a mail address. */
const VISIBLE = /^[\x21-\x7e]+$/;

export interface Signer {
  /** A URL or a mail address. */
  subject: string;
  /** Who has proved that; a URL. */
  issuer: string;
}

/** Undefined: the certificate is not one for signing code by exactly one name. @throws {Error} it cannot be read */
export function signerOf(der: Buffer): Signer | undefined {
  const { tbsCertificate } = AsnConvert.parse(der, Certificate);
  const extensions = tbsCertificate.extensions ?? [];
  const valueOf = (oid: string) => {
    const [extension, ...more] = extensions.filter(({ extnID }) => extnID === oid);
    return more.length > 0 ? undefined : extension?.extnValue;
  };
  const alternativeNames = valueOf(id_ce_subjectAltName);
  const newer = valueOf(ISSUER_V2);
  const older = valueOf(ISSUER_V1);
  const usages = valueOf(id_ce_extKeyUsage);
  if (alternativeNames === undefined || usages === undefined) return undefined;
  if (!AsnConvert.parse(usages, ExtendedKeyUsage).includes(CODE_SIGNING)) return undefined;
  const [name, ...more] = AsnConvert.parse(alternativeNames, SubjectAlternativeName);
  const subject = name?.uniformResourceIdentifier ?? name?.rfc822Name ?? '';
  const issuer =
    newer === undefined
      ? Buffer.from(older?.buffer ?? new ArrayBuffer()).toString('utf8')
      : (AsnConvert.parse(newer, DirectoryString).utf8String ?? '');
  return more.length === 0 && VISIBLE.test(subject) && VISIBLE.test(issuer) ? { subject, issuer } : undefined;
}
