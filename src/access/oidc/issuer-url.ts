/** Checks which URLs of an issuer may be requested. Pure. */
import { canonicalAddress, isLoopback } from '../network/addresses.ts';

/**
 * What is wrong with the URL of an issuer or of its keys, as a clause for a message; undefined if nothing is.
 *
 * @param insecure `http://` is allowed for any host. Otherwise only for loopback: anyone who can change the keys on
 *   their way can sign any JWT.
 */
export function issuerUrlProblem(text: string, insecure: boolean): string | undefined {
  const url = URL.parse(text);
  if (url === null || !['http:', 'https:'].includes(url.protocol)) return 'is not an https:// URL';
  if (url.username !== '' || url.password !== '') return 'must not hold a user name or password';
  if (url.hash !== '') return 'must not have a fragment';
  if (url.protocol === 'http:' && !insecure && !isOnThisMachine(url))
    return 'is http://: keys that come unencrypted can be replaced on their way; use https://, or set insecure: true';
  return undefined;
}

function isOnThisMachine({ hostname }: URL): boolean {
  return hostname === 'localhost' || isLoopback(canonicalAddress(hostname.replace(/^\[|\]$/g, '')));
}

/**
 * The URL of the issuer's discovery document.
 *
 * Source: OpenID Connect Discovery 1.0, section 4.1: a `/` at the end is removed first.
 */
export function discoveryUrl(issuer: string): URL {
  return new URL(`${issuer.replace(/\/$/, '')}/.well-known/openid-configuration`);
}
