/**
 * Gives out the mirror's own tokens for credentials: what a client does after it was told where to get a token.
 *
 * Source: the registry token protocol ("Docker Registry v2 authentication", distribution), by GET and by POST (OAuth 2).
 */

import { AuthenticationError } from '../errors.ts';
import type { MirrorTokens } from '../tokens/mirror-tokens.ts';
import type { NamedOrigin, TokenOrigin } from '../tokens/origin.ts';
import type { Authentication, AuthenticationClient } from './authentication.ts';
import { credentialsOf } from './authorization-header.ts';

/** What a client asks the token endpoint for. */
export interface TokenRequest {
  /** The header `Authorization`, or what a form has instead. Undefined: an anonymous client. */
  credentials: { header: string } | { user: string; password: string } | { refreshToken: string } | undefined;
  /** Whether it names a scope. `docker login` and `podman login` do not. */
  hasScope: boolean;
  /** Whether it asks for a refresh token. */
  offline: boolean;
}

export interface GrantedToken {
  accessToken: string;
  refreshToken: string | undefined;
  /** Seconds. */
  expiresIn: number;
  /** Milliseconds since the epoch. */
  issuedAt: number;
}

export class TokenExchange {
  readonly #authentication: Authentication;
  readonly #tokens: MirrorTokens;

  constructor(authentication: Authentication, tokens: MirrorTokens) {
    this.#authentication = authentication;
    this.#tokens = tokens;
  }

  /**
   * @param mayBeAnonymous whether some rule lets an anonymous client of this address and certificate pull something
   * @throws {AuthenticationError} the credentials are wrong, or there are none and anonymous clients may do nothing
   * @throws {TooManyAttemptsError} {IssuerError}
   */
  async grant(
    request: TokenRequest,
    client: AuthenticationClient,
    mayBeAnonymous: boolean,
  ): Promise<GrantedToken> {
    const origin = await this.#originOf(request, client, mayBeAnonymous);
    const access = await this.#tokens.issueAccess(origin);
    // Users and robot tokens get none: their clients then keep the password itself, which pull secrets need.
    const refresh =
      request.offline && origin.kind === 'oidc' ? await this.#tokens.issueRefresh(origin) : undefined;
    return { ...access, accessToken: access.token, refreshToken: refresh?.token };
  }

  async #originOf(
    request: TokenRequest,
    client: AuthenticationClient,
    mayBeAnonymous: boolean,
  ): Promise<TokenOrigin> {
    if (request.credentials === undefined) {
      if (mayBeAnonymous) return { kind: 'anonymous', unknownCredentials: false };
      throw new AuthenticationError('log in: nothing may be pulled here without credentials');
    }
    try {
      return await this.#prove(request.credentials, client);
    } catch (error) {
      // Clients send the credentials that they have for this host, even wrong ones, to pull a public image.
      if (!(error instanceof AuthenticationError) || !request.hasScope || !mayBeAnonymous) throw error;
      return { kind: 'anonymous', unknownCredentials: true };
    }
  }

  async #prove(
    credentials: NonNullable<TokenRequest['credentials']>,
    client: AuthenticationClient,
  ): Promise<NamedOrigin> {
    if ('refreshToken' in credentials) return this.#authentication.ofRefreshToken(credentials.refreshToken);
    const presented = 'header' in credentials ? credentialsOf(credentials.header) : credentials;
    if ('token' in presented)
      throw new AuthenticationError('the token endpoint takes Basic credentials, or a form by POST');
    return this.#authentication.ofPassword(presented, client);
  }
}
