/** Conditional requests (RFC 9110, section 13). The entity tag of content is its digest in quotes. Pure. */

/** @returns whether the client already has the content, so that the reply is 304 */
export function matchesIfNoneMatch(ifNoneMatch: string | undefined, digest: string): boolean {
  if (ifNoneMatch === undefined) return false;
  const tags = ifNoneMatch.split(',').map((tag) => tag.trim().replace(/^W\//, '').replaceAll('"', ''));
  return tags.includes(digest) || tags.includes('*');
}

/**
 * @returns whether a range may be sent. Without the header it may. If the client has part of other content, or names a
 * date, it needs the whole content.
 */
export function matchesIfRange(ifRange: string | string[] | undefined, digest: string): boolean {
  return ifRange === undefined || String(ifRange).trim().replaceAll('"', '') === digest;
}
