/** Writes one log line and counts one reply for every request on the registry side, when its reply has ended or was cut. */
import { randomBytes } from 'node:crypto';
import type { Middleware } from 'koa';
import type { DestinationStream } from 'pino';
import { errnoOf } from '../../cache/store/errors.ts';
import type { Clock } from '../../clock.ts';
import type { Identity } from '../../request-context.ts';
import type { Logger } from '../../telemetry/log.ts';
import type { Metrics } from '../../telemetry/metrics.ts';
import { type RequestLine, RequestLog } from '../../telemetry/request-log.ts';
import { UpstreamError } from '../../upstream/errors.ts';
import { ClientGoneError } from '../server/content-sender.ts';
import { type ClientOf, ClientRequest } from './client-request.ts';
import type { PullReply, PullState } from './pull-state.ts';

export function accessLog(options: {
  logger: Logger;
  metrics: Metrics;
  clock: Clock;
  clientOf: ClientOf;
  /** Which requests get a line. */
  lines: 'all' | 'errors' | 'none';
  /** Where `logger` writes, too. */
  destination: DestinationStream;
}): Middleware<PullState> {
  const { logger, metrics, clock, clientOf } = options;
  const log = {
    logger,
    lines: new RequestLog({ logger, destination: options.destination, now: () => clock.now() }),
  };
  // Random once, then counted: an id must differ from all others and need not be hard to guess. A random id for each
  // request is longer in every line and costs a hit 1.04 times the CPU.
  const prefix = randomBytes(6).toString('hex');
  let requests = 0;
  return async (ctx, next) => {
    const startedAt = clock.now();
    requests += 1;
    ctx.state.context = new ClientRequest(`${prefix}-${requests}`, ctx.res, clientOf);
    ctx.state.bytes = 0;
    let repliedAt: number | undefined;
    ctx.state.onHeaders = () => {
      repliedAt ??= clock.now();
    };
    ctx.res.on('close', () => {
      const seconds = Math.max(0, clock.now() - startedAt) / 1000;
      const firstByteSeconds = Math.max(0, (repliedAt ?? startedAt) - startedAt) / 1000;
      count(metrics, ctx, seconds, firstByteSeconds);
      if (isWritten(ctx, options.lines, logger)) writeLine(log, ctx, seconds, firstByteSeconds);
    });
    await next();
    ctx.state.onHeaders();
  };
}

/** A defect of ours always gets its line. A ping that was answered is noise: daemons send one before each pull. */
function isWritten(ctx: PullReply, lines: 'all' | 'errors' | 'none', logger: Logger): boolean {
  const { error, isPing } = ctx.state;
  if (isPing === true && !logger.isLevelEnabled('debug')) return false;
  if (lines === 'all' || isOurFault(error)) return true;
  return lines === 'errors' && (error !== undefined || ctx.res.statusCode >= 400);
}

function count(metrics: Metrics, ctx: PullReply, seconds: number, firstByte: number): void {
  const { kind, upstream, outcome, bytes, error } = ctx.state;
  if (kind === undefined || upstream === undefined) return; // pings and refused requests are not traffic of the cache
  const cache = outcome ?? 'none';
  const code = ctx.res.statusCode;
  metrics.replies.add({ upstream, kind, method: ctx.method, cache, code }, bytes, seconds, firstByte);
  if (error instanceof UpstreamError && error.code === 'sealed') metrics.sealedRefusals.inc({ upstream });
}

function writeLine(
  { logger, lines }: { logger: Logger; lines: RequestLog },
  ctx: PullReply,
  seconds: number,
  firstByte: number,
): void {
  const { context, kind, upstream, repository, reference, outcome, bytes, error, rule } = ctx.state;
  const line: RequestLine = {
    requestId: context.id,
    client: context.client.address,
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
    path: kind === undefined ? (ctx.state.path ?? ctx.req.url?.slice(0, 300)) : undefined,
    identity: ctx.state.guarded === undefined ? undefined : identityText(context.identity),
    rule,
    // The reply was cut, by the client or by us: the client got less than its Content-Length.
    aborted: ctx.res.writableFinished ? undefined : true,
    err: error instanceof Error && !(error instanceof ClientGoneError) ? error.message : undefined,
  };
  if (isOurFault(error)) logger.error({ ...line, err: error }, 'request failed');
  else lines.write(line);
}

function identityText({ kind, name }: Identity): string {
  return name === undefined ? kind : `${kind}:${name}`;
}

/** An error without a type of ours is a defect. Only for a defect is the stack worth logging. */
function isOurFault(error: unknown): boolean {
  if (error === undefined) return false;
  const expected = [
    'RegistryError',
    'UpstreamError',
    'ContentError',
    'StorageError',
    'PolicyError',
    'ClientGoneError',
  ];
  return !(error instanceof Error && (expected.includes(error.name) || errnoOf(error) === 'ECONNRESET'));
}
