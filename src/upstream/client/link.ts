/**
 * The `Link` header of lists with pages (RFC 8288). Pure.
 *
 * Our own parser, because http-link-header 1.1.4 throws on an empty list element (`, </v2/…>; rel=next`) and loses a
 * `rel` that follows a parameter without a value. RFC 9110 and RFC 8288 allow both.
 */
import type { ListQuery } from '../../oci/reference.ts';

const QUOTED = String.raw`"((?:[^"\\]|\\.)*)"`;
const PARAMETER = String.raw`;\s*([^\s;,="]+)\s*(?:=\s*(?:${QUOTED}|([^\s;,"]*)))?\s*`;
const LINK = new RegExp(`<([^<>]*)>\\s*((?:${PARAMETER})*)`, 'g');
const PARAMETERS = new RegExp(PARAMETER, 'g');

/**
 * The query of the next page. The rest of `<https://registry/v2/a/tags/list?n=5&last=b>; rel="next"` is dropped: host
 * and path would lead clients past the mirror, and so would a query parameter `ns`.
 *
 * @returns nothing if this is the last page
 */
export function nextPage(header: string | string[] | undefined): { next?: ListQuery } {
  for (const [, target = '', parameters = ''] of [header ?? []].flat().join(', ').matchAll(LINK)) {
    if (!relationsOf(parameters).includes('next') || !URL.canParse(target, 'http://upstream')) continue;
    const next = new URL(target, 'http://upstream').searchParams;
    next.delete('ns');
    return { next: next.toString() };
  }
  return {};
}

/** The values of the first `rel`. Only the first one counts (RFC 8288, section 3.3). */
function relationsOf(parameters: string): string[] {
  const rel = [...parameters.matchAll(PARAMETERS)].find(([, name]) => name?.toLowerCase() === 'rel');
  return (rel?.[2] ?? rel?.[3] ?? '').toLowerCase().split(/\s+/);
}
