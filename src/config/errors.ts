/** What can be wrong with a configuration and with the secrets it names. */

/** One mistake and where it stands. */
export interface ConfigProblem {
  /** The file as the user named it. */
  file: string;
  /** From 1. */
  line: number;
  /** From 1. */
  col: number;
  /** Keys joined by dots, such as `upstreams.ghcr.io.freshness.tagTtl`; empty for the file as a whole. */
  path: string;
  message: string;
}

export type ConfigErrorCode = 'unreadable' | 'syntax' | 'invalid';

/** A configuration that cannot be used. Its message is all of its problems, one a line. */
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

/** `FILE:LINE:COL: path: message`, which editors and CI systems turn into a link. */
function formatProblem({ file, line, col, path, message }: ConfigProblem): string {
  return `${file}:${line}:${col}: ${path === '' ? '' : `${path}: `}${message}`;
}

export type SecretErrorCode = 'missing' | 'empty' | 'unreadable';

/** A secret that cannot be had. Names where it should be, never what is there. */
export class SecretError extends Error {
  override readonly name = 'SecretError';
  readonly code: SecretErrorCode;

  constructor(code: SecretErrorCode, message: string, cause?: unknown) {
    super(message, { cause });
    this.code = code;
  }
}
