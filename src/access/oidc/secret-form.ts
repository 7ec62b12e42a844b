/** Tells what kind of secret a client has sent, by its form alone. Pure. */
import { isTokenSecret } from '../credentials/tokens/token-lines.ts';

export type SecretForm = 'robot-token' | 'jwt' | 'password';

/**
 * Three base64url parts, the first of which begins like a JSON object: `{"` and `{ ` encode to `ey`, `{` and a line break
 * to `ew`. Without that, a password such as `correct.horse.battery` would be taken for a JWT. The signature may be
 * empty (`alg: none`), so that such a JWT is refused as one and costs no password check.
 */
const JWT = /^e[wy][A-Za-z0-9_-]*\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*$/;

/** The kind of a password or Bearer credential. Nothing is tried: each form is checked in one way only. */
export function classify(secret: string): SecretForm {
  if (isTokenSecret(secret)) return 'robot-token';
  return JWT.test(secret) ? 'jwt' : 'password';
}
