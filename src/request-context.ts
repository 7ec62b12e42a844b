/** What goes with a request through the mirror and on to upstream. */

export interface RequestContext {
  /** Names the request in its error reply and in every log line that is written because of it. */
  readonly id: string;
  /** Who asks. */
  readonly identity: Identity;
  /** Aborts when nobody waits for the answer any more. Absent: the work goes on to its end. */
  readonly signal?: AbortSignal | undefined;
  /** Where this work stands in a trace. Absent while nothing is traced. */
  readonly span?: Span | undefined;
}

export interface Identity {
  /** A client without credentials, somebody on the operations side, or the mirror by its own schedule. */
  readonly kind: 'anonymous' | 'operator' | 'mirror';
}

/** The identifiers of W3C Trace Context, in hexadecimal digits. */
interface Span {
  readonly traceId: string;
  readonly spanId: string;
}

export const ANONYMOUS: Identity = { kind: 'anonymous' };

/**
 * The same request, for work that others share: it goes on when this client leaves.
 *
 * @param signal ends the work all the same
 */
export function detached({ id, identity, span }: RequestContext, signal?: AbortSignal): RequestContext {
  return { id, identity, span, signal };
}
