/** The configured issuers. A JWT is checked by the one that it names. */
import { decodeJwt, decodeProtectedHeader } from 'jose';
import { JwtError } from './errors.ts';
import type { Issuer, OidcSession } from './issuer.ts';
import type { JwtHeader } from './key-set.ts';

/** JWTs of GitHub, GitLab, Kubernetes, Google and Azure have 1 to 10 KiB. The largest are Azure's with many groups. */
const MAX_BYTES = 16 * 1024;
/** Limits the `kid`, because it is compared with every key. The longest that we know is a URL with a fingerprint. */
const MAX_KID_LENGTH = 256;

export class Issuers {
  readonly #byIssuer: ReadonlyMap<string, Issuer>;
  readonly #fingerprintByName: ReadonlyMap<string, string>;

  /** @throws {Error} two of them have the same name or URL */
  constructor(issuers: readonly Issuer[]) {
    this.#byIssuer = new Map(issuers.map((one) => [one.issuer, one]));
    this.#fingerprintByName = new Map(issuers.map((one) => [one.name, one.fingerprint]));
    if (this.#byIssuer.size < issuers.length || this.#fingerprintByName.size < issuers.length)
      throw new Error('two issuers of access.oidc have the same name or the same issuer');
  }

  /**
   * Checks a JWT and begins a session, which may outlive it: a build lasts longer than GitHub's JWTs of five minutes.
   *
   * @throws {JwtError} it is refused
   * @throws {IssuerError} it cannot be checked now
   */
  async beginSession(jwt: string): Promise<OidcSession> {
    const { header, issuer: url } = read(jwt);
    const issuer = this.#byIssuer.get(url);
    if (issuer === undefined)
      throw new JwtError('unknown-issuer', 'the JWT is from an issuer that is not configured here');
    return issuer.beginSession(jwt, header);
  }

  /** The fingerprint of the issuer that `name` means now; undefined if there is none. */
  fingerprint(name: string): string | undefined {
    return this.#fingerprintByName.get(name);
  }
}

/** Reads the header and the issuer of a JWT. Nothing of it is verified. */
function read(jwt: string): { header: JwtHeader; issuer: string } {
  if (jwt.length > MAX_BYTES) throw new JwtError('too-large', `the JWT is larger than ${MAX_BYTES} bytes`);
  let header: JwtHeader;
  let issuer: unknown;
  try {
    header = decodeProtectedHeader(jwt);
    issuer = decodeJwt(jwt).iss;
  } catch {
    throw new JwtError('malformed', 'the JWT cannot be read');
  }
  const { kid } = header;
  if (kid !== undefined && (typeof kid !== 'string' || kid.length > MAX_KID_LENGTH))
    throw new JwtError(
      'malformed',
      `the name of the JWT's key (the header "kid") is not a text of at most ${MAX_KID_LENGTH} characters`,
    );
  if (typeof issuer !== 'string') throw new JwtError('malformed', 'the JWT does not say who issued it');
  return { header, issuer };
}
