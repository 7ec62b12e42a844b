/** The `Link` header of paged lists (RFC 8288). Pure. */
import type { ListQuery } from '../../oci/reference.ts';

const LINK = /<([^>]*)>((?:\s*;\s*[^\s;,="]+\s*(?:=\s*(?:"[^"]*"|[^\s;,"]*))?)*)/g;
const NEXT = /;\s*rel\s*=\s*(?:"(?:[^"]*\s)?next(?:\s[^"]*)?"|next(?=\s*(?:;|$)))/i;

/**
 * The query of the next page, if there is one. Of `<https://registry/v2/a/tags/list?n=5&last=b>; rel="next"` nothing
 * else matters: host and path would lead around the mirror, and so would `ns`.
 */
export function nextPage(header: string | string[] | undefined): { next?: ListQuery } {
  for (const [, target = '', parameters = ''] of [header ?? []].flat().join(', ').matchAll(LINK)) {
    if (!NEXT.test(parameters) || !URL.canParse(target, 'http://upstream')) continue;
    const next = new URL(target, 'http://upstream').searchParams;
    next.delete('ns');
    return { next: next.toString() };
  }
  return {};
}
