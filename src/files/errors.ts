/** Errors of files that the configuration names: passwords, tokens, certificates, lists. */

/** A file that cannot be used. The message never quotes the file: it may hold secrets. */
export class FileError extends Error {
  override readonly name = 'FileError';
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

/** The operating system's name for a failure, such as `ENOENT`. */
export function errnoOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error ? String(error.code) : undefined;
}
