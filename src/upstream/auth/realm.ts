/** Decides which token servers may get the credentials of an upstream. Pure. */
import { getDomain } from 'tldts';

/**
 * Whether the mirror may ask the token server at `realm`, which a challenge of `challenger` named.
 *
 * Docker Hub's token server is on another host, so the same host alone is too strict. Any host would give the
 * credentials to every server that sends a challenge (CVE-2026-33540). So allow the same host, the same registrable
 * domain, and the hosts that a preset or the configuration names. Never go from https to http.
 */
export function isRealmAllowed(realm: URL, challenger: URL, realmHosts: readonly string[]): boolean {
  if (realm.protocol !== 'https:' && !(realm.protocol === 'http:' && challenger.protocol === 'http:'))
    return false;
  if (realm.hostname === challenger.hostname) return true;
  if (realmHosts.includes(realm.hostname) || realmHosts.includes(realm.host)) return true;
  // getDomain returns null for IP addresses, for localhost, and for public suffixes themselves.
  const domain = getDomain(realm.hostname, { allowPrivateDomains: true });
  return domain !== null && domain === getDomain(challenger.hostname, { allowPrivateDomains: true });
}
