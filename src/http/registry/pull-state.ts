/** What the parts of the registry side tell each other about one request. */
import type { CacheOutcome } from '../../mirror/outcome.ts';
import type { RequestContext } from '../../request-context.ts';
import type { RequestKind } from '../../telemetry/metrics.ts';

export interface PullState {
  context: RequestContext;
  /** To be called when the headers of the reply go out before its handler is done. */
  onHeaders: () => void;
  /** Absent for what is no pull: pings and refused requests. */
  kind?: RequestKind;
  upstream?: string;
  repository?: string;
  /** The `ns` that the client sent: it is echoed. */
  namespace?: string | undefined;
  /** Tag or digest. */
  reference?: string;
  /** Absent when the cache was not reached, or gave nothing. */
  outcome?: CacheOutcome;
  /** Bytes of the body that were sent. */
  bytes: number;
  error?: unknown;
}
