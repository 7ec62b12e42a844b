/** Certificates, made while a test runs, so that neither a key nor an expiry date lies in the repository. */
import { generateKeyPairSync, type KeyObject, sign } from 'node:crypto';

/** PEM. */
export interface Certificate {
  cert: string;
  key: string;
}

/**
 * A certificate for `host` by itself.
 *
 * @param subject must differ where two are trusted at once: authorities are looked up by it
 * @param end when it expires: the beginning of an ISO date
 */
export function selfSigned(host: string, subject = host, end = '2120-01-01'): Certificate {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const ecdsaWithSha256 = sequence(Buffer.from('06082a8648ce3d040302', 'hex'));
  const commonName = sequence(Buffer.from('0603550403', 'hex'), der(0x0c, Buffer.from(subject)));
  const name = sequence(der(0x31, commonName));
  const time = (iso: string) => der(0x18, Buffer.from(`${iso.replace(/\D/g, '')}Z`));
  const validity = sequence(time('2020-01-01 00:00:00'), time(`${end} 00:00:00`));
  const alternativeNames = sequence(
    Buffer.from('0603551d11', 'hex'),
    der(0x04, sequence(der(0x82, Buffer.from(host)))),
  );
  const body = sequence(
    der(0xa0, Buffer.from('020102', 'hex')), // version 3
    der(0x02, Buffer.from([1])), // serial number
    ecdsaWithSha256,
    name, // of the issuer
    validity,
    name,
    publicKey.export({ type: 'spki', format: 'der' }),
    der(0xa3, sequence(alternativeNames)),
  );
  return {
    cert: pem(sequence(body, ecdsaWithSha256, bits(sign('sha256', body, privateKey)))),
    key: keyOf(privateKey),
  };
}

function keyOf(key: KeyObject): string {
  return key.export({ type: 'pkcs8', format: 'pem' }).toString();
}

function pem(bytes: Buffer): string {
  return `-----BEGIN CERTIFICATE-----\n${bytes.toString('base64').replace(/.{64}/g, '$&\n')}\n-----END CERTIFICATE-----\n`;
}

function bits(bytes: Buffer): Buffer {
  return der(0x03, Buffer.from([0]), bytes);
}

function sequence(...parts: Buffer[]): Buffer {
  return der(0x30, ...parts);
}

/** One value in ASN.1's DER: tag, length, content. */
function der(tag: number, ...parts: Buffer[]): Buffer {
  const content = Buffer.concat(parts);
  const { length } = content;
  const size =
    length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.from([tag, ...size]), content]);
}
