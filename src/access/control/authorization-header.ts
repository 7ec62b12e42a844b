/** Reads the `Authorization` header. Pure. */
import { AuthenticationError } from '../errors.ts';

/** Nothing of it is checked yet. */
export type PresentedCredentials =
  | { readonly user: string; readonly password: string }
  | { readonly token: string };

/** Sources: RFC 7617 (Basic, in UTF-8) and RFC 6750 (Bearer). @throws {AuthenticationError} it is neither */
export function credentialsOf(header: string): PresentedCredentials {
  // Not a regular expression: it would look at every character of a token, for every request.
  const space = header.indexOf(' ');
  const value = header.slice(space + 1).trim();
  switch (header.slice(0, space).toLowerCase()) {
    case 'bearer':
      return { token: value };
    case 'basic': {
      const text = Buffer.from(value, 'base64').toString('utf8');
      const colon = text.indexOf(':');
      if (colon < 0) throw new AuthenticationError('the Basic credentials hold no colon');
      return { user: text.slice(0, colon), password: text.slice(colon + 1) };
    }
    default:
      throw new AuthenticationError('the header Authorization must be Basic or Bearer');
  }
}
