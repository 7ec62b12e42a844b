/** The errors of a configuration and of the secrets that it names. */

/** One mistake and its place. */
export interface ConfigProblem {
  /** The name of the file as the user gave it, or `environment`. */
  file: string;
  /** The first line is 1; 0: the environment, which has no lines. */
  line: number;
  /** The first column is 1; 0: the environment. */
  col: number;
  /**
   * Keys joined by dots, such as `upstreams.ghcr.io.freshness.tagTtl`; empty if the problem is the file itself. In the
   * environment, the name of the variable.
   */
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

/**
 * `FILE:LINE:COL: path: message`: editors and CI systems turn this form into a link. Of a variable,
 * `environment: NAME: message`.
 */
export function formatProblem({ file, line, col, path, message }: ConfigProblem): string {
  const place = line === 0 ? file : `${file}:${line}:${col}`;
  return `${place}: ${path === '' ? '' : `${path}: `}${message}`;
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
