/** Turns every error into what the client sees. This is the only place that does. */
import type { Middleware } from 'koa';
import { ContentError, StorageError } from '../../cache/store/errors.ts';
import { type OciErrorCode, RegistryError } from '../../oci/errors.ts';
import { PolicyError, UndecidedError } from '../../policy/errors.ts';
import type { RequestKind } from '../../telemetry/metrics.ts';
import { UpstreamError } from '../../upstream/errors.ts';
import { ClientGoneError } from '../server/content-sender.ts';
import { errorHeaders, setHeaders } from './headers.ts';
import type { PullReply, PullState } from './pull-state.ts';

/** Replies that are about the one who asks, and about now. */
const REFUSALS: readonly number[] = [401, 403, 429];

const UNKNOWN_BY_KIND: Record<RequestKind, OciErrorCode> = {
  // Not NAME_UNKNOWN: containers/image understands only MANIFEST_UNKNOWN as "this image has no signature".
  manifest: 'MANIFEST_UNKNOWN',
  blob: 'BLOB_UNKNOWN',
  tags: 'NAME_UNKNOWN',
  // Not NAME_UNKNOWN: oras treats it as a failure, and every other code as "no referrers API".
  referrers: 'MANIFEST_UNKNOWN',
};

export function toRegistryError(error: unknown, kind: RequestKind): RegistryError {
  if (error instanceof RegistryError) return error;
  if (error instanceof UpstreamError) return fromUpstream(error, kind);
  if (error instanceof PolicyError) {
    return new RegistryError('DENIED', { message: error.message, detail: { ...error.detail }, cause: error });
  }
  if (error instanceof UndecidedError) {
    const seconds = Math.max(1, Math.ceil(error.retryAfterMs / 1000));
    return new RegistryError('UNAVAILABLE', {
      ...{ status: 503, message: error.message, detail: { ...error.detail }, cause: error },
      headers: { 'Retry-After': String(seconds) },
    });
  }
  if (error instanceof ContentError) {
    const message = `wrong content: ${error.message}`;
    return new RegistryError('UNAVAILABLE', { message, detail: { digest: error.digest }, cause: error });
  }
  if (error instanceof StorageError) {
    return new RegistryError('UNKNOWN', { message: error.message, cause: error });
  }
  return new RegistryError('UNKNOWN', { cause: error });
}

function fromUpstream(error: UpstreamError, kind: RequestKind): RegistryError {
  const { message, code, upstreamCode, retryAfterMs } = error;
  const detail = { upstream: error.upstream, ...(upstreamCode === undefined ? {} : { upstreamCode }) };
  const common = { message, detail, cause: error };
  switch (code) {
    case 'not-found':
    case 'sealed':
      return new RegistryError(UNKNOWN_BY_KIND[kind], common);
    case 'denied':
      return new RegistryError('DENIED', common);
    case 'rate-limited': {
      const seconds = Math.max(1, Math.ceil((retryAfterMs ?? 60_000) / 1000));
      return new RegistryError('TOOMANYREQUESTS', { ...common, headers: { 'Retry-After': String(seconds) } });
    }
    case 'timeout':
      return new RegistryError('UNAVAILABLE', { ...common, status: 504 });
    case 'unavailable':
    case 'invalid-response':
      return new RegistryError('UNAVAILABLE', common);
  }
}

/**
 * Answers errors as registry JSON. Once the headers are out it cuts the connection, so that the client does not take
 * what it has for the whole content.
 */
export function answerErrors(): Middleware<PullState> {
  return async (ctx, next) => {
    try {
      await next();
    } catch (error) {
      ctx.state.error = error;
      if (ctx.res.headersSent || error instanceof ClientGoneError) {
        ctx.respond = false;
        ctx.res.destroy();
        return;
      }
      ctx.respond = true; // the handler may have set it to false, to write the reply itself
      sendError(ctx, toRegistryError(error, ctx.state.kind ?? 'manifest'));
    }
  };
}

function sendError(ctx: PullReply, error: RegistryError): void {
  const { code, message, status, detail } = error;
  // Headers that describe the content do not describe the error.
  for (const name of ctx.res.getHeaderNames()) ctx.res.removeHeader(name);
  ctx.status = status;
  if (ctx.state.guarded !== undefined && REFUSALS.includes(status)) ctx.state.guarded = 'no-store';
  ctx.body = JSON.stringify({
    errors: [{ code, message, detail: { ...detail, requestId: ctx.state.context.id } }],
  });
  setHeaders(ctx, errorHeaders(ctx, error));
}
