/**
 * The identities that a Notation policy trusts: `x509.subject: C=US, ST=WA, O=acme`.
 *
 * https://github.com/notaryproject/specifications/blob/main/specs/trust-store-trust-policy.md
 */
import type { Certificate } from '@peculiar/asn1-x509';

/** Name in an identity → object identifier (RFC 4514, section 3). Notation takes `S` for `ST`. */
const ATTRIBUTES: ReadonlyMap<string, string> = new Map([
  ['CN', '2.5.4.3'],
  ['C', '2.5.4.6'],
  ['L', '2.5.4.7'],
  ['ST', '2.5.4.8'],
  ['S', '2.5.4.8'],
  ['STREET', '2.5.4.9'],
  ['O', '2.5.4.10'],
  ['OU', '2.5.4.11'],
]);
const PREFIX = 'x509.subject:';
/** A name, `=`, and a value in which `\` takes the next character as it is. */
const PART = /^\s*([A-Za-z]+)\s*=\s*((?:[^\\,+;"<>=#]|\\[ ,+;"<>=#\\])*?)\s*$/;

/** Object identifier → value. */
export type Identity = ReadonlyMap<string, string>;

/** Undefined: it cannot be read, names an attribute twice, or one that is not known. */
export function parseIdentity(text: string): Identity | undefined {
  if (!text.startsWith(PREFIX)) return undefined;
  const identity = new Map<string, string>();
  const subject = text.slice(PREFIX.length);
  // A comma separates, unless a backslash stands before it.
  const parts = subject.match(/(?:[^\\,]|\\.)+/gs) ?? [];
  if (parts.length === 0 || parts.join(',') !== subject) return undefined;
  for (const part of parts) {
    const [, name = '', value = ''] = PART.exec(part) ?? [];
    const oid = ATTRIBUTES.get(name.toUpperCase());
    const plain = value.replace(/\\(.)/gs, '$1');
    if (oid === undefined || plain === '' || identity.has(oid)) return undefined;
    identity.set(oid, plain);
  }
  return identity;
}

/**
 * Whether a certificate's subject has every attribute of the identity, each exactly once and with exactly this value. It
 * may have others.
 */
export function isIdentity(identity: Identity, { tbsCertificate }: Certificate): boolean {
  const attributes = tbsCertificate.subject.flatMap((part) => [...part]);
  return [...identity].every(([oid, wanted]) => {
    const [attribute, ...more] = attributes.filter(({ type }) => type === oid);
    if (attribute === undefined || more.length > 0) return false;
    // RFC 5280, 4.1.2.4: names are UTF8String or PrintableString. Programs read older types differently.
    const { utf8String, printableString } = attribute.value;
    return (utf8String ?? printableString) === wanted;
  });
}
