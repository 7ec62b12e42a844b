/** What an upstream is shown to let us in. */
import { createHash } from 'node:crypto';

export type Credentials =
  | { username: string; password: string }
  /** An OAuth2 refresh token: the token server gives access tokens for it (Docker's `identitytoken`). */
  | { identityToken: string }
  /** A Microsoft Entra token, which an Azure registry exchanges for a refresh token of its own. */
  | { entraToken: string }
  /** A bearer token that is ready for the registry itself (Docker's `registrytoken`). */
  | { registryToken: string };

/**
 * Asked whenever credentials are needed, so that a changed secret is seen; undefined means anonymous.
 *
 * @param options.refused what was given last is not accepted: whoever keeps a copy gets it anew
 * @throws {Error} they cannot be had; its message holds no secret
 */
export type CredentialProvider = (options?: { refused: boolean }) => Promise<Credentials | undefined>;

/** A name by which two credentials can be told apart, and that gives neither away. */
export function fingerprint(credentials: Credentials | undefined): string {
  if (credentials === undefined) return 'anonymous';
  return createHash('sha256').update(JSON.stringify(credentials)).digest('base64url').slice(0, 16);
}

/** For a server that wants a name and a password; by convention `<token>` is the name of who has only a token. */
export function basicAuthorization(credentials: Credentials): string {
  const [username, password] =
    'username' in credentials
      ? [credentials.username, credentials.password]
      : ['<token>', Object.values(credentials).join('')];
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;
}
