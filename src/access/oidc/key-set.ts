/** The keys of one issuer, from its server or from a file. */
import {
  type CryptoKey,
  createLocalJWKSet,
  errors,
  type JSONWebKeySet,
  type JWSHeaderParameters,
} from 'jose';

/** The header of a JWT. Unverified. */
export type JwtHeader = JWSHeaderParameters;

/** Finds the one key that a header names; undefined if there is none. */
export type KeySet = (header: JwtHeader) => Promise<CryptoKey | undefined>;

/** Where the keys of an issuer come from. */
export interface KeySource {
  /**
   * The key that checks a JWT with this header.
   *
   * @throws {JwtError} `unknown-key`
   * @throws {IssuerError} the keys are not available
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
      // Treats several matching keys like none: if there are several, a JWT must name its key (OpenID Connect Core 1.0,
      // section 10.1). A key may also be damaged: WebCrypto then throws a DataError.
      if (error instanceof errors.JOSEError || error instanceof DOMException) return undefined;
      throw error;
    }
  };
}
