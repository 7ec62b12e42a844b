/** Which token servers may see an upstream's credentials. Pure. */
import { getDomain } from 'tldts';

/**
 * Whether the token server at `realm`, named by a challenge of `challenger`, may be asked.
 *
 * Docker Hub's token server is on another host, so "the same host" is too strict; anything goes would hand the
 * credentials to whoever answers with a challenge (CVE-2026-33540). Hence: the same host, the same registrable
 * domain, or a host that a preset or the configuration names. Never from https to http.
 */
export function isRealmAllowed(realm: URL, challenger: URL, realmHosts: readonly string[]): boolean {
  if (realm.protocol !== 'https:' && !(realm.protocol === 'http:' && challenger.protocol === 'http:'))
    return false;
  if (realm.hostname === challenger.hostname) return true;
  if (realmHosts.includes(realm.hostname) || realmHosts.includes(realm.host)) return true;
  // Null for IP addresses, for localhost, and for public suffixes themselves.
  const domain = getDomain(realm.hostname, { allowPrivateDomains: true });
  return domain !== null && domain === getDomain(challenger.hostname, { allowPrivateDomains: true });
}
