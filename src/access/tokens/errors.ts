/** Why a token of the mirror's own is refused, and why the key that signs them cannot be used. */

export type TokenErrorCode =
  /** This mirror has not issued it: it cannot be read, or the signature is wrong. */
  | 'foreign'
  /** It is one of ours for another purpose, such as a refresh token in place of an access token. */
  | 'wrong-kind'
  /** It, or the session that it belongs to, has ended. */
  | 'expired'
  /** What it came from is gone or has changed: the user, the robot token, the issuer. */
  | 'revoked';

/** A token that is refused. The message may be shown to the client. */
export class TokenError extends Error {
  override readonly name = 'TokenError';
  readonly code: TokenErrorCode;

  constructor(code: TokenErrorCode, message: string) {
    super(message);
    this.code = code;
  }
}

/** The mirror cannot start: it would have nothing to sign its tokens with. */
export class SigningKeyError extends Error {
  override readonly name = 'SigningKeyError';
}
