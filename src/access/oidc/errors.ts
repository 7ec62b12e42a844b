/** Errors of a JWT, and of the issuer that should confirm it. */

export type JwtErrorCode =
  | 'too-large'
  /** It cannot be read, or a claim that must be there is missing or has the wrong type. */
  | 'malformed'
  /** Its `iss` is not, character for character, a configured one. */
  | 'unknown-issuer'
  /** Its `alg` is not one of those pinned for its issuer. */
  | 'algorithm'
  /** Its issuer does not publish the key that it names. */
  | 'unknown-key'
  | 'signature'
  | 'expired'
  | 'not-yet-valid'
  | 'audience';

/** A JWT that is refused. The message may be shown to the client: it repeats nothing from the JWT. */
export class JwtError extends Error {
  override readonly name = 'JwtError';
  readonly code: JwtErrorCode;

  // No `cause`: jose's errors hold all claims of the JWT, and a logger would print them.
  constructor(code: JwtErrorCode, message: string) {
    super(message);
    this.code = code;
  }
}

export type IssuerErrorCode =
  /** The keys are not available: no connection, no answer in time, or an answer that cannot be used. */
  | 'unavailable'
  /** The mirror is sealed and sends no requests. */
  | 'sealed';

/**
 * An outage: the JWT cannot be checked now. The message may be shown to the client; the reason is in the log, because
 * it can name internal hosts.
 */
export class IssuerError extends Error {
  override readonly name = 'IssuerError';
  readonly code: IssuerErrorCode;
  /** The issuer's name in the configuration. */
  readonly issuer: string;

  constructor(code: IssuerErrorCode, issuer: string) {
    const why =
      code === 'sealed' ? 'the mirror is sealed and asks no issuer' : 'its keys are not available now';
    super(`a JWT of the issuer ${issuer} cannot be checked: ${why}`);
    this.code = code;
    this.issuer = issuer;
  }
}
