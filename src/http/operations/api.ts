/** The operations API: lets the command line, and scripts, control a running mirror. Answers JSON, also for errors. */
import { randomUUID } from 'node:crypto';
import { Readable } from 'node:stream';
import Router from '@koa/router';
import type { Context, Middleware } from 'koa';
import type { ScrubEvent } from '../../cache/catalog/scrub.ts';
import type { ImagePosition, Images } from '../../mirror/manifests/images.ts';
import type { ImageName } from '../../oci/image-name.ts';
import { parseImageName } from '../../oci/image-name.ts';
import { imagePattern, type Reference } from '../../oci/reference.ts';
import type { RequestContext } from '../../request-context.ts';
import type { Logger } from '../../telemetry/log.ts';
import type { Status } from './status.ts';

const IMAGES_A_PAGE = 500;

export interface ApiContext {
  logger: Logger;
  status: () => Promise<Status>;
  images: Images;
  /** Finds the name of the configured upstream that a host in an image name means. */
  upstreamOf: (host: string) => string | undefined;
  /** Lasts until the next start, which uses the configuration again. */
  setSealed: (sealed: boolean) => Promise<void>;
  /** @returns undefined if a scrub is running already */
  scrub: (signal: AbortSignal) => AsyncGenerator<ScrubEvent> | undefined;
}

/** A request to the API that cannot be done. The message goes to the client. */
export class ApiError extends Error {
  override readonly name = 'ApiError';
  readonly status: number;

  constructor(status: 400 | 403 | 404 | 409, message: string) {
    super(message);
    this.status = status;
  }
}

export function apiRoutes(api: ApiContext): Router {
  const router = new Router({ prefix: '/api' });
  router.use(answerErrors(api.logger), refuseWebPages());

  router.get('/status', async (ctx) => {
    ctx.body = await api.status();
  });

  router.get('/images', async (ctx) => {
    const query = new URLSearchParams(ctx.querystring);
    const images = [];
    let next: ImagePosition | undefined;
    const listed = api.images.list(
      imagePattern(query.get('pattern') ?? '*'),
      parseCursor(query.get('cursor') ?? undefined),
    );
    for await (const [position, image] of listed) {
      images.push({ ...image, usedAt: new Date(image.usedAt).toISOString() });
      if (images.length < IMAGES_A_PAGE) continue;
      next = position;
      break;
    }
    ctx.body = { images, ...(next === undefined ? {} : { next: formatCursor(next) }) };
  });

  router.delete('/images/*name', async (ctx) => {
    const { name, upstream } = imageOf(ctx.params['name'], api);
    const reference: Reference | undefined = name.digest ?? name.tag;
    if (reference === undefined)
      throw new ApiError(400, 'name a tag or a digest, so that it is clear what to remove');
    const removal = await api.images.remove({ upstream, repository: name.repository }, reference);
    if (removal === undefined)
      throw new ApiError(404, `${upstream}/${name.repository} has no ${reference} in this mirror`);
    ctx.body = removal;
  });

  for (const [path, sealed] of [
    ['/seal', true],
    ['/unseal', false],
  ] as const) {
    router.post(path, async (ctx) => {
      await api.setSealed(sealed);
      ctx.body = { sealed };
    });
  }

  router.post('/scrub', async (ctx) => {
    const events = api.scrub(contextOf(ctx).signal);
    if (events === undefined) throw new ApiError(409, 'a scrub is running already');
    await sendEvents(ctx, events, api.logger);
  });
  return router;
}

function imageOf(text: string | undefined, api: ApiContext): { name: ImageName; upstream: string } {
  const name = parseImageName(text ?? '');
  if (name === undefined)
    throw new ApiError(400, `${text} is not an image name: write it like docker.io/library/alpine:3.20`);
  const upstream = api.upstreamOf(name.host);
  if (upstream === undefined) throw new ApiError(404, `${name.host} is not one of the configured upstreams`);
  return { name, upstream };
}

/**
 * Answers with one JSON object a line, as the events come. An error after the first event becomes the last line. The
 * work ends when the client leaves.
 */
export async function sendEvents(
  ctx: Context,
  events: AsyncGenerator<{ event: string }>,
  logger: Logger,
): Promise<void> {
  // The generator must have started before the reply can fail: only then does `return` run its `finally`.
  const first = await events.next();
  ctx.res.once('close', () => void events.return(undefined));
  async function* lines() {
    try {
      for (let next = first; next.done !== true; next = await events.next()) {
        yield `${JSON.stringify(next.value)}\n`;
      }
    } catch (error) {
      logger.error({ err: error, path: ctx.path }, 'operation failed');
      yield `${JSON.stringify({ event: 'error', message: messageOf(error) })}\n`;
    }
  }
  ctx.type = 'application/x-ndjson';
  ctx.body = Readable.from(lines());
}

export function contextOf(ctx: Context): RequestContext & { signal: AbortSignal } {
  const abort = new AbortController();
  ctx.res.once('close', () => abort.abort(new Error('the client left')));
  return { id: randomUUID(), identity: { kind: 'operator' }, signal: abort.signal };
}

export function answerErrors(logger: Logger): Middleware {
  return async (ctx, next) => {
    try {
      await next();
    } catch (error) {
      ctx.status = error instanceof ApiError ? error.status : 500;
      if (ctx.status === 500) logger.error({ err: error, path: ctx.path }, 'operation failed');
      ctx.body = { error: messageOf(error) };
    }
  };
}

/** Refuses web pages: a page that is open on a machine that reaches the mirror must not be able to control the mirror. */
export function refuseWebPages(): Middleware {
  return async (ctx, next) => {
    const site = ctx.get('Sec-Fetch-Site');
    if (ctx.get('Origin') !== '' || (site !== '' && site !== 'none' && site !== 'same-origin')) {
      throw new ApiError(403, 'requests from web pages are refused');
    }
    await next();
  };
}

function parseCursor(cursor: string | undefined): ImagePosition | undefined {
  if (cursor === undefined) return undefined;
  try {
    const position: unknown = JSON.parse(Buffer.from(cursor, 'base64url').toString('utf8'));
    if (typeof position === 'object' && position !== null && ('tag' in position || 'digest' in position))
      return position as ImagePosition;
  } catch {
    // reported below
  }
  throw new ApiError(400, 'the cursor is not from this mirror: leave it out to begin with the first page');
}

function formatCursor(position: ImagePosition): string {
  return Buffer.from(JSON.stringify(position)).toString('base64url');
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
