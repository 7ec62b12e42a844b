/** Clients that may have only what is cached: a rule allows it with `fetch: false`. */
import type { RequestContext } from '../request-context.ts';
import { UpstreamError } from '../upstream/errors.ts';

/**
 * To be called before any work that others could join: if a client that may not fetch began it, its refusal would
 * become theirs.
 *
 * @throws {UpstreamError} `sealed`: for this client the upstream is not there
 */
export function requireFetch({ cachedOnly }: RequestContext, upstream: { name: string }): void {
  if (cachedOnly !== true) return;
  const what = 'not cached, and the rule that allows this pull allows only what is cached (fetch: false)';
  throw new UpstreamError('sealed', upstream.name, what);
}
