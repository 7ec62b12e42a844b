/** Checks the JWTs of one outside issuer. */
import { createHash } from 'node:crypto';
import { errors, type JWTPayload, jwtVerify } from 'jose';
import type { Clock } from '../../clock.ts';
import type { Logger } from '../../telemetry/log.ts';
import { type Claims, keepClaims } from './claims.ts';
import { JwtError } from './errors.ts';
import { IssuerHttp, type SendRequest } from './issuer-http.ts';
import { discoveryUrl, issuerUrlProblem } from './issuer-url.ts';
import { KeyFile } from './key-file.ts';
import type { JwtHeader, KeySource } from './key-set.ts';
import { PublishedKeys } from './published-keys.ts';

/** How far the clocks of issuer and mirror may be apart, in seconds. */
const SKEW_SECONDS = 60;

/** Excludes HMAC, whose key also signs: if a public key were used as an HMAC key, anyone could make JWTs. */
type SignatureAlgorithm =
  | 'RS256'
  | 'RS384'
  | 'RS512'
  | 'PS256'
  | 'PS384'
  | 'PS512'
  | 'ES256'
  | 'ES384'
  | 'ES512'
  | 'EdDSA'
  | 'Ed25519';

/** The keys of the configuration's `access.oidc[]`. Durations are milliseconds. */
export interface IssuerSettings {
  name: string;
  /** Literally the `iss` of its JWTs. */
  issuer: string;
  /** One of the audiences of its JWTs, character for character. */
  audience: string;
  algorithms: readonly SignatureAlgorithm[];
  /** The URL of its keys; without it, the discovery document names the URL. */
  jwksUrl?: string | undefined;
  /** A file with its keys. The issuer is not asked then. */
  jwks?: string | undefined;
  /** A file with the Bearer token that the issuer requires, as Kubernetes does. */
  token?: { readonly file: string } | undefined;
  insecure: boolean;
  staleKeys: number;
  /** How long a session lasts that begins with a JWT. */
  session: number;
  /** The claims that rules ask for; no others are kept, except `sub`. */
  claims: () => readonly string[];
}

export interface IssuerContext {
  /** Sends the requests to this issuer, with its `ca` and the proxy settings. */
  send: SendRequest;
  sealed: () => boolean;
  clock: Clock;
  logger: Logger;
}

/** The identity that a JWT has proved, and how long it lasts. */
export interface OidcSession {
  readonly kind: 'oidc';
  /** The issuer's name in the configuration. */
  readonly name: string;
  /** {@link Issuer.fingerprint} of the issuer. */
  readonly fingerprint: string;
  readonly claims: Claims;
  /** Milliseconds since the epoch. */
  readonly endsAt: number;
}

export class Issuer {
  readonly name: string;
  readonly issuer: string;
  /** Changes when this name means another issuer. */
  readonly fingerprint: string;
  readonly #settings: IssuerSettings;
  readonly #clock: Clock;
  readonly #keys: KeySource;

  /** @throws {Error} the settings name a URL that may not be asked */
  constructor(settings: IssuerSettings, context: IssuerContext) {
    const { name, issuer, jwks } = settings;
    this.name = name;
    this.issuer = issuer;
    this.fingerprint = createHash('sha256')
      .update(JSON.stringify([name, issuer]))
      .digest('base64url')
      .slice(0, 22);
    this.#settings = settings;
    this.#clock = context.clock;
    this.#keys =
      jwks === undefined ? publishedKeys(settings, context) : new KeyFile(name, jwks, context.logger);
  }

  /**
   * Checks a JWT whose `iss` is this issuer, and begins a session.
   *
   * @param header of the JWT, unverified
   * @throws {JwtError} it is refused
   * @throws {IssuerError} it cannot be checked now
   */
  async beginSession(jwt: string, header: JwtHeader): Promise<OidcSession> {
    const { algorithms, claims, session } = this.#settings;
    // Checks this before the key: a JWT that will be refused anyway must not make us ask the issuer.
    if (!(algorithms as readonly unknown[]).includes(header.alg))
      throw new JwtError('algorithm', 'the JWT is signed by an algorithm that is not accepted');
    const payload = await this.#verify(jwt, header);
    return {
      kind: 'oidc',
      name: this.name,
      fingerprint: this.fingerprint,
      claims: keepClaims(payload, claims()),
      endsAt: this.#clock.now() + session,
    };
  }

  async #verify(jwt: string, header: JwtHeader): Promise<JWTPayload> {
    const { algorithms, audience } = this.#settings;
    const key = await this.#keys.find(header);
    const now = this.#clock.now();
    let payload: JWTPayload;
    try {
      ({ payload } = await jwtVerify(jwt, key, {
        algorithms: [...algorithms],
        issuer: this.issuer,
        audience,
        requiredClaims: ['exp'],
        clockTolerance: SKEW_SECONDS,
        currentDate: new Date(now),
      }));
    } catch (error) {
      throw toJwtError(error, audience);
    }
    // jose looks at `iat` only for a maximum age.
    const { iat } = payload;
    if (iat !== undefined && iat > now / 1000 + SKEW_SECONDS)
      throw new JwtError('not-yet-valid', 'the JWT was issued in the future (the claim "iat")');
    return payload;
  }
}

function publishedKeys(settings: IssuerSettings, context: IssuerContext): PublishedKeys {
  const { name, issuer, jwksUrl, insecure, token, staleKeys } = settings;
  const configuredUrl = jwksUrl ?? issuer;
  const problem = issuerUrlProblem(configuredUrl, insecure);
  if (problem !== undefined) throw new Error(`the issuer ${name}: ${configuredUrl} ${problem}`);
  const http = new IssuerHttp({ insecure, tokenFile: token?.file, configuredUrl }, context.send);
  return new PublishedKeys(
    { issuer: name, staleKeysMs: staleKeys },
    {
      ...context,
      fetch: async (signal) =>
        http.get(jwksUrl === undefined ? await discover(issuer, http, signal) : new URL(jwksUrl), signal),
    },
  );
}

/** Asks the issuer for the URL of its keys. @throws {Error} */
async function discover(issuer: string, http: IssuerHttp, signal: AbortSignal): Promise<URL> {
  const url = discoveryUrl(issuer);
  const document = await http.get(url, signal);
  const { issuer: actual, jwks_uri: keys } = Object(document) as Record<string, unknown>;
  // Otherwise one issuer's document could stand in for another's (OpenID Connect Discovery 1.0, section 4.3).
  if (actual !== issuer) throw new Error(`${url.href} is the document of another issuer than ${issuer}`);
  const keysUrl = typeof keys === 'string' ? URL.parse(keys) : null;
  if (keysUrl === null) throw new Error(`${url.href} has no usable jwks_uri`);
  return keysUrl;
}

function toJwtError(error: unknown, audience: string): JwtError {
  if (error instanceof errors.JWSSignatureVerificationFailed)
    return new JwtError('signature', 'the signature of the JWT is wrong');
  if (error instanceof errors.JWTExpired) return new JwtError('expired', 'the JWT has expired');
  if (error instanceof errors.JWTClaimValidationFailed) {
    if (error.claim === 'aud')
      return new JwtError(
        'audience',
        `the JWT is not meant for this mirror: its audience must be ${audience}`,
      );
    if (error.claim === 'nbf' && error.reason === 'check_failed')
      return new JwtError('not-yet-valid', 'the JWT is not valid yet');
    return new JwtError('malformed', `the claim "${error.claim}" of the JWT is missing or wrong`);
  }
  if (error instanceof errors.JOSEError) return new JwtError('malformed', 'the JWT cannot be read');
  // jose refuses RSA keys of less than 2048 bits with a TypeError.
  if (error instanceof TypeError)
    return new JwtError('unknown-key', 'the key of the JWT is not safe enough to be used');
  throw error;
}
