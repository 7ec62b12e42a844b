/** Finds the identity that the credentials of a request prove. What kind they are is told by their form alone. */

import type { Credentials } from '../credentials/credentials.ts';
import type { PasswordClient } from '../credentials/passwords/users.ts';
import { isTokenSecret } from '../credentials/tokens/token-lines.ts';
import { AuthenticationError } from '../errors.ts';
import { JwtError } from '../oidc/errors.ts';
import type { OidcSession } from '../oidc/issuer.ts';
import type { Issuers } from '../oidc/issuers.ts';
import { classify } from '../oidc/secret-form.ts';
import { TokenError } from '../tokens/errors.ts';
import type { MirrorTokens } from '../tokens/mirror-tokens.ts';
import type { NamedOrigin, TokenOrigin } from '../tokens/origin.ts';
import { credentialsOf } from './authorization-header.ts';

export interface AuthenticationContext {
  credentials: Credentials;
  /** Undefined if none is configured. */
  issuers: Issuers | undefined;
  tokens: MirrorTokens;
}

export interface AuthenticationClient {
  /** Undefined: unknown behind its proxies, or on a Unix socket. All of these count as one for failed logins. */
  readonly address: string | undefined;
  readonly signal?: AbortSignal | undefined;
}

const NO_ADDRESS = '';
const BEARER = 'Bearer ';

export class Authentication {
  readonly #context: AuthenticationContext;

  constructor(context: AuthenticationContext) {
    this.#context = context;
  }

  /** The identity of a request whose access token was checked a moment ago; undefined: ask {@link ofRequest}. */
  recall(header: string): TokenOrigin | undefined {
    return header.startsWith(BEARER)
      ? this.#context.tokens.recallAccess(header.slice(BEARER.length))
      : undefined;
  }

  /**
   * The identity of a request for a resource.
   *
   * @param header `Authorization`
   * @throws {AuthenticationError} it cannot be read, or what it holds is wrong
   * @throws {TooManyAttemptsError} {IssuerError}
   */
  async ofRequest(header: string, client: AuthenticationClient): Promise<TokenOrigin> {
    const presented = credentialsOf(header);
    return 'password' in presented ? this.ofPassword(presented, client) : this.#ofBearer(presented.token);
  }

  /**
   * The identity of a user name and a password; the password may be a robot token, a JWT, or a refresh token.
   *
   * @throws {AuthenticationError} they are wrong
   * @throws {TooManyAttemptsError} {IssuerError}
   */
  async ofPassword(
    { user, password }: { user: string; password: string },
    client: AuthenticationClient,
  ): Promise<NamedOrigin> {
    switch (classify(password)) {
      case 'robot-token':
        return this.#ofRobotToken(password);
      case 'jwt':
        return this.#ofJwt(password);
      case 'password':
        return this.#ofUser(user, password, client);
    }
  }

  /** The session of a refresh token. @throws {AuthenticationError} */
  ofRefreshToken(token: string): Promise<OidcSession> {
    return refusing(() => this.#context.tokens.verifyRefresh(token));
  }

  /** Nearly all requests come here with an access token, so nothing looks at its text before it is found in memory. */
  async #ofBearer(token: string): Promise<TokenOrigin> {
    if (isTokenSecret(token)) return this.#ofRobotToken(token);
    try {
      return await this.#context.tokens.verifyAccess(token);
    } catch (error) {
      if (!(error instanceof TokenError)) throw error;
      const what =
        error.code === 'foreign'
          ? 'the token is not from this mirror: exchange it at the token endpoint, or send it as a password'
          : error.message;
      throw new AuthenticationError(what);
    }
  }

  async #ofRobotToken(secret: string): Promise<NamedOrigin> {
    const identity = await this.#context.credentials.tokens?.identify(secret);
    if (identity === 'expired')
      throw new AuthenticationError('the robot token has expired: ask for a new one');
    if (identity === undefined || identity === 'unknown')
      throw new AuthenticationError('the robot token is not known here, or was revoked');
    return identity;
  }

  #ofJwt(jwt: string): Promise<OidcSession> {
    const { tokens, issuers } = this.#context;
    return refusing(() => {
      if (tokens.isOwn(jwt)) return tokens.verifyRefresh(jwt);
      if (issuers === undefined)
        throw new AuthenticationError('the password is a JWT, and no issuer of JWTs is configured here');
      return issuers.beginSession(jwt);
    });
  }

  async #ofUser(user: string, password: string, client: AuthenticationClient): Promise<NamedOrigin> {
    const checked: PasswordClient = { ...client, address: client.address ?? NO_ADDRESS };
    const identity = await this.#context.credentials.users?.identify(user, password, checked);
    if (identity === 'too-long') throw new AuthenticationError('a password has at most 72 bytes');
    if (identity === undefined || identity === 'wrong')
      throw new AuthenticationError('the user name or the password is wrong');
    return identity;
  }
}

/** Runs a check of a token. A refusal becomes an {@link AuthenticationError}; an outage stays what it is. */
async function refusing<T>(check: () => Promise<T>): Promise<T> {
  try {
    return await check();
  } catch (error) {
    if (error instanceof TokenError || error instanceof JwtError)
      throw new AuthenticationError(error.message);
    throw error;
  }
}
