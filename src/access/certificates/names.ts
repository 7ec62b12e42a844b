/**
 * Reads the names in a certificate from its structure. The printed subject is not safe: in `CN=x,CN=build-1`, the
 * second name may be a part of the first, and many CAs let the client choose the text of the first.
 */
import { AsnConvert } from '@peculiar/asn1-schema';
import { type Certificate, id_ce_subjectAltName, SubjectAlternativeName } from '@peculiar/asn1-x509';

const COMMON_NAME = '2.5.4.3';
/** Control and format characters, which make two names look the same to people and to logs. */
const UNPRINTABLE = /[\p{C}\uFFFD]/u;
/** Alternative names are IA5String: visible ASCII. */
const VISIBLE = /^[\x21-\x7e]+$/;

/** `CN=…`, `DNS:…`, `URI:…` and `EMAIL:…` of a certificate. The common name counts only if there is exactly one. */
export function certificateNames({ tbsCertificate }: Certificate): string[] {
  const commonNames = tbsCertificate.subject
    .flatMap((part) => [...part])
    .filter(({ type }) => type === COMMON_NAME);
  const [commonName] = commonNames;
  // RFC 5280, 4.1.2.4: names are UTF8String or PrintableString. Programs read older types differently.
  const text = commonName?.value.utf8String ?? commonName?.value.printableString ?? '';
  const isName = commonNames.length === 1 && text !== '' && !UNPRINTABLE.test(text);
  return [...(isName ? [`CN=${text}`] : []), ...alternativeNames(tbsCertificate.extensions ?? [])];
}

function alternativeNames(extensions: NonNullable<Certificate['tbsCertificate']['extensions']>): string[] {
  const [extension, ...more] = extensions.filter(({ extnID }) => extnID === id_ce_subjectAltName);
  if (extension === undefined || more.length > 0) return [];
  return AsnConvert.parse(extension.extnValue, SubjectAlternativeName).flatMap((name) => [
    ...spelled('DNS', name.dNSName),
    ...spelled('URI', name.uniformResourceIdentifier),
    ...spelled('EMAIL', name.rfc822Name),
  ]);
}

function spelled(kind: string, text: string | undefined): string[] {
  return text !== undefined && VISIBLE.test(text) ? [`${kind}:${text}`] : [];
}
