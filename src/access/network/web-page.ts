/** Requests that a browser sends for a page. */
import type { IncomingHttpHeaders } from 'node:http';

/**
 * Whether a page of another site may stand behind the request. Any page can make its visitor's browser send requests,
 * from the visitor's network and with the visitor's certificate, so these prove nothing then. No registry client sends
 * `Origin` or `Sec-Fetch-Site`; of the latter only `none` (typed by hand) and `same-origin` are safe, because a sibling
 * host is same-site and may belong to somebody else. (Fetch Metadata, section 2.3)
 */
export function isFromAnotherSite(headers: IncomingHttpHeaders): boolean {
  const site = headers['sec-fetch-site'];
  return headers.origin !== undefined || (site !== undefined && site !== 'none' && site !== 'same-origin');
}

/**
 * Whether a browser stands behind a request to the registry side.
 *
 * A page whose own name was made to lead to our address (DNS rebinding) is of the same site, and over plain HTTP browsers
 * say nothing about sites at all. But every browser sends `Accept-Language`, a page cannot leave it out, and no registry
 * client sends it. Only `Host` could tell more, and a mirror is reached by names that it does not know.
 */
export function isFromBrowser(headers: IncomingHttpHeaders): boolean {
  return isFromAnotherSite(headers) || headers['accept-language'] !== undefined;
}
