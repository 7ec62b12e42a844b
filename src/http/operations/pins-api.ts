/** The part of the operations API about pins: images that are never evicted. */
import Router from '@koa/router';
import * as z from 'zod';
import { type Pins, PinsTooLargeError } from '../../cache/catalog/pins.ts';
import type { Logger } from '../../telemetry/log.ts';
import { ApiError } from './errors.ts';
import { checked, readJson } from './json-body.ts';
import type { OperationsState } from './permit.ts';

export interface PinsApiContext {
  pins: Pins;
  /** Of the cache. */
  maxBytes: number;
  /** @returns why `pattern` is none of images; undefined if it is one */
  problemOf: (pattern: string) => string | undefined;
  logger: Logger;
  clientTimeoutMs: number;
}

const MOST_LENGTH = 500;
const PIN = z.strictObject({ pattern: z.string().max(MOST_LENGTH) });

export function pinRoutes(api: PinsApiContext): Router<OperationsState> {
  const { pins, maxBytes, problemOf, logger, clientTimeoutMs } = api;
  const router = new Router<OperationsState>({ prefix: '/api' });

  router.get('/pins', (ctx) => {
    ctx.state.permit.require(['observe']);
    ctx.body = { pins: pins.all };
  });

  router.post('/pins', async (ctx) => {
    ctx.state.permit.require(['operate']);
    const { pattern } = checked(PIN, await readJson(ctx.req, clientTimeoutMs));
    const problem = problemOf(pattern);
    if (problem !== undefined) throw new ApiError(400, problem);
    try {
      await pins.add(pattern, maxBytes);
    } catch (error) {
      if (!(error instanceof PinsTooLargeError)) throw error;
      throw new ApiError(409, `${error.message}: raise it, or unpin something; nothing was pinned`);
    }
    logger.info({ pattern }, 'pinned');
    ctx.body = { pins: pins.all };
  });

  router.delete('/pins/*pattern', async (ctx) => {
    ctx.state.permit.require(['operate']);
    const pattern = ctx.params['pattern'] ?? '';
    if (!(await pins.remove(pattern))) throw new ApiError(404, whyNotThere(pins, pattern));
    logger.info({ pattern }, 'unpinned');
    ctx.body = { pins: pins.all };
  });
  return router;
}

function whyNotThere(pins: Pins, pattern: string): string {
  return pins.all.some((pin) => pin.pattern === pattern)
    ? `${pattern} is pinned by the configuration: take it out of cache.pin`
    : `${pattern} is not pinned: millpond pins lists what is`;
}
