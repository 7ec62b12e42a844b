/**
 * Content digests: `sha256:<64 hex>` and `sha512:<128 hex>` (OCI image-spec, descriptor.md#digests).
 *
 * Only the functions here make a {@link Digest}, after checking it. So code that has one may use its parts in a file name.
 */
import { createHash, type Hash } from 'node:crypto';

declare const digestBrand: unique symbol;

/** A validated digest. Its hex digits are in lower case: two spellings of one digest would be two cache entries. */
export type Digest = string & { readonly [digestBrand]: never };

export type DigestAlgorithm = 'sha256' | 'sha512';

const HEX_LENGTH: Record<DigestAlgorithm, number> = { sha256: 64, sha512: 128 };
const DIGEST = /^(sha256|sha512):([a-f0-9]+)$/;

/** Reads a digest of a registered algorithm; `undefined` if `text` is not one. */
export function parseDigest(text: string): Digest | undefined {
  const match = DIGEST.exec(text);
  if (match === null) return undefined;
  const [, algorithm, hex] = match as unknown as [string, DigestAlgorithm, string];
  return hex.length === HEX_LENGTH[algorithm] ? (text as Digest) : undefined;
}

export function digestAlgorithm(digest: Digest): DigestAlgorithm {
  return digest.startsWith('sha512:') ? 'sha512' : 'sha256';
}

/** The hex digits, which are safe as a file name. */
export function digestHex(digest: Digest): string {
  return digest.slice(digest.indexOf(':') + 1);
}

export function digestOf(bytes: Uint8Array, algorithm: DigestAlgorithm = 'sha256'): Digest {
  return digestFrom(createHash(algorithm).update(bytes), algorithm);
}

/** Finishes `hash`, and returns its value as a digest. */
export function digestFrom(hash: Hash, algorithm: DigestAlgorithm): Digest {
  return `${algorithm}:${hash.digest('hex')}` as Digest;
}
