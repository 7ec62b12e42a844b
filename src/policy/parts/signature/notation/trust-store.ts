/** Reads the authorities that a Notation policy trusts. */
import { X509Certificate } from 'node:crypto';
import { FileError } from '../../../../files/errors.ts';
import { readPem } from '../reading/pem.ts';

/**
 * Certificates in PEM: of authorities, or ones that are signed by themselves.
 *
 * @param file named in errors
 * @throws {FileError}
 */
export function readTrustStore(content: Buffer, file: string): X509Certificate[] {
  return readPem(content, ['CERTIFICATE'], file).map(({ text, line }) => {
    let certificate: X509Certificate;
    try {
      certificate = new X509Certificate(text);
    } catch (cause) {
      throw new FileError(file, 'the certificate cannot be read: write the file anew', { line, cause });
    }
    if (!certificate.ca && !isSelfSigned(certificate))
      throw new FileError(file, 'not the certificate of an authority', { line });
    return certificate;
  });
}

/** Not `checkIssued`, which asks for the right to certify others. */
export function isSelfSigned(certificate: X509Certificate): boolean {
  return certificate.subject === certificate.issuer && certificate.verify(certificate.publicKey);
}

export function isIssuedBy(certificate: X509Certificate, authority: X509Certificate): boolean {
  return certificate.checkIssued(authority) && certificate.verify(authority.publicKey);
}
