/** Errors of the operations side. They are answered as JSON. */
import type { Middleware } from 'koa';
import type { Logger } from '../../telemetry/log.ts';
import type { ImageError } from '../../transfer/errors.ts';
import { ClientGoneError } from '../server/content-sender.ts';

type ApiStatus = 400 | 401 | 403 | 404 | 409 | 421 | 429 | 503;

/** A request that cannot be done. The message goes to the client. */
export class ApiError extends Error {
  override readonly name = 'ApiError';
  readonly status: ApiStatus;
  readonly headers: Readonly<Record<string, string>>;

  constructor(status: ApiStatus, message: string, headers: Readonly<Record<string, string>> = {}) {
    super(message);
    this.status = status;
    this.headers = headers;
  }
}

export function imageApiError({ code, message }: ImageError): ApiError {
  if (code === 'bad-name') return new ApiError(400, message);
  return new ApiError(code === 'refused' ? 403 : 404, message);
}

export function answerErrors(logger: Logger): Middleware {
  return async (ctx, next) => {
    try {
      await next();
    } catch (error) {
      ctx.status = error instanceof ApiError ? error.status : 500;
      if (error instanceof ApiError) ctx.set(error.headers);
      else if (!(error instanceof ClientGoneError))
        logger.error({ err: error, path: ctx.path }, 'operation failed');
      ctx.body = { error: messageOf(error) };
    }
  };
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
