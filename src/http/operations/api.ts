/** The operations API: lets the command line, and scripts, control a running mirror. Answers JSON, also for errors. */
import { Readable } from 'node:stream';
import Router from '@koa/router';
import type { Context } from 'koa';
import type { ScrubEvent } from '../../cache/catalog/scrub.ts';
import type { RepositoryKey } from '../../cache/index/index-store.ts';
import type { FleetRemovalReport } from '../../fleet/journal/fleet-decisions.ts';
import type { ImagePosition, Images } from '../../mirror/manifests/images.ts';
import type { ImageName } from '../../oci/image-name.ts';
import { parseImageName } from '../../oci/image-name.ts';
import { imagePattern, type Reference } from '../../oci/reference.ts';
import type { Logger } from '../../telemetry/log.ts';
import { ApiError, messageOf } from './errors.ts';
import type { OperationsState } from './permit.ts';
import type { Status } from './status.ts';

const IMAGES_A_PAGE = 500;

/** Its fields are the reply, but for `successful`, which becomes the status. */
type ReloadReply =
  | { successful: true; changes: readonly object[]; waitsForRestart: readonly string[] }
  | { successful: false; problems: readonly object[] };

/** What is done to all nodes of a fleet. Both throw {ApiError} if the nodes cannot be told: then nothing has changed. */
export interface FleetOperations {
  /** @returns undefined if neither this node nor the store knows the image */
  remove(key: RepositoryKey, reference: Reference): Promise<FleetRemovalReport | undefined>;
  setSealed(sealed: boolean): Promise<void>;
}

export interface ApiContext {
  logger: Logger;
  status: () => Promise<Status>;
  images: Images;
  isPinned: (image: string) => boolean;
  /** Finds the name of the configured upstream that a host in an image name means. */
  upstreamOf: (host: string) => string | undefined;
  /** @returns undefined if there is no configuration file */
  reload: () => Promise<ReloadReply | undefined>;
  /** Lasts until the next start, which uses the configuration again. @returns whether the mirror is sealed now */
  setSealed: (sealed: boolean) => Promise<boolean>;
  /** Undefined: the mirror is alone. */
  fleet: FleetOperations | undefined;
  /** @returns undefined if a scrub is running already */
  scrub: (signal: AbortSignal) => AsyncGenerator<ScrubEvent> | undefined;
}

export function apiRoutes(api: ApiContext): Router<OperationsState> {
  const router = new Router<OperationsState>({ prefix: '/api' });

  router.get('/status', async (ctx) => {
    ctx.state.permit.require(['observe']);
    ctx.body = await api.status();
  });

  router.get('/images', async (ctx) => {
    const { permit } = ctx.state;
    permit.expectSome('observe');
    const mayList = permit.only(['observe', 'pull']);
    const query = new URLSearchParams(ctx.querystring);
    const images = [];
    let next: ImagePosition | undefined;
    const isIncomplete = query.get('incomplete') === 'true';
    const listed = api.images.list(
      imagePattern(query.get('pattern') ?? '*'),
      parseCursor(query.get('cursor') ?? undefined),
    );
    for await (const [position, image] of listed) {
      if (!mayList(image) || (isIncomplete && image.state === 'complete')) continue;
      images.push({
        ...image,
        pinned: api.isPinned(image.name),
        usedAt: new Date(image.usedAt).toISOString(),
      });
      if (images.length < IMAGES_A_PAGE) continue;
      next = position;
      break;
    }
    ctx.body = { images, ...(next === undefined ? {} : { next: formatCursor(next) }) };
  });

  router.delete('/images/*name', async (ctx) => {
    const { permit } = ctx.state;
    permit.expectSome('operate');
    const { name, upstream } = imageOf(ctx.params['name'], api);
    permit.require(['operate'], [{ upstream, repository: name.repository }]);
    const reference: Reference | undefined = name.digest ?? name.tag;
    if (reference === undefined)
      throw new ApiError(400, 'name a tag or a digest, so that it is clear what to remove');
    const key = { upstream, repository: name.repository };
    const { fleet } = api;
    const isEverywhere = fleet !== undefined && scopeOf(ctx, 'fleet') === 'fleet';
    const removal = isEverywhere
      ? await fleet.remove(key, reference)
      : await api.images.remove(key, reference);
    if (removal === undefined) {
      const where = isEverywhere ? 'in this mirror, nor in the store of the fleet' : 'in this mirror';
      throw new ApiError(404, `${upstream}/${name.repository} has no ${reference} ${where}`);
    }
    ctx.body = removal;
  });

  for (const [path, sealed] of [
    ['/seal', true],
    ['/unseal', false],
  ] as const) {
    router.post(path, async (ctx) => {
      ctx.state.permit.require(['operate']);
      const { fleet } = api;
      if (scopeOf(ctx, 'node') === 'node') {
        ctx.body = { sealed: await api.setSealed(sealed) };
        return;
      }
      if (fleet === undefined) throw new ApiError(409, 'this mirror is alone: it has no fleet');
      await fleet.setSealed(sealed);
      ctx.body = { sealed };
    });
  }

  router.post('/reload', async (ctx) => {
    ctx.state.permit.require(['operate']);
    const result = await api.reload();
    if (result === undefined)
      throw new ApiError(409, 'nothing to reload: the mirror was started without a configuration file');
    const { successful, ...reply } = result;
    ctx.status = successful ? 200 : 422;
    ctx.body = successful
      ? reply
      : { error: 'the configuration file has mistakes: the old configuration stays in use', ...reply };
  });

  router.post('/scrub', async (ctx) => {
    ctx.state.permit.require(['operate']);
    const events = api.scrub(ctx.state.caller.signal);
    if (events === undefined) throw new ApiError(409, 'a scrub is running already');
    await sendEvents(ctx, events, api.logger);
  });
  return router;
}

/** What a request is for: this node, or all of the fleet. */
function scopeOf(ctx: Context, usual: 'node' | 'fleet'): 'node' | 'fleet' {
  const scope = new URLSearchParams(ctx.querystring).get('scope') ?? usual;
  if (scope !== 'node' && scope !== 'fleet')
    throw new ApiError(400, `scope is node or fleet, and not ${scope}`);
  return scope;
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
      if (!(error instanceof ApiError)) logger.error({ err: error, path: ctx.path }, 'operation failed');
      yield `${JSON.stringify({ event: 'error', message: messageOf(error) })}\n`;
    }
  }
  ctx.type = 'application/x-ndjson';
  ctx.body = Readable.from(lines());
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
