/** Public keys, and whether something is signed by one. */
import { createPublicKey, type KeyObject, verify } from 'node:crypto';
import { ed25519ph } from '@noble/curves/ed25519.js';
import { FileError } from '../../../../files/errors.ts';
import { readPem } from '../reading/pem.ts';

const CURVES: readonly (string | undefined)[] = ['prime256v1', 'secp384r1', 'secp521r1'];
const RSA_MIN_BITS = 2048;
/** cosign signs with SHA-256, or with the hash of the key's size; some key services with a larger one. */
const HASHES = ['sha256', 'sha384', 'sha512'];

/**
 * Reads a file with one public key in PEM: ECDSA on P-256, P-384 or P-521, RSA from 2048 bits on, Ed25519.
 *
 * @param file named in errors
 * @throws {FileError}
 */
export function readPublicKey(content: Buffer, file: string): KeyObject {
  const [block, more] = readPem(content, ['PUBLIC KEY', 'RSA PUBLIC KEY'], file);
  if (more !== undefined) {
    const problem = 'holds more than one key: write each into a file of its own';
    throw new FileError(file, problem, { line: more.line });
  }
  const { text, line } = block;
  let key: KeyObject;
  try {
    key = createPublicKey(text);
  } catch (cause) {
    throw new FileError(file, 'the key cannot be read: write the file anew', { line, cause });
  }
  if (!isSupported(key)) {
    const problem =
      'not a key that is supported: ECDSA P-256, P-384 or P-521, RSA from 2048 bits on, or Ed25519';
    throw new FileError(file, problem, { line });
  }
  return key;
}

function isSupported({ asymmetricKeyType, asymmetricKeyDetails = {} }: KeyObject): boolean {
  const { namedCurve, modulusLength = 0 } = asymmetricKeyDetails;
  if (asymmetricKeyType === 'ec') return CURVES.includes(namedCurve);
  return asymmetricKeyType === 'rsa' ? modulusLength >= RSA_MIN_BITS : asymmetricKeyType === 'ed25519';
}

/**
 * Whether `signature` is one of `data` by `key`. RSA with the padding of PKCS #1 1.5; Ed25519 also over a hash of the data
 * (Ed25519ph), as cosign 3 has it and OpenSSL does not.
 */
export function isSignedBy(key: KeyObject, data: Buffer, signature: Buffer): boolean {
  if (key.asymmetricKeyType !== 'ed25519') return HASHES.some((hash) => verify(hash, data, key, signature));
  if (verify(null, data, key, signature)) return true;
  const point = Buffer.from(key.export({ format: 'jwk' }).x ?? '', 'base64url');
  return ed25519ph.verify(signature, data, point, { zip215: false });
}
