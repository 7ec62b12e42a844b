/** Reads secrets. Their values are never part of the configuration, so that nothing can print them with it. */
import { readFile, stat } from 'node:fs/promises';
import { SecretError } from './errors.ts';
import type { SecretRef } from './fields/paths.ts';

/** The environment variables of the process. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** Gives the current value of one {@link SecretRef}. */
export class Secret {
  readonly #ref: SecretRef;
  readonly #fromEnvironment: string | undefined;
  #fromFile: { version: string; value: string } | undefined;

  constructor(ref: SecretRef, environment: Environment) {
    this.#ref = ref;
    this.#fromEnvironment = 'env' in ref ? environment[ref.env] : undefined;
  }

  /**
   * The value, never empty. A variable has the value that it had at the start. A file is read again when it has changed;
   * line breaks at its end are removed.
   *
   * @throws {SecretError} there is no value, or it is empty
   */
  async read(): Promise<string> {
    const ref = this.#ref;
    if ('file' in ref) return this.#readFile(ref.file);
    const value = this.#fromEnvironment;
    if (value === undefined) throw new SecretError('missing', `environment variable ${ref.env} is not set`);
    if (value === '') throw new SecretError('empty', `environment variable ${ref.env} is empty`);
    return value;
  }

  async #readFile(file: string): Promise<string> {
    try {
      // Takes the version before the content: a change between the two is noticed at the next read.
      const { mtimeNs, size, ino } = await stat(file, { bigint: true });
      const version = `${mtimeNs} ${size} ${ino}`;
      if (this.#fromFile?.version !== version) {
        this.#fromFile = { version, value: (await readFile(file, 'utf8')).replace(/[\r\n]+$/, '') };
      }
    } catch (error) {
      const { code, reason } = whyUnreadable(error);
      throw new SecretError(code, `secret file ${file} cannot be read: ${reason}`, error);
    }
    if (this.#fromFile.value === '') throw new SecretError('empty', `secret file ${file} is empty`);
    return this.#fromFile.value;
  }
}

/** Why a file could not be read. Leaves out the path: somebody may have written a secret in its place. */
export function whyUnreadable(error: unknown): { code: 'missing' | 'unreadable'; reason: string } {
  const errno = error instanceof Error && 'code' in error ? String(error.code) : 'unknown error';
  switch (errno) {
    case 'ENOENT':
      return { code: 'missing', reason: 'no such file' };
    case 'EACCES':
      return { code: 'unreadable', reason: 'permission denied' };
    case 'EISDIR':
      return { code: 'unreadable', reason: 'it is a folder' };
    default:
      return { code: 'unreadable', reason: errno };
  }
}
