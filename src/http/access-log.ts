/** One log line and one count for every request on the registry side, when its reply has ended or broken off. */
import { randomUUID } from 'node:crypto';
import type { Context, Middleware } from 'koa';
import { errnoOf } from '../cache/errors.ts';
import type { Clock } from '../clock.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { ClientGoneError } from './content.ts';
import type { PullState } from './pull-state.ts';

export function accessLog(options: {
  logger: Logger;
  metrics: Metrics;
  clock: Clock;
}): Middleware<PullState> {
  const { logger, metrics, clock } = options;
  return async (ctx, next) => {
    const startedAt = clock.now();
    ctx.state.requestId = randomUUID();
    ctx.state.bytes = 0;
    let repliedAt: number | undefined;
    ctx.state.onHeaders = () => {
      repliedAt ??= clock.now();
    };
    ctx.res.once('close', () => {
      const seconds = Math.max(0, clock.now() - startedAt) / 1000;
      const firstByteSeconds = Math.max(0, (repliedAt ?? startedAt) - startedAt) / 1000;
      count(metrics, ctx, seconds, firstByteSeconds);
      writeLine(logger, ctx, seconds, firstByteSeconds);
    });
    await next();
    ctx.state.onHeaders();
  };
}

function count(
  metrics: Metrics,
  ctx: Context & { state: PullState },
  seconds: number,
  firstByte: number,
): void {
  const { kind, upstream, outcome, bytes } = ctx.state;
  if (kind === undefined || upstream === undefined) return; // pings and refused requests are no traffic of the cache
  const cache = outcome ?? 'none';
  metrics.requests.inc({ upstream, kind, method: ctx.method, cache, code: ctx.res.statusCode });
  if (bytes > 0) metrics.responseBytes.inc({ upstream, kind, cache }, bytes);
  metrics.requestDuration.observe({ kind, cache }, seconds);
  metrics.firstByte.observe({ kind, cache }, firstByte);
}

function writeLine(
  logger: Logger,
  ctx: Context & { state: PullState },
  seconds: number,
  firstByte: number,
): void {
  const { requestId, kind, upstream, repository, reference, outcome, bytes, error } = ctx.state;
  const line = {
    requestId,
    client: ctx.req.socket.remoteAddress,
    method: ctx.method,
    kind,
    upstream,
    repository,
    reference,
    status: ctx.res.statusCode,
    cache: outcome,
    bytes,
    durationMs: Math.round(seconds * 1000),
    firstByteMs: Math.round(firstByte * 1000),
    // A line of this request's own: the path is a client's input, and pino escapes it.
    ...(kind === undefined ? { path: ctx.req.url?.slice(0, 300) } : {}),
    // The reply was cut, by the client or by us, and he got less than its Content-Length.
    ...(ctx.res.writableFinished ? {} : { aborted: true }),
    ...(error instanceof Error && !(error instanceof ClientGoneError) ? { err: error.message } : {}),
  };
  if (isOurFault(error)) logger.error({ ...line, err: error }, 'request failed');
  else logger.info(line, 'request');
}

/** An error that none of the typed ones describes is a defect, and the only one whose stack is worth a line. */
function isOurFault(error: unknown): boolean {
  if (error === undefined) return false;
  const expected = ['RegistryError', 'UpstreamError', 'ContentError', 'StorageError', 'ClientGoneError'];
  return !(error instanceof Error && (expected.includes(error.name) || errnoOf(error) === 'ECONNRESET'));
}
