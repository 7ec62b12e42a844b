/** Which redirects are followed, and what survives them. Pure. */
import { isSpecialHost } from './address-rule.ts';

export const MAX_REDIRECTS = 10;
const MAX_LOCATION_LENGTH = 8 * 1024;
const REDIRECT_STATUSES = [301, 302, 303, 307, 308];

export function isRedirect(status: number): boolean {
  return REDIRECT_STATUSES.includes(status);
}

/**
 * Where `location`, sent by `from`, leads.
 *
 * @param allowSpecial the upstream may lead to private addresses
 * @returns a reason, if it must not be followed
 */
export function redirectTarget(location: string | undefined, from: URL, allowSpecial: boolean): URL | string {
  if (location === undefined || location === '') return 'a redirect without Location';
  if (location.length > MAX_LOCATION_LENGTH) return 'a redirect with an endless Location';
  if (!URL.canParse(location, from.href)) return 'a redirect to something that is no URL';
  const target = new URL(location, from);
  if (target.protocol !== 'https:' && target.protocol !== 'http:') return `a redirect to ${target.protocol}`;
  if (from.protocol === 'https:' && target.protocol === 'http:')
    return `a redirect from https to http (${target.host})`;
  // The same host may be special: then the configuration says so itself.
  if (!allowSpecial && target.host !== from.host && isSpecialHost(target.hostname)) {
    return `a redirect to ${target.host}, which is not public; if that is meant, set allowPrivateAddresses`;
  }
  target.username = '';
  target.password = '';
  return target;
}
