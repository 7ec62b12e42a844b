/** The errors of a configuration and of the secrets that it names. */

/** One mistake and its place. */
export interface ConfigProblem {
  /** The name of the file as the user gave it. */
  file: string;
  /** The first line is 1. */
  line: number;
  /** The first column is 1. */
  col: number;
  /** Keys joined by dots, such as `upstreams.ghcr.io.freshness.tagTtl`; empty if the problem is the file itself. */
  path: string;
  message: string;
}

export type ConfigErrorCode = 'unreadable' | 'syntax' | 'invalid';

/** A configuration that cannot be used. Its message lists all problems, one per line. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
  readonly code: ConfigErrorCode;
  readonly problems: readonly ConfigProblem[];

  constructor(code: ConfigErrorCode, problems: readonly ConfigProblem[], cause?: unknown) {
    super(problems.map(formatProblem).join('\n'), { cause });
    this.code = code;
    this.problems = problems;
  }
}

/** `FILE:LINE:COL: path: message`: editors and CI systems turn this form into a link. */
export function formatProblem({ file, line, col, path, message }: ConfigProblem): string {
  return `${file}:${line}:${col}: ${path === '' ? '' : `${path}: `}${message}`;
}

export type SecretErrorCode = 'missing' | 'empty' | 'unreadable';

/** A secret that cannot be read. The message names its place, never its value. */
export class SecretError extends Error {
  override readonly name = 'SecretError';
  readonly code: SecretErrorCode;

  constructor(code: SecretErrorCode, message: string, cause?: unknown) {
    super(message, { cause });
    this.code = code;
  }
}
