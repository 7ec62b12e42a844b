/** What can be wrong with the files of access control, and why an attempt is not even looked at. */

/** A file that cannot be used. The message never quotes the file: it may hold secrets. */
export class AccessFileError extends Error {
  override readonly name = 'AccessFileError';
  readonly file: string;
  /** From 1. Absent where no line is to blame. */
  readonly line: number | undefined;

  /** @param problem what is wrong and what to do about it; follows `FILE:LINE: ` */
  constructor(file: string, problem: string, { line, cause }: { line?: number; cause?: unknown } = {}) {
    super(`${line === undefined ? file : `${file}:${line}`}: ${problem}`, { cause });
    this.file = file;
    this.line = line;
  }
}

/** Refused unseen: too many attempts are waiting already. Becomes 429 with `Retry-After`. */
export class TooManyAttemptsError extends Error {
  override readonly name = 'TooManyAttemptsError';
  readonly retryAfterMs: number;

  constructor(retryAfterMs: number) {
    super(`too many login attempts: try again in ${Math.ceil(retryAfterMs / 1000)} s`);
    this.retryAfterMs = retryAfterMs;
  }
}

/** The operating system's name for a failure, such as `ENOENT`. */
export function errnoOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error ? String(error.code) : undefined;
}
