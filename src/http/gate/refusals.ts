/** Turns what access control throws into wire errors. */
import { AuthenticationError, TooManyAttemptsError } from '../../access/errors.ts';
import { IssuerError } from '../../access/oidc/errors.ts';
import { TokenError } from '../../access/tokens/errors.ts';
import { RegistryError } from '../../oci/errors.ts';
import { ClientGoneError } from '../server/content-sender.ts';

/** @param unauthorized makes the 401 */
export function refusalOf(error: unknown, unauthorized: (message: string) => RegistryError): unknown {
  if (error instanceof AuthenticationError) return unauthorized(error.message);
  // A session that ends within a minute gets no token any more.
  if (error instanceof TokenError) return unauthorized(error.message);
  if (error instanceof TooManyAttemptsError) {
    const seconds = Math.max(1, Math.ceil(error.retryAfterMs / 1000));
    return new RegistryError('TOOMANYREQUESTS', {
      message: error.message,
      headers: { 'Retry-After': String(seconds) },
    });
  }
  // While a login waits for its turn, its client may leave.
  if (error instanceof Error && error.name === 'AbortError')
    return new ClientGoneError('the client left while its login waited', { cause: error });
  if (error instanceof IssuerError)
    return new RegistryError('UNAVAILABLE', { message: error.message, status: 503 });
  return error;
}
