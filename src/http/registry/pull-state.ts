/** What the parts of the registry side tell each other about one request. */
import type { Context } from 'koa';
import type { CacheOutcome } from '../../mirror/outcome.ts';
import type { RequestKind } from '../../telemetry/metrics.ts';
import type { ClientRequest } from './client-request.ts';

export interface PullState {
  context: ClientRequest;
  /** To be called when the headers of the reply go out before its handler is done. */
  onHeaders: () => void;
  /** Absent for requests that are not pulls: pings and refused requests. */
  kind?: RequestKind;
  upstream?: string;
  repository?: string;
  /** The `ns` that the client sent. The reply repeats it. */
  namespace?: string | undefined;
  /** Tag or digest. */
  reference?: string;
  /** Absent if the request did not reach the cache, or failed there. */
  outcome?: CacheOutcome;
  /** The request asked for `/v2/` itself, and was answered. */
  isPing?: boolean;
  /** The rule that allows the request, from 0. */
  rule?: number | undefined;
  /** Says that no shared cache may keep the reply; `no-store`: no cache at all. Absent: everybody may have it. */
  guarded?: 'private' | 'no-store';
  /** The path to log instead of the URL, which holds more than the log may. */
  path?: string;
  /** Bytes of the body that were sent. */
  bytes: number;
  error?: unknown;
}

/** One request and its reply, as Koa hands them around. */
export type PullReply = Context & { state: PullState };
