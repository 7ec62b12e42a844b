/** Where the name and password for an upstream come from. */

export interface Credentials {
  username: string;
  password: string;
}

/** Asked whenever credentials are needed, so that a changed secret is seen; undefined means anonymous. */
export type CredentialProvider = () => Promise<Credentials | undefined>;

export function basicAuthorization({ username, password }: Credentials): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;
}
