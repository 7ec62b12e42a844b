/**
 * Answers the requests of the registry side: parse → authorize → dispatch.
 *
 * | step | where |
 * |---|---|
 * | parse a request line, refuse unknown registries | `routes.ts` |
 * | who is the client, and may it pull | `authorizer.ts` |
 * | answer one kind of request | `manifests.ts`, `blobs.ts`, `lists.ts` |
 * | make the headers of a reply | `headers.ts` |
 * | turn an error into a reply, such as upstream's 429 | `errors.ts` |
 *
 * What a reply is made of is decided in `mirror/`. Everything here is HTTP.
 */
import type { Middleware } from 'koa';
import type { MirroredUpstream } from '../../mirror/mirrored-upstream.ts';
import { RegistryError } from '../../oci/errors.ts';
import type { Authorizer } from './authorizer.ts';
import { answerBlob, type BlobContext } from './blobs.ts';
import { isRead, pingHeaders, setHeaders } from './headers.ts';
import { answerReferrers, answerTags, type ListContext } from './lists.ts';
import { answerManifest, type ManifestContext } from './manifests.ts';
import type { PullReply, PullState } from './pull-state.ts';
import { noSuchRoute, type PullRequest, type RequestParser } from './routes.ts';

/** The upstreams of one configuration, and the parser that names one of them for each request. */
export interface Routing {
  readonly parser: RequestParser;
  readonly upstreamByName: ReadonlyMap<string, MirroredUpstream>;
}

export interface PullContext extends ManifestContext, BlobContext, ListContext {
  /** Asked once a request: a reload replaces it, and a request keeps what it began with. */
  routing: () => Routing;
  /** Our own entry in `Via`. */
  via: string;
  /** Absent: every client may pull everything. */
  authorizer?: Authorizer;
}

export function answerPulls(pulls: PullContext): Middleware<PullState> {
  return async (ctx) => {
    const { req, state } = ctx;
    const { parser, upstreamByName } = pulls.routing();
    if (pulls.authorizer !== undefined) state.guarded = 'private';
    const request = parser.parse(req.url ?? '/', req.headers.host);
    if (!isRead(req.method)) {
      throw new RegistryError('UNSUPPORTED', {
        message: 'this mirror is read-only: push to the registry itself',
        headers: { Allow: 'GET, HEAD' },
      });
    }
    if (request.kind === 'upload') throw noSuchRoute();
    if (req.headers.via?.includes(pulls.via) === true) {
      throw new RegistryError('UNAVAILABLE', {
        status: 508,
        message: 'the request has come back to this mirror: one of its upstreams leads to the mirror itself',
      });
    }
    if (pulls.authorizer !== undefined) {
      const decided = pulls.authorizer.authorize(request, req, state.context);
      const { identity, cachedOnly, rule } = decided instanceof Promise ? await decided : decided;
      state.context.identity = identity;
      state.context.cachedOnly = cachedOnly;
      state.rule = rule;
    }
    if (request.kind === 'ping') answerPing(ctx);
    else await answerPull(ctx, request, upstreamByName.get(request.upstream), pulls);
  };
}

function answerPing(ctx: PullReply): void {
  ctx.state.isPing = true;
  setHeaders(ctx, pingHeaders(ctx));
  ctx.type = 'application/json';
  ctx.body = '{}';
}

async function answerPull(
  ctx: PullReply,
  request: Readonly<PullRequest>,
  upstream: MirroredUpstream | undefined,
  pulls: PullContext,
): Promise<void> {
  if (upstream === undefined)
    throw new Error(`the routing table names ${request.upstream}, which is not an upstream`);
  const { state } = ctx;
  state.kind = request.kind;
  state.upstream = request.upstream;
  state.repository = request.repository;
  state.namespace = request.namespace;
  switch (request.kind) {
    case 'manifest':
      state.reference = request.reference;
      return answerManifest(ctx, request, upstream, pulls);
    case 'blob':
      state.reference = request.digest;
      return answerBlob(ctx, request, upstream, pulls);
    case 'tags':
      return answerTags(ctx, request, upstream, pulls);
    case 'referrers':
      state.reference = request.digest;
      return answerReferrers(ctx, request, upstream, pulls);
  }
}
