/** The keys of one issuer, wherever they come from. */
import {
  type CryptoKey,
  createLocalJWKSet,
  errors,
  type JSONWebKeySet,
  type JWSHeaderParameters,
} from 'jose';

/** What a JWT says of its signature. Unverified. */
export type JwtHeader = JWSHeaderParameters;

/** The one key that a header means; undefined if there is none. */
export type KeySet = (header: JwtHeader) => Promise<CryptoKey | undefined>;

/** Where the keys of an issuer come from. */
export interface KeySource {
  /**
   * The key that checks a JWT with this header.
   *
   * @throws {JwtError} `unknown-key`
   * @throws {IssuerError} the keys cannot be had
   */
  find(header: JwtHeader): Promise<CryptoKey>;
}

/** @throws {Error} `document` is not a JWK set (RFC 7517, section 5) */
export function readKeySet(document: unknown): KeySet {
  const find = createLocalJWKSet(document as JSONWebKeySet);
  return async (header) => {
    try {
      return await find(header);
    } catch (error) {
      // Several keys that fit are as bad as none: where there are several, a JWT must name its key
      // (OpenID Connect Core 1.0, section 10.1). A single key may also be damaged, which WebCrypto tells by a DataError.
      if (error instanceof errors.JOSEError || error instanceof DOMException) return undefined;
      throw error;
    }
  };
}
