/** The errors of the engines that a fleet shares. */

export type EngineErrorCode =
  /** No connection, or the engine says that it cannot now. */
  | 'unavailable'
  /** No answer within the deadline. */
  | 'timeout'
  /** The engine refuses our credentials, or what we ask with them. */
  | 'denied'
  /** It answers, and what is configured does not fit it: the bucket is not there, or is in another region. */
  | 'misconfigured'
  /** An answer that breaks the protocol. */
  | 'invalid-response';

export class EngineError extends Error {
  override readonly name = 'EngineError';
  readonly code: EngineErrorCode;

  /** @param message says what happened and, where it is known, what to do. It holds no secret and no signed URL */
  constructor(code: EngineErrorCode, message: string, options: { cause?: unknown } = {}) {
    super(message, options);
    this.code = code;
  }
}
