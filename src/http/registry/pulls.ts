/** The registry side: what each kind of request answers. Everything it decides is in mirror/; this is HTTP. */
import type { Middleware } from 'koa';
import type { BlobMirror } from '../../mirror/blobs/blob-mirror.ts';
import { asking } from '../../mirror/freshness.ts';
import type { DiscoveryMirror } from '../../mirror/manifests/discovery-mirror.ts';
import type { ManifestMirror } from '../../mirror/manifests/manifest-mirror.ts';
import type { MirroredUpstream } from '../../mirror/mirrored-upstream.ts';
import type { CacheOutcome } from '../../mirror/outcome.ts';
import { RegistryError } from '../../oci/errors.ts';
import { OCI_INDEX } from '../../oci/manifest.ts';
import type { ListQuery } from '../../oci/reference.ts';
import type { ContentSender } from '../server/content-sender.ts';
import { TurnSender } from '../server/turn-sender.ts';
import type { PullState } from './pull-state.ts';
import { type ByteRange, formatContentRange, parseRange } from './range.ts';
import { commonHeaders, type PullReply, setHeaders, warningHeader } from './reply-head.ts';
import { type PullRequest, RequestParser, type RoutingTable } from './routes.ts';

export interface PullContext {
  table: RoutingTable;
  /** Our own entry in `Via`. */
  via: string;
  upstreamByName: ReadonlyMap<string, MirroredUpstream>;
  manifests: ManifestMirror;
  blobs: BlobMirror;
  discovery: DiscoveryMirror;
  sender: ContentSender;
  /** Whether a client at this address may ask for a tag to be revalidated; absent: none may. */
  mayRevalidate?: (address: string | undefined) => boolean;
  /** Where a front server finds the content store: it may send warm blobs itself. */
  accelRedirect?: string;
}

type RequestFor<K extends PullRequest['kind']> = Extract<PullRequest, { kind: K }>;

/** RFC 9111, 5.2.1.4. */
const NO_CACHE = /(?:^|,)\s*no-cache\s*(?:,|=|$)/i;
const ONE_YEAR_SECONDS = 31_536_000;
/**
 * Up to here a body goes to node:http as Latin-1 text, which holds any bytes and is joined to the head: one string, one
 * write. A Buffer is a second piece, which costs a warm manifest 4 to 6 µs more, of 30.
 */
const ONE_WRITE_BYTES = 16 * 1024;

export function answerPulls(pulls: PullContext): Middleware<PullState> {
  const parser = new RequestParser(pulls.table);
  const turn = new TurnSender();
  return async (ctx) => {
    const { method } = ctx.req;
    if (method !== 'GET' && method !== 'HEAD') {
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
    const request = parser.parse(ctx.req.url ?? '/', ctx.req.headers.host);
    if (request.kind === 'ping') {
      setHeaders(ctx, commonHeaders(ctx));
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
    state.namespace = request.namespace;
    switch (request.kind) {
      case 'manifest':
        state.reference = request.reference;
        return answerManifest(ctx, request, upstream, pulls, turn);
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
  { client, freshnessFor }: MirroredUpstream,
  { manifests, mayRevalidate }: PullContext,
  turn: TurnSender,
): Promise<void> {
  const { req, res, state } = ctx;
  const head = req.method === 'HEAD';
  const { accept } = req.headers;
  const policy = freshnessFor(repository);
  const wantsToKnow =
    mayRevalidate !== undefined && NO_CACHE.test(req.headers['cache-control'] ?? '')
      ? mayRevalidate(req.socket.remoteAddress)
      : false;
  const freshness = wantsToKnow ? asking(policy) : policy;
  const manifest = await manifests.open({
    context: state.context,
    upstream: client,
    freshness,
    repository,
    reference,
    accept,
    head,
  });
  const { digest, bytes, size } = manifest;
  state.outcome = manifest.outcome;
  const headers = commonHeaders(ctx);
  if (manifest.warning !== undefined) headers.push(...warningHeader(manifest.warning));
  headers.push(
    'ETag',
    `"${digest}"`,
    'Docker-Content-Digest',
    digest,
    'X-Content-Type-Options',
    'nosniff',
    // What a tag means can depend on it.
    'Vary',
    'Accept',
  );
  ctx.respond = false; // Koa steps aside: the reply is one head and one body
  if (matches(req.headers['if-none-match'], digest)) {
    res.writeHead(304, headers);
    turn.end(res);
    return;
  }
  headers.push('Content-Type', manifest.mediaType, 'Content-Length', String(size));
  res.writeHead(200, headers);
  if (head || bytes === undefined) {
    turn.end(res);
    return;
  }
  state.bytes = size;
  turn.end(res, size <= ONE_WRITE_BYTES ? bytes.toString('latin1') : bytes);
}

async function answerBlob(
  ctx: PullReply,
  { repository, digest }: RequestFor<'blob'>,
  { client, segments }: MirroredUpstream,
  { blobs, sender, accelRedirect }: PullContext,
): Promise<void> {
  const request = { context: ctx.state.context, upstream: client, segments, repository, digest };
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
    if (accelRedirect !== undefined && content.file !== undefined && isFrontServer(ctx)) {
      // The front server does the rest, ranges included; it passes our Accept-Ranges on besides its own.
      ctx.remove('Accept-Ranges');
      ctx.set('X-Accel-Redirect', accelRedirect + content.file);
      ctx.status = 200;
      ctx.state.bytes = span.end - span.start;
      ctx.body = '';
      return;
    }
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
  { repository, query }: RequestFor<'tags'>,
  { client }: MirroredUpstream,
  { discovery }: PullContext,
): Promise<void> {
  const n = new URLSearchParams(query).get('n');
  if (n !== null && Number(n) === 0) {
    // Distribution-spec: an empty list, and no Link. Upstreams differ on it, so none is asked.
    setOutcome(ctx, 'bypass');
    sendJson(ctx, Buffer.from(JSON.stringify({ name: repository, tags: [] })), 'application/json');
    return;
  }
  const { body, next } = await discovery.tags({
    context: ctx.state.context,
    upstream: client,
    repository,
    query,
  });
  setOutcome(ctx, 'bypass');
  if (next !== undefined) setNextLink(ctx, next);
  sendJson(ctx, body, 'application/json');
}

async function answerReferrers(
  ctx: PullReply,
  { repository, digest, query }: RequestFor<'referrers'>,
  { client, freshnessFor }: MirroredUpstream,
  { discovery }: PullContext,
): Promise<void> {
  const freshness = freshnessFor(repository);
  const request = { context: ctx.state.context, upstream: client, freshness, repository, digest, query };
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

/** It says so, as Rack and Rails let it say; a client that comes past it gets its blobs from us. */
function isFrontServer(ctx: PullReply): boolean {
  return ctx.get('X-Sendfile-Type').toLowerCase() === 'x-accel-redirect';
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

function setOutcome(ctx: PullReply, outcome: CacheOutcome, warning?: string): void {
  ctx.state.outcome = outcome;
  setHeaders(ctx, commonHeaders(ctx));
  setHeaders(ctx, warningHeader(warning));
}

/** The client's own path leads to the next page too, whatever route it used; upstream's would lead around the mirror. */
function setNextLink(ctx: PullReply, next: ListQuery): void {
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
