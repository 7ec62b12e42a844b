/** Errors of the files of access control, and of attempts that are refused without a check. */

/** A file that cannot be used. The message never quotes the file: it may hold secrets. */
export class AccessFileError extends Error {
  override readonly name = 'AccessFileError';
  readonly file: string;
  /** From 1. Absent if the problem is not in one line. */
  readonly line: number | undefined;

  /** @param problem what is wrong and what to do about it; follows `FILE:LINE: ` */
  constructor(file: string, problem: string, { line, cause }: { line?: number; cause?: unknown } = {}) {
    super(`${line === undefined ? file : `${file}:${line}`}: ${problem}`, { cause });
    this.file = file;
    this.line = line;
  }
}

/** Refused without a check, because too many attempts wait already. Becomes 429 with `Retry-After`. */
export class TooManyAttemptsError extends Error {
  override readonly name = 'TooManyAttemptsError';
  readonly retryAfterMs: number;

  constructor(retryAfterMs: number) {
    super(`too many login attempts: try again in ${Math.ceil(retryAfterMs / 1000)} s`);
    this.retryAfterMs = retryAfterMs;
  }
}

/** The credentials of a request are refused. The message may be shown to the client: it repeats nothing of them. */
export class AuthenticationError extends Error {
  override readonly name = 'AuthenticationError';
}

/** The operating system's name for a failure, such as `ENOENT`. */
export function errnoOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error ? String(error.code) : undefined;
}
