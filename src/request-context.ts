/** Accompanies a request through the mirror and on to upstream. */

export interface RequestContext {
  /** Names the request in its error reply and in every log line that is written because of it. */
  readonly id: string;
  /** Who asks. */
  readonly identity: Identity;
  /** Aborts when nobody waits for the answer any more. Absent: the work goes on to its end. */
  readonly signal?: AbortSignal | undefined;
  /** True: only what is cached may be served, and no upstream is asked. */
  readonly cachedOnly?: boolean | undefined;
  /** True: no client waits for this. It is work ahead of time, which leaves bandwidth to clients. */
  readonly background?: boolean | undefined;
  /** The position in a trace. Absent: the request is not traced. */
  readonly span?: Span | undefined;
}

export interface Identity {
  /** `operator`: a client of the operations side that is not known by name. `mirror`: the mirror itself on schedule. */
  readonly kind: 'anonymous' | 'user' | 'token' | 'oidc' | 'certificate' | 'operator' | 'mirror';
  /** Of the user, the token, the issuer or the certificate. */
  readonly name?: string;
}

/** The identifiers of W3C Trace Context, in hexadecimal digits. */
interface Span {
  readonly traceId: string;
  readonly spanId: string;
}

export const ANONYMOUS: Identity = { kind: 'anonymous' };

/**
 * Makes the context of work that several requests share: it goes on when this client leaves.
 *
 * @param signal stops the work
 */
export function detached(
  { id, identity, span, cachedOnly }: RequestContext,
  signal?: AbortSignal,
): RequestContext {
  return { id, identity, span, cachedOnly, signal };
}
