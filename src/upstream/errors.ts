/** The errors of upstreams. */

export type UpstreamErrorCode =
  | 'not-found'
  /** Refused with the credentials that we have. Docker Hub and GHCR also say so of a repository that does not exist. */
  | 'denied'
  | 'rate-limited'
  /** No connection, or a 5xx. The next request may succeed. */
  | 'unavailable'
  | 'timeout'
  /** A reply that breaks the protocol, or a redirect or challenge that we must not follow. */
  | 'invalid-response'
  /** Not sent, because the mirror is sealed. */
  | 'sealed';

export interface UpstreamErrorOptions {
  status?: number;
  retryAfterMs?: number;
  upstreamCode?: string;
  cause?: unknown;
}

export class UpstreamError extends Error {
  override readonly name = 'UpstreamError';
  readonly code: UpstreamErrorCode;
  readonly upstream: string;
  /** HTTP status. Absent if there was no reply. */
  readonly status?: number;
  /** How long not to send such requests to upstream. */
  readonly retryAfterMs?: number;
  /** The OCI error code that upstream sent, such as `NAME_UNKNOWN`. */
  readonly upstreamCode?: string;

  constructor(
    code: UpstreamErrorCode,
    upstream: string,
    message: string,
    options: UpstreamErrorOptions = {},
  ) {
    super(`${upstream}: ${message}`, { cause: options.cause });
    this.code = code;
    this.upstream = upstream;
    if (options.status !== undefined) this.status = options.status;
    if (options.retryAfterMs !== undefined) this.retryAfterMs = options.retryAfterMs;
    if (options.upstreamCode !== undefined) this.upstreamCode = options.upstreamCode;
  }
}

/** Whether upstream does not have it. Some registries deny access to what does not exist. */
export function isAbsent(error: unknown): boolean {
  return error instanceof UpstreamError && ['not-found', 'denied', 'sealed'].includes(error.code);
}

/** Whether upstream could not be reached at all. An answer, whatever it is, says that it can. */
export function isUnreachable(error: unknown): boolean {
  return (
    error instanceof UpstreamError &&
    (error.code === 'unavailable' || error.code === 'timeout') &&
    error.status === undefined
  );
}

/** @returns undefined if upstream does not have it; every other error is thrown */
export async function unlessAbsent<T>(answer: Promise<T>): Promise<T | undefined> {
  try {
    return await answer;
  } catch (error) {
    if (isAbsent(error)) return undefined;
    throw error;
  }
}

/**
 * Maps an error of the HTTP client.
 *
 * @param host where the request went. Path and query must not be in the message: they can contain a signature.
 */
export function toUpstreamError(error: unknown, upstream: string, host?: string): UpstreamError {
  if (error instanceof UpstreamError) return error;
  const { code, reason } = explain(error);
  const where = host === undefined ? '' : ` (${host})`;
  return new UpstreamError(code, upstream, `${reason}${where}`, { cause: error });
}

function explain(error: unknown): { code: UpstreamErrorCode; reason: string } {
  const errno = error instanceof Error && 'code' in error ? String(error.code) : '';
  switch (errno) {
    case 'UND_ERR_HEADERS_TIMEOUT':
      return { code: 'timeout', reason: 'no reply in time' };
    case 'UND_ERR_BODY_TIMEOUT':
      return { code: 'timeout', reason: 'the reply stalled' };
    case 'UND_ERR_CONNECT_TIMEOUT':
    case 'ETIMEDOUT':
      return { code: 'timeout', reason: 'no connection in time' };
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return { code: 'unavailable', reason: `its name${nameIn(error)} cannot be resolved (${errno})` };
    case 'ECONNREFUSED':
      return { code: 'unavailable', reason: 'the connection was refused' };
    case 'ENETUNREACH':
    case 'EHOSTUNREACH':
      return { code: 'unavailable', reason: 'this machine has no route to it' };
    case 'ECONNRESET':
    case 'EPIPE':
    case 'UND_ERR_SOCKET':
      return { code: 'unavailable', reason: 'the connection broke' };
    case 'UND_ERR_RES_CONTENT_LENGTH_MISMATCH':
      return { code: 'unavailable', reason: 'the reply was shorter or longer than its Content-Length' };
    case 'UND_ERR_HEADERS_OVERFLOW':
      return { code: 'invalid-response', reason: 'the headers of the reply are too large' };
    default: {
      const message = error instanceof Error ? error.message || errno || error.name : String(error);
      if (error instanceof Error && error.name === 'SpecialAddressError')
        return { code: 'invalid-response', reason: message };
      if (errno.startsWith('HPE_')) return { code: 'invalid-response', reason: 'the reply is not HTTP' };
      return { code: 'unavailable', reason: message };
    }
  }
}

/** The host name in an error of node:dns, after a space. */
function nameIn(error: unknown): string {
  return error instanceof Error && 'hostname' in error && typeof error.hostname === 'string'
    ? ` ${error.hostname}`
    : '';
}
