/** Answers requests for blobs. */
import type { BlobMirror } from '../../mirror/blobs/blob-mirror.ts';
import type { MirroredUpstream } from '../../mirror/mirrored-upstream.ts';
import type { CacheOutcome } from '../../mirror/outcome.ts';
import type { Digest } from '../../oci/digest.ts';
import { RegistryError } from '../../oci/errors.ts';
import { matchesIfNoneMatch, matchesIfRange } from '../server/conditional.ts';
import type { ContentSender } from '../server/content-sender.ts';
import { type ByteRange, formatContentRange, parseRange } from '../server/range.ts';
import { blobHeaders, redirectHeaders, setHeaders } from './headers.ts';
import type { PullReply } from './pull-state.ts';
import type { BlobRequest } from './routes.ts';

export interface BlobContext {
  blobs: Pick<BlobMirror, 'open' | 'stat'>;
  sender: ContentSender;
  /**
   * Gives a URL of a stored blob by which this client can have it in place of from here. It must get into no log. Undefined:
   * the blob is to be sent from here.
   *
   * @param size bytes @param client its address, where it is known
   */
  elsewhere?: (digest: Digest, size: number, client: string | undefined) => Promise<string | undefined>;
  /** Where a front server finds the content store, so that it can send warm blobs itself. */
  accelRedirect?: string;
}

export async function answerBlob(
  ctx: PullReply,
  { repository, digest }: Readonly<BlobRequest>,
  { client, segments }: MirroredUpstream,
  { blobs, sender, accelRedirect, elsewhere }: BlobContext,
): Promise<void> {
  const { req, res, state } = ctx;
  const request = { context: state.context, upstream: client, segments, repository, digest };
  const unchanged = matchesIfNoneMatch(req.headers['if-none-match'], digest);
  if (req.method === 'HEAD' || unchanged) {
    const { size, outcome } = await blobs.stat(request);
    state.outcome = outcome;
    setHeaders(ctx, blobHeaders(ctx, digest));
    ctx.status = unchanged ? 304 : 200;
    if (!unchanged) ctx.length = size;
    return;
  }
  const { content, outcome } = await blobs.open(request);
  try {
    state.outcome = outcome;
    const { size } = content;
    const range = matchesIfRange(req.headers['if-range'], digest)
      ? parseRange(req.headers.range, size)
      : 'whole';
    if (range === 'unsatisfiable') {
      throw new RegistryError('RANGE_INVALID', {
        message: `the blob has ${size} bytes`,
        headers: { 'Content-Range': `bytes */${size}` },
      });
    }
    // The other place has an ETag of its own, which no If-Range fits.
    const isRedirectable = isStored(outcome) && req.headers['if-range'] === undefined;
    const url = isRedirectable ? await elsewhere?.(digest, size, state.context.client.address) : undefined;
    if (url !== undefined) {
      setHeaders(ctx, redirectHeaders(ctx, digest, url));
      ctx.status = 307;
      ctx.body = '';
      return;
    }
    const span: ByteRange = range === 'whole' ? { start: 0, end: size } : range;
    setHeaders(ctx, blobHeaders(ctx, digest));
    if (accelRedirect !== undefined && content.file !== undefined && comesFromFrontServer(ctx)) {
      // The front server sends the body, and the range of it. It adds an Accept-Ranges of its own to ours.
      ctx.remove('Accept-Ranges');
      ctx.set('X-Accel-Redirect', accelRedirect + content.file);
      ctx.status = 200;
      state.bytes = span.end - span.start;
      ctx.body = '';
      return;
    }
    ctx.status = range === 'whole' ? 200 : 206;
    if (range !== 'whole') ctx.set('Content-Range', formatContentRange(range, size));
    ctx.length = span.end - span.start;
    ctx.respond = false; // the sender writes the reply, not Koa
    // The headers of a stored blob are held until its first bytes are read: if that fails, the client gets an error
    // reply. The headers of a cold blob must not wait for upstream: containerd gives up after 30 s without them.
    if (outcome !== 'hit') res.flushHeaders();
    state.onHeaders();
    await sender.send(res, content, span, (bytes) => {
      state.bytes += bytes;
    });
  } finally {
    await content.close();
  }
}

/** A cold blob comes in anyway, so that this node has the work of it already. */
function isStored(outcome: CacheOutcome): boolean {
  return outcome === 'hit' || outcome === 'revalidated';
}

/**
 * A front server says so in the header that Rack and Rails use for it. It counts only from a trusted proxy: any client can
 * send it, and would get an empty body.
 */
function comesFromFrontServer(ctx: PullReply): boolean {
  return ctx.state.context.client.viaProxy && ctx.get('X-Sendfile-Type').toLowerCase() === 'x-accel-redirect';
}
