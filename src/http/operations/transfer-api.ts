/** The part of the operations API that moves images in and out: warm, export, import. */
import { pipeline } from 'node:stream/promises';
import Router from '@koa/router';
import * as z from 'zod';
import type { Target } from '../../access/rules/rule.ts';
import { errnoOf } from '../../cache/store/errors.ts';
import { parseDigest } from '../../oci/digest.ts';
import { parseImageName } from '../../oci/image-name.ts';
import { isPlatform } from '../../oci/platform.ts';
import type { Logger } from '../../telemetry/log.ts';
import { ImageError } from '../../transfer/errors.ts';
import type { Exporter, ExportRequest } from '../../transfer/exporter.ts';
import type { Importer } from '../../transfer/importer.ts';
import { requestedImage, type UpstreamOf } from '../../transfer/requested-image.ts';
import type { Warmer } from '../../transfer/warmer.ts';
import { sendEvents } from './api.ts';
import { ApiError, imageApiError } from './errors.ts';
import { checked, readJson, unlessStalled } from './json-body.ts';
import type { OperationsReply, OperationsState } from './permit.ts';

export interface TransferContext {
  warmer: Warmer;
  exporter: Exporter;
  importer: Importer;
  upstreamOf: UpstreamOf;
  logger: Logger;
  /** A client that moves no byte for this long is cut. */
  clientTimeoutMs: number;
}

const PLATFORMS = z
  .array(z.string().refine(isPlatform, 'not a platform: write it like linux/amd64'))
  .default([]);

const IMAGES = z.array(z.string()).min(1, 'name at least one image');

const WARM = z.strictObject({ images: IMAGES, platforms: PLATFORMS, referrers: z.boolean().default(true) });

const EXPORT = z.strictObject({
  images: IMAGES,
  platforms: PLATFORMS,
  since: z
    .array(z.string())
    .default([])
    .transform((digests) => new Set(digests.flatMap((digest) => parseDigest(digest) ?? []))),
});

export function transferRoutes(context: TransferContext): Router<OperationsState> {
  const { warmer, importer, upstreamOf, logger, clientTimeoutMs } = context;
  const router = new Router<OperationsState>({ prefix: '/api' });

  router.post('/warm', async (ctx) => {
    const { permit, caller } = ctx.state;
    permit.expectSome('operate');
    const wanted = checked(WARM, await readJson(ctx.req, clientTimeoutMs));
    permit.require(['operate', 'fetch'], meant(wanted.images, upstreamOf));
    await sendEvents(ctx, warmer.begin(wanted, caller), logger);
  });

  router.get('/export', async (ctx) => {
    ctx.state.permit.expectSome('operate');
    const query = new URLSearchParams(ctx.querystring);
    const [images, platforms] = [query.getAll('image'), query.getAll('platform')];
    await sendArchive(ctx, checked(EXPORT, { images, platforms }), context);
  });

  router.post('/export', async (ctx) => {
    ctx.state.permit.expectSome('operate');
    await sendArchive(ctx, checked(EXPORT, await readJson(ctx.req, clientTimeoutMs)), context);
  });

  router.post('/import', async (ctx) => {
    const { permit } = ctx.state;
    permit.expectSome('operate');
    const query = new URLSearchParams(ctx.querystring);
    const given = query.get('name');
    const verify = query.get('verify') === 'true';
    const name = given === null ? undefined : parseImageName(given);
    if (given !== null && name === undefined)
      throw new ApiError(400, `${given} is not an image name: write it like docker.io/library/alpine:3.20`);
    const named = given === null ? [] : meant([given], upstreamOf);
    // Refused before the archive is sent, where that can be known.
    if (named.some((image) => !permit.has('operate', image))) permit.require(['operate'], named);
    const archive = unlessStalled(ctx.req, clientTimeoutMs);
    const authorize = (images: readonly Target[]) => permit.require(['operate'], images);
    const isTrusted = permit.has('operate');
    await sendEvents(ctx, importer.begin({ archive, name, authorize, isTrusted, verify }), logger);
  });
  return router;
}

/** The images that names mean. Leaves out names that cannot be served: the operation itself says what is wrong with them. */
function meant(names: readonly string[], upstreamOf: UpstreamOf): Target[] {
  return names.flatMap((name) => {
    try {
      return requestedImage(name, upstreamOf).key;
    } catch (error) {
      if (error instanceof ImageError) return [];
      throw error;
    }
  });
}

async function sendArchive(
  ctx: OperationsReply,
  request: ExportRequest,
  { exporter, upstreamOf, logger, clientTimeoutMs }: TransferContext,
): Promise<void> {
  ctx.state.permit.require(['operate', 'pull'], meant(request.images, upstreamOf));
  using archive = await exporter.prepare(request).catch((error: unknown) => {
    if (error instanceof ImageError) throw imageApiError(error);
    throw error;
  });
  ctx.respond = false; // from now on an error can only cut the reply
  ctx.res.writeHead(200, {
    'Content-Type': 'application/x-tar',
    'Millpond-Content-Bytes': String(archive.contentBytes),
  });
  ctx.res.setTimeout(clientTimeoutMs, () => {
    logger.warn({ path: ctx.path }, 'export cut: its client has stopped reading');
    ctx.res.destroy();
  });
  try {
    await pipeline(archive.tar, ctx.res);
  } catch (error) {
    if (errnoOf(error) === 'ERR_STREAM_PREMATURE_CLOSE') return; // the client left
    logger.error({ err: error, path: ctx.path }, 'export broken off');
  }
}
