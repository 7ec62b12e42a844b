/** Errors of logins. */

/** Refused without a check, because too many attempts wait already. Becomes 429 with `Retry-After`. */
export class TooManyAttemptsError extends Error {
  override readonly name = 'TooManyAttemptsError';
  readonly retryAfterMs: number;

  constructor(retryAfterMs: number) {
    super(`too many login attempts: try again in ${Math.ceil(retryAfterMs / 1000)} s`);
    this.retryAfterMs = retryAfterMs;
  }
}

/** The credentials of a request are refused. The message may be shown to the client: it repeats nothing of them. */
export class AuthenticationError extends Error {
  override readonly name = 'AuthenticationError';
}
