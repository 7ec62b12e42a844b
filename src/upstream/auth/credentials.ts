/** The credentials for an upstream. */
import { createHash } from 'node:crypto';

export type Credentials =
  | { username: string; password: string }
  /** An OAuth2 refresh token. The token server exchanges it for access tokens (Docker's `identitytoken`). */
  | { identityToken: string }
  /** A Microsoft Entra token. An Azure registry exchanges it for its own refresh token. */
  | { entraToken: string }
  /** A bearer token that the registry accepts directly (Docker's `registrytoken`). */
  | { registryToken: string };

/**
 * Called whenever credentials are needed, so that a changed secret takes effect. Undefined means anonymous.
 *
 * @param options.refused the last credentials were not accepted: a provider that keeps a copy reads them again
 * @throws {Error} the credentials cannot be read; the message contains no secret
 */
export type CredentialProvider = (options?: { refused: boolean }) => Promise<Credentials | undefined>;

/** Identifies credentials without revealing them. */
export function fingerprint(credentials: Credentials | undefined): string {
  if (credentials === undefined) return 'anonymous';
  return createHash('sha256').update(JSON.stringify(credentials)).digest('base64url').slice(0, 16);
}

/** The value of `Authorization` for HTTP Basic. By convention the user name of a bare token is `<token>`. */
export function basicAuthorization(credentials: Credentials): string {
  const [username, password] =
    'username' in credentials
      ? [credentials.username, credentials.password]
      : ['<token>', Object.values(credentials).join('')];
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;
}
