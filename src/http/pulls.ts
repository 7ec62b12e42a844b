/** The registry side: what each kind of request answers. Everything it decides is in mirror/; this is HTTP. */
import type { Context, Middleware } from 'koa';
import type { BlobMirror } from '../mirror/blob-mirror.ts';
import type { DiscoveryMirror } from '../mirror/discovery-mirror.ts';
import type { FreshnessPolicy } from '../mirror/freshness.ts';
import type { ManifestMirror } from '../mirror/manifest-mirror.ts';
import type { CacheOutcome } from '../mirror/outcome.ts';
import { RegistryError } from '../oci/errors.ts';
import { OCI_INDEX } from '../oci/manifest.ts';
import type { Upstream } from '../upstream/upstream.ts';
import type { ContentSender } from './content.ts';
import type { PullState } from './pull-state.ts';
import { type ByteRange, formatContentRange, parseRange } from './range.ts';
import { type PullRequest, parseRequest, type RoutingTable } from './routes.ts';

export interface MirroredUpstream {
  client: Upstream;
  /** Ranges of a large cold blob that are fetched at one time. */
  segments: number;
  freshness: FreshnessPolicy;
}

export interface PullContext {
  table: RoutingTable;
  /** Our own entry in `Via`. */
  via: string;
  upstreamByName: ReadonlyMap<string, MirroredUpstream>;
  manifests: ManifestMirror;
  blobs: BlobMirror;
  discovery: DiscoveryMirror;
  sender: ContentSender;
}

type RequestFor<K extends PullRequest['kind']> = Extract<PullRequest, { kind: K }>;
type PullReply = Context & { state: PullState };

const ONE_YEAR_SECONDS = 31_536_000;

export function answerPulls(pulls: PullContext): Middleware<PullState> {
  return async (ctx) => {
    ctx.set('Docker-Distribution-Api-Version', 'registry/2.0');
    if (ctx.method !== 'GET' && ctx.method !== 'HEAD') {
      // The body of a push is not read; the connection ends with the reply.
      throw new RegistryError('UNSUPPORTED', {
        message: 'this mirror is read-only: push to the registry itself',
        headers: { Allow: 'GET, HEAD', Connection: 'close' },
      });
    }
    if (ctx.req.headers.via?.includes(pulls.via) === true) {
      const message =
        'the request has come back to this mirror: an upstream of it leads to the mirror itself';
      throw new RegistryError('UNAVAILABLE', { status: 508, message });
    }
    const request = parseRequest(ctx.req.url ?? '/', ctx.req.headers.host, pulls.table);
    if (request.kind === 'ping') {
      ctx.type = 'application/json';
      ctx.body = '{}';
      return;
    }
    const upstream = pulls.upstreamByName.get(request.upstream);
    if (upstream === undefined)
      throw new Error(`the routing table leads to ${request.upstream}, which is no upstream`);
    const { state } = ctx;
    state.kind = request.kind;
    state.upstream = request.upstream;
    state.repository = request.repository;
    if (request.namespace !== undefined) ctx.set('OCI-Namespace', request.namespace);
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
  };
}

async function answerManifest(
  ctx: PullReply,
  { repository, reference }: RequestFor<'manifest'>,
  { client, freshness }: MirroredUpstream,
  { manifests }: PullContext,
): Promise<void> {
  const head = ctx.method === 'HEAD';
  const accept = ctx.req.headers.accept;
  const manifest = await manifests.open({ upstream: client, freshness, repository, reference, accept, head });
  setOutcome(ctx, manifest.outcome, manifest.warning);
  ctx.set({
    ETag: `"${manifest.digest}"`,
    'Docker-Content-Digest': manifest.digest,
    'X-Content-Type-Options': 'nosniff',
    // What a tag means can depend on it.
    Vary: 'Accept',
  });
  ctx.status = 200;
  if (matches(ctx.req.headers['if-none-match'], manifest.digest)) {
    ctx.status = 304;
    return;
  }
  ctx.res.setHeader('Content-Type', manifest.mediaType); // not ctx.type, which adds a charset
  ctx.length = manifest.size;
  if (head || manifest.bytes === undefined) return;
  ctx.state.bytes = manifest.size;
  ctx.body = manifest.bytes;
}

async function answerBlob(
  ctx: PullReply,
  { repository, digest }: RequestFor<'blob'>,
  { client, segments }: MirroredUpstream,
  { blobs, sender }: PullContext,
): Promise<void> {
  const request = { upstream: client, segments, repository, digest };
  const unchanged = matches(ctx.req.headers['if-none-match'], digest);
  if (ctx.method === 'HEAD' || unchanged) {
    const { size, outcome } = await blobs.stat(request);
    setBlobHeaders(ctx, digest, outcome);
    ctx.status = unchanged ? 304 : 200;
    if (!unchanged) ctx.length = size;
    return;
  }
  const { content, outcome } = await blobs.open(request);
  try {
    const { size } = content;
    const range = matchesIfRange(ctx.req.headers['if-range'], digest)
      ? parseRange(ctx.req.headers.range, size)
      : 'whole';
    setBlobHeaders(ctx, digest, outcome);
    if (range === 'unsatisfiable') {
      throw new RegistryError('RANGE_INVALID', {
        message: `the blob has ${size} bytes`,
        headers: { 'Content-Range': `bytes */${size}` },
      });
    }
    const span: ByteRange = range === 'whole' ? { start: 0, end: size } : range;
    ctx.status = range === 'whole' ? 200 : 206;
    if (range !== 'whole') ctx.set('Content-Range', formatContentRange(range, size));
    ctx.length = span.end - span.start;
    ctx.respond = false; // Koa steps aside: the sender writes to the reply itself
    // While a cold blob waits for upstream its headers must not: containerd gives up after 30 s without them.
    if (outcome !== 'hit') ctx.res.flushHeaders();
    ctx.state.onHeaders();
    await sender.send(ctx.res, content, span, (bytes) => {
      ctx.state.bytes += bytes;
    });
  } finally {
    await content.close();
  }
}

async function answerTags(
  ctx: PullReply,
  { repository, n, last }: RequestFor<'tags'>,
  { client }: MirroredUpstream,
  { discovery }: PullContext,
): Promise<void> {
  if (n === 0) {
    // Distribution-spec: an empty list, and no Link. Upstreams differ on it, so none is asked.
    setOutcome(ctx, 'bypass');
    sendJson(ctx, Buffer.from(JSON.stringify({ name: repository, tags: [] })), 'application/json');
    return;
  }
  const { body, next } = await discovery.tags({ upstream: client, repository, n, last });
  setOutcome(ctx, 'bypass');
  if (next !== undefined) setNextLink(ctx, next);
  sendJson(ctx, body, 'application/json');
}

async function answerReferrers(
  ctx: PullReply,
  { repository, digest, artifactType }: RequestFor<'referrers'>,
  { client, freshness }: MirroredUpstream,
  { discovery }: PullContext,
): Promise<void> {
  const request = { upstream: client, freshness, repository, digest, artifactType };
  const { referrers, outcome, warning } = await discovery.referrers(request);
  setOutcome(ctx, outcome, warning);
  if (referrers === undefined) {
    throw new RegistryError('UNSUPPORTED', {
      status: 404,
      message: `${client.name} has no referrers API: use the tag ${digest.replace(':', '-')}`,
    });
  }
  if (referrers.filtersApplied !== undefined) ctx.set('OCI-Filters-Applied', referrers.filtersApplied);
  if (referrers.next !== undefined) setNextLink(ctx, referrers.next);
  sendJson(ctx, referrers.body, OCI_INDEX);
}

function setBlobHeaders(ctx: PullReply, digest: string, outcome: CacheOutcome): void {
  setOutcome(ctx, outcome);
  ctx.res.setHeader('Content-Type', 'application/octet-stream');
  ctx.set({
    'Accept-Ranges': 'bytes',
    ETag: `"${digest}"`,
    'Docker-Content-Digest': digest,
    'Cache-Control': `max-age=${ONE_YEAR_SECONDS}, immutable`,
    'X-Content-Type-Options': 'nosniff',
  });
}

const CACHE_STATUS: Record<CacheOutcome, string> = {
  hit: 'millpond; hit',
  revalidated: 'millpond; hit; detail=revalidated',
  stale: 'millpond; hit; detail=stale',
  miss: 'millpond; fwd=uri-miss; stored',
  collapsed: 'millpond; fwd=uri-miss; collapsed',
  updated: 'millpond; fwd=stale; stored',
  bypass: 'millpond; fwd=bypass',
};

/** RFC 9211. A HEAD that went upstream stored nothing. */
function setOutcome(ctx: PullReply, outcome: CacheOutcome, warning?: string): void {
  ctx.state.outcome = outcome;
  ctx.set(
    'Cache-Status',
    outcome === 'miss' && ctx.method === 'HEAD' ? 'millpond; fwd=uri-miss' : CACHE_STATUS[outcome],
  );
  if (warning !== undefined)
    ctx.set('Warning', `299 - "${warning.replace(/[^\x20-\x7e]|["\\]/g, ' ').slice(0, 1000)}"`);
}

/** The client's own path leads to the next page too, whatever route it used; upstream's would lead around the mirror. */
function setNextLink(ctx: PullReply, next: URLSearchParams): void {
  const query = new URLSearchParams(next);
  for (const namespace of new URLSearchParams(ctx.querystring).getAll('ns')) query.append('ns', namespace);
  ctx.set('Link', `<${ctx.path}?${query.toString()}>; rel="next"`);
}

function sendJson(ctx: PullReply, body: Buffer, mediaType: string): void {
  ctx.status = 200;
  ctx.res.setHeader('Content-Type', mediaType);
  ctx.length = body.length;
  if (ctx.method === 'HEAD') return;
  ctx.state.bytes = body.length;
  ctx.body = body;
}

function matches(ifNoneMatch: string | undefined, digest: string): boolean {
  if (ifNoneMatch === undefined) return false;
  const tags = ifNoneMatch.split(',').map((tag) => tag.trim().replace(/^W\//, '').replaceAll('"', ''));
  return tags.includes(digest) || tags.includes('*');
}

/** Without the header a range is a range; with another content's tag, or a date, the client needs the whole. */
function matchesIfRange(ifRange: string | string[] | undefined, digest: string): boolean {
  return ifRange === undefined || String(ifRange).trim().replaceAll('"', '') === digest;
}
