/** Certificate revocation lists (RFC 5280, section 5). */
import { verify, type X509Certificate } from 'node:crypto';
import { AsnConvert } from '@peculiar/asn1-schema';
import { CertificateList } from '@peculiar/asn1-x509';

/** The signature algorithms that are accepted: the key that each is for, and its hash, unless it has its own. */
const ALGORITHMS: ReadonlyMap<string, readonly [keyType: string, hash: string | null]> = new Map([
  ['1.2.840.113549.1.1.11', ['rsa', 'sha256']],
  ['1.2.840.113549.1.1.12', ['rsa', 'sha384']],
  ['1.2.840.113549.1.1.13', ['rsa', 'sha512']],
  ['1.2.840.10045.4.3.2', ['ec', 'sha256']],
  ['1.2.840.10045.4.3.3', ['ec', 'sha384']],
  ['1.2.840.10045.4.3.4', ['ec', 'sha512']],
  ['1.3.101.112', ['ed25519', null]],
  ['1.3.101.113', ['ed448', null]],
]);

export class RevocationList {
  /** Milliseconds. Outside of this time the list is not valid, and certificates that need it cannot be verified. */
  readonly from: number;
  readonly until: number;
  readonly #list: CertificateList;
  readonly #revoked: ReadonlySet<string>;

  /**
   * @param der one list
   * @throws {Error} it cannot be read, or has an extension that changes its meaning
   */
  constructor(der: Buffer) {
    // Raises the limit of 10 000 values, which is for input of strangers: a list of 4 000 certificates exceeds it.
    const berOptions = { maxNodes: der.length };
    this.#list = AsnConvert.parse(der, CertificateList, { berOptions });
    const { thisUpdate, nextUpdate, revokedCertificates = [], crlExtensions = [] } = this.#list.tbsCertList;
    // It may be a part of a list, or a list of other authorities. A certificate that is not on it may then be revoked.
    const critical = crlExtensions.find((extension) => extension.critical);
    if (critical !== undefined) throw new Error(`it has the critical extension ${critical.extnID}`);
    this.from = thisUpdate.getTime().getTime();
    this.until = nextUpdate?.getTime().getTime() ?? Number.POSITIVE_INFINITY;
    this.#revoked = new Set(revokedCertificates.map(({ userCertificate }) => serialText(userCertificate)));
  }

  isSignedBy({ publicKey }: X509Certificate): boolean {
    const { signatureAlgorithm, signature, tbsCertListRaw, tbsCertList } = this.#list;
    const [keyType, hash] = ALGORITHMS.get(signatureAlgorithm.algorithm) ?? [];
    if (hash === undefined || tbsCertListRaw === undefined || keyType !== publicKey.asymmetricKeyType)
      return false;
    if (!signatureAlgorithm.isEqual(tbsCertList.signature)) return false;
    return verify(hash, Buffer.from(tbsCertListRaw), publicKey, Buffer.from(signature));
  }

  /** @param serial of a certificate by the authority that signed this list */
  isRevoked(serial: ArrayBuffer): boolean {
    return this.#revoked.has(serialText(serial));
  }
}

/** DER has one encoding for each number. */
function serialText(serial: ArrayBuffer): string {
  return Buffer.from(serial).toString('hex');
}
