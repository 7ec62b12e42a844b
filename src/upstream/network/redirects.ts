/** Decides which redirects to follow. Pure. */
import { isSpecialHost } from './address-rule.ts';

export const MAX_REDIRECTS = 10;
const MAX_LOCATION_LENGTH = 8 * 1024;
const REDIRECT_STATUSES = [301, 302, 303, 307, 308];

export function isRedirect(status: number): boolean {
  return REDIRECT_STATUSES.includes(status);
}

/**
 * The target of a redirect from `from` to `location`.
 *
 * @param allowSpecial the upstream may redirect to private addresses
 * @returns a string, the reason, if we must not follow it. It shows no path and no query: they can contain a signature.
 */
export function redirectTarget(location: string | undefined, from: URL, allowSpecial: boolean): URL | string {
  if (location === undefined || location === '') return 'sent a redirect without Location';
  if (location.length > MAX_LOCATION_LENGTH) return 'sent a redirect with a Location that is too long';
  if (!URL.canParse(location, from.href)) return 'sent a redirect with a Location that is not a URL';
  const target = new URL(location, from);
  if (target.protocol !== 'https:' && target.protocol !== 'http:')
    return `sent a redirect to the scheme ${target.protocol}`;
  if (from.protocol === 'https:' && target.protocol === 'http:')
    return `sent a redirect from https to http (${target.host})`;
  // The same host may be special, because the configuration names it.
  if (!allowSpecial && target.host !== from.host && isSpecialHost(target.hostname)) {
    return `sent a redirect to ${target.host}, which is not public; if this is intended, set allowPrivateAddresses`;
  }
  target.username = '';
  target.password = '';
  return target;
}
