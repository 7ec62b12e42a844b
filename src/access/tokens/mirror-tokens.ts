/**
 * The mirror's own tokens: access tokens, which clients show with every request, and refresh tokens, which clients
 * exchange for them. A token does not state what it allows: rules and revocation are checked for every request.
 */
import { decodeJwt, errors, jwtVerify, SignJWT } from 'jose';
import { LRUCache } from 'lru-cache';
import type { Clock } from '../../clock.ts';
import type { OidcSession } from '../oidc/issuer.ts';
import { TokenError } from './errors.ts';
import type { IsCurrent, TokenOrigin } from './origin.ts';
import type { SigningKey } from './signing-key.ts';

const ACCESS_LIFETIME_SECONDS = 3600;
/** "A token should never be returned with less than 60 seconds to live" (distribution, token specification). */
const MIN_LIFETIME_SECONDS = 60;
/** Has room for claims of 4 KiB and everything else. A longer token is not ours. */
const MAX_LENGTH = 8 * 1024;
/**
 * Enough for 5000 tokens in use at a time. A forgotten token costs another signature check, a tenth of a millisecond.
 */
const REMEMBERED_BYTES = 8 * 1024 * 1024;
/** Memory that a token takes besides its text: the objects of its origin, and the cache entry. */
const ENTRY_BYTES = 512;

/** How long a token counts as not revoked after a check. It must end within 5 s, and the files take 3 of them. */
const CURRENT_MS = 1_000;

const KEY_LENGTH = 32;

type TokenKind = 'access' | 'refresh';

export interface IssuedToken {
  readonly token: string;
  /** Seconds from `issuedAt`: at least 60, at most 3600 for an access token. */
  readonly expiresIn: number;
  /** Milliseconds since the epoch; whole seconds. */
  readonly issuedAt: number;
}

interface Verified {
  readonly token: string;
  readonly origin: TokenOrigin;
  /** Milliseconds since the epoch. */
  readonly expiresAt: number;
  /** When its origin was last seen to be still there; milliseconds since the epoch. */
  currentAt: number;
}

export interface MirrorTokensContext {
  clock: Clock;
  isCurrent: IsCurrent;
}

export class MirrorTokens {
  readonly #key: SigningKey;
  readonly #context: MirrorTokensContext;
  /**
   * Access tokens by the end of their text, so that a signature is checked once and not with every request. To look a
   * whole token up would cost a hit 1.02 times the CPU.
   */
  readonly #verified = new LRUCache<string, Verified>({
    maxSize: REMEMBERED_BYTES,
    // The origin repeats most of the token.
    sizeCalculation: ({ token }) => 2 * token.length + ENTRY_BYTES,
  });

  constructor(key: SigningKey, context: MirrorTokensContext) {
    this.#key = key;
    this.#context = context;
  }

  /**
   * A token of an hour, or of what is left of the session.
   *
   * @throws {TokenError} `expired`: less than a minute of the session is left
   */
  issueAccess(origin: TokenOrigin): Promise<IssuedToken> {
    return this.#issue('access', origin, ACCESS_LIFETIME_SECONDS);
  }

  /**
   * A token for the rest of the session. Users and robot tokens get none: their clients then keep the password itself,
   * so that `config.json` can be made a pull secret.
   *
   * @throws {TokenError} `expired`: less than a minute of the session is left
   */
  issueRefresh(session: OidcSession): Promise<IssuedToken> {
    return this.#issue('refresh', session, Number.POSITIVE_INFINITY);
  }

  /**
   * What an access token came from, without waiting. Undefined: it is not known, or must be checked again.
   *
   * Nearly every request is answered here: a chain of promises for each would cost half as much again as a warm manifest.
   */
  recallAccess(token: string): TokenOrigin | undefined {
    const verified = this.#remembered(token);
    if (verified === undefined) return undefined;
    const now = this.#context.clock.now();
    const sinceCheck = now - verified.currentAt;
    const isRecent = sinceCheck >= 0 && sinceCheck < CURRENT_MS; // the clock may be turned back
    return isRecent && now < verified.expiresAt ? verified.origin : undefined;
  }

  /**
   * What an access token came from, checked for every request.
   *
   * @throws {TokenError}
   */
  async verifyAccess(token: string): Promise<TokenOrigin> {
    let verified = this.#remembered(token);
    if (verified === undefined) {
      verified = await this.#verify('access', token);
      this.#verified.set(keyOf(token), verified);
    }
    if (verified.expiresAt <= this.#context.clock.now()) {
      this.#verified.delete(keyOf(token));
      throw new TokenError('expired', 'the access token has expired');
    }
    const origin = await this.#unrevoked(verified.origin);
    verified.currentAt = this.#context.clock.now();
    return origin;
  }

  /**
   * The session of a refresh token, also if it comes as a password (podman keeps nothing else).
   *
   * @throws {TokenError}
   */
  async verifyRefresh(token: string): Promise<OidcSession> {
    const { origin } = await this.#verify('refresh', token);
    if (origin.kind !== 'oidc') throw new TokenError('foreign', 'the refresh token belongs to no session');
    return this.#unrevoked(origin);
  }

  #remembered(token: string): Verified | undefined {
    const verified = this.#verified.get(keyOf(token));
    return verified?.token === token ? verified : undefined;
  }

  /** Whether a JWT says that it is from this mirror. Nothing is verified: it only selects the check. */
  isOwn(jwt: string): boolean {
    try {
      return jwt.length <= MAX_LENGTH && decodeJwt(jwt).iss === this.#key.id;
    } catch {
      return false;
    }
  }

  async #issue(kind: TokenKind, origin: TokenOrigin, lifetimeSeconds: number): Promise<IssuedToken> {
    const now = this.#context.clock.now();
    const issuedAt = Math.floor(now / 1000);
    const end = origin.kind === 'oidc' ? Math.floor(origin.endsAt / 1000) : Number.POSITIVE_INFINITY;
    const expiresAt = Math.min(issuedAt + lifetimeSeconds, end);
    // Clients take every lifetime for a minute at least, so a shorter token would outlive the session.
    if (expiresAt - now / 1000 < MIN_LIFETIME_SECONDS)
      throw new TokenError('expired', 'the session has ended: log in again');
    const token = await new SignJWT({ origin })
      .setProtectedHeader({ alg: this.#key.algorithm, typ: typOf(kind) })
      .setIssuer(this.#key.id)
      .setAudience(this.#audience(kind))
      .setIssuedAt(issuedAt)
      .setExpirationTime(expiresAt)
      .sign(this.#key.privateKey);
    return { token, expiresIn: expiresAt - issuedAt, issuedAt: issuedAt * 1000 };
  }

  async #verify(kind: TokenKind, token: string): Promise<Verified> {
    const { algorithm, id, publicKey } = this.#key;
    if (!this.isOwn(token)) throw new TokenError('foreign', `the ${kind} token is not from this mirror`);
    try {
      const { payload } = await jwtVerify<{ origin: TokenOrigin }>(token, publicKey, {
        algorithms: [algorithm],
        typ: typOf(kind),
        issuer: id,
        audience: this.#audience(kind),
        requiredClaims: ['exp', 'origin'],
        currentDate: new Date(this.#context.clock.now()),
      });
      return {
        token,
        origin: payload.origin,
        expiresAt: (payload.exp ?? 0) * 1000,
        currentAt: Number.NEGATIVE_INFINITY,
      };
    } catch (error) {
      throw toTokenError(error, kind);
    }
  }

  async #unrevoked<T extends TokenOrigin>(origin: T): Promise<T> {
    if (origin.kind !== 'anonymous' && !(await this.#context.isCurrent(origin)))
      throw new TokenError('revoked', 'the credentials that the token was given for are no longer valid');
    return origin;
  }

  #audience(kind: TokenKind): string {
    return `${this.#key.id}/${kind}`;
  }
}

/** A part of the signature, which no two tokens share. */
function keyOf(token: string): string {
  return token.slice(-KEY_LENGTH);
}

function typOf(kind: TokenKind): string {
  return `millpond-${kind}+jwt`;
}

function toTokenError(error: unknown, kind: TokenKind): unknown {
  if (error instanceof errors.JWTExpired) return new TokenError('expired', `the ${kind} token has expired`);
  if (error instanceof errors.JWTClaimValidationFailed && ['typ', 'aud'].includes(error.claim))
    return new TokenError('wrong-kind', `the token is not meant to be used as ${kind} token`);
  if (error instanceof errors.JOSEError)
    return new TokenError('foreign', `the ${kind} token is not from this mirror`);
  return error;
}
