/** What a reply of the registry side says besides describing its content. */
import type { Context } from 'koa';
import type { CacheOutcome } from '../../mirror/outcome.ts';
import type { PullState } from './pull-state.ts';

export type PullReply = Context & { state: PullState };

const CACHE_STATUS: Record<CacheOutcome, string> = {
  hit: 'millpond; hit',
  revalidated: 'millpond; hit; detail=revalidated',
  stale: 'millpond; hit; detail=stale',
  miss: 'millpond; fwd=uri-miss; stored',
  collapsed: 'millpond; fwd=uri-miss; collapsed',
  updated: 'millpond; fwd=stale; stored',
  bypass: 'millpond; fwd=bypass',
};

/** Names and values in turns, as `writeHead` takes them: made from what `ctx.state` says of the request so far. */
export function commonHeaders(ctx: PullReply): string[] {
  const { namespace, outcome } = ctx.state;
  const headers = ['Docker-Distribution-Api-Version', 'registry/2.0'];
  if (namespace !== undefined) headers.push('OCI-Namespace', namespace);
  if (outcome !== undefined) headers.push('Cache-Status', cacheStatus(outcome, ctx.req.method));
  return headers;
}

/** RFC 9211. A HEAD that went upstream stored nothing. */
function cacheStatus(outcome: CacheOutcome, method: string | undefined): string {
  return outcome === 'miss' && method === 'HEAD' ? 'millpond; fwd=uri-miss' : CACHE_STATUS[outcome];
}

export function warningHeader(warning: string | undefined): string[] {
  if (warning === undefined) return [];
  return ['Warning', `299 - "${warning.replace(/[^\x20-\x7e]|["\\]/g, ' ').slice(0, 1000)}"`];
}

/** For replies that Koa sends, or that are not sent in one piece. */
export function setHeaders(ctx: PullReply, headers: readonly string[]): void {
  for (let at = 0; at < headers.length; at += 2) ctx.res.setHeader(headers[at] ?? '', headers[at + 1] ?? '');
}
