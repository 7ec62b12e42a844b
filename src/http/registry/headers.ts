/** Makes the headers of every reply on the registry side. */
import type { CacheOutcome } from '../../mirror/outcome.ts';
import type { RegistryError } from '../../oci/errors.ts';
import type { ListQuery } from '../../oci/reference.ts';
import type { PullReply } from './pull-state.ts';

/** Names and values in turn, as `writeHead` takes them. */
type Headers = string[];

const CACHE_STATUS: Record<CacheOutcome, string> = {
  hit: 'millpond; hit',
  revalidated: 'millpond; hit; detail=revalidated',
  stale: 'millpond; hit; detail=stale',
  held: 'millpond; hit; detail=held',
  miss: 'millpond; fwd=uri-miss; stored',
  store: 'millpond; fwd=uri-miss; stored; detail=store',
  node: 'millpond; fwd=uri-miss; stored; detail=node',
  collapsed: 'millpond; fwd=uri-miss; collapsed',
  updated: 'millpond; fwd=stale; stored',
  bypass: 'millpond; fwd=bypass',
};
const ONE_YEAR_SECONDS = 31_536_000;

/** The headers that every reply has, made from what `ctx.state` says about the request so far. */
function commonHeaders(ctx: PullReply): Headers {
  const { namespace, outcome } = ctx.state;
  const headers = ['Docker-Distribution-Api-Version', 'registry/2.0'];
  if (namespace !== undefined) headers.push('OCI-Namespace', namespace);
  if (outcome !== undefined) headers.push('Cache-Status', cacheStatus(outcome, ctx.req.method));
  return headers;
}

/** Of a ping. */
export function pingHeaders(ctx: PullReply): Headers {
  const headers = commonHeaders(ctx);
  addCaching(headers, ctx);
  return headers;
}

/** Of a manifest, without its type and length, which a 304 does not have. */
export function manifestHeaders(ctx: PullReply, digest: string, warning: string | undefined): Headers {
  const headers = commonHeaders(ctx);
  addWarning(headers, warning);
  addContent(headers, digest);
  addCaching(headers, ctx, 'Accept'); // the manifest that a tag means can depend on it
  return headers;
}

/** Of a blob, without its length. */
export function blobHeaders(ctx: PullReply, digest: string): Headers {
  const headers = commonHeaders(ctx);
  addContent(headers, digest);
  headers.push('Content-Type', 'application/octet-stream', 'Accept-Ranges', 'bytes');
  addCaching(headers, ctx, undefined, `max-age=${ONE_YEAR_SECONDS}, immutable`);
  return headers;
}

/** Of a redirect to another place that has the blob. Its URL is for this client, and for some minutes. */
export function redirectHeaders(ctx: PullReply, digest: string, url: string): Headers {
  const headers = commonHeaders(ctx);
  // The last one of a name counts.
  headers.push('Cache-Status', 'millpond; hit; detail=redirect', 'Docker-Content-Digest', digest);
  headers.push('Location', url, 'Cache-Control', 'no-store');
  return headers;
}

export interface ListReply {
  mediaType: string;
  body: Buffer;
  /** The query of the next page. */
  next?: ListQuery | undefined;
  /** For `OCI-Filters-Applied`. */
  filtersApplied?: string | undefined;
  warning?: string | undefined;
}

/** Of a list of tags or referrers. */
export function listHeaders(ctx: PullReply, list: ListReply): Headers {
  const headers = commonHeaders(ctx);
  addWarning(headers, list.warning);
  if (list.filtersApplied !== undefined) headers.push('OCI-Filters-Applied', list.filtersApplied);
  if (list.next !== undefined) headers.push('Link', nextLink(ctx, list.next));
  headers.push('Content-Type', list.mediaType, 'Content-Length', String(list.body.length));
  addCaching(headers, ctx);
  return headers;
}

/** Of an error. They replace the headers that were set for the content. */
export function errorHeaders(ctx: PullReply, error: RegistryError): Headers {
  const headers = commonHeaders(ctx);
  const { kind, outcome } = ctx.state;
  if (kind !== undefined && outcome === undefined)
    headers.push('Cache-Status', `millpond; fwd=uri-miss; detail=${error.code}`);
  for (const [name, value] of Object.entries(error.headers)) headers.push(name, value);
  // The body of a push is never read, so the connection cannot be used again.
  if (!isRead(ctx.req.method)) headers.push('Connection', 'close');
  // dockerd shows the raw body instead of the message unless the type is exactly this, without a charset.
  headers.push('Content-Type', 'application/json');
  addCaching(headers, ctx);
  return headers;
}

/** Sets headers that are sent later, together with the first byte of the body or by Koa. */
export function setHeaders(ctx: PullReply, headers: Headers): void {
  for (let at = 0; at < headers.length; at += 2) ctx.res.setHeader(headers[at] ?? '', headers[at + 1] ?? '');
}

export function isRead(method: string | undefined): boolean {
  return method === 'GET' || method === 'HEAD';
}

/** RFC 9211. A HEAD that went upstream stored nothing. */
function cacheStatus(outcome: CacheOutcome, method: string | undefined): string {
  return outcome === 'miss' && method === 'HEAD' ? 'millpond; fwd=uri-miss' : CACHE_STATUS[outcome];
}

/**
 * Says what caches may do. With access control, shared caches in between must not hand private content to anybody (RFC 9111,
 * 3.5 and 4.1).
 */
function addCaching(headers: Headers, { state }: PullReply, vary?: string, cacheControl?: string): void {
  const { guarded } = state;
  if (guarded === undefined) {
    if (vary !== undefined) headers.push('Vary', vary);
    if (cacheControl !== undefined) headers.push('Cache-Control', cacheControl);
    return;
  }
  headers.push('Vary', vary === undefined ? 'Authorization' : `Authorization, ${vary}`);
  headers.push('Cache-Control', cacheControl === undefined ? guarded : `${guarded}, ${cacheControl}`);
}

function addContent(headers: Headers, digest: string): void {
  headers.push('ETag', `"${digest}"`, 'Docker-Content-Digest', digest, 'X-Content-Type-Options', 'nosniff');
}

/** RFC 7234, 5.5. The text can come from upstream: only printable ASCII, without quotes, may get into a header. */
function addWarning(headers: Headers, text: string | undefined): void {
  if (text === undefined) return;
  headers.push('Warning', `299 - "${text.replace(/[^\x20-\x7e]|["\\]/g, ' ').slice(0, 1000)}"`);
}

/** Keeps the client's own path, whatever route it used: the path that upstream sent would lead around the mirror. */
function nextLink(ctx: PullReply, next: ListQuery): string {
  const query = new URLSearchParams(next);
  for (const namespace of new URLSearchParams(ctx.querystring).getAll('ns')) query.append('ns', namespace);
  return `<${ctx.path}?${query.toString()}>; rel="next"`;
}
