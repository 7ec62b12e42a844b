/** Says in words why the cache directory cannot be opened, and what to do. */
import type { Clock } from '../../clock.ts';
import { errnoOf, StorageError } from '../store/errors.ts';
import { CacheGroupError } from '../store/file-modes.ts';

/** Milliseconds. A local disk needs a few; a network drive that is gone never answers. */
const OPEN_TIMEOUT_MS = 30_000;

/** Codes of the system that say nothing about what is stored. */
const OUTSIDE = new Set(['EACCES', 'EPERM', 'EROFS', 'ENOSPC', 'EDQUOT']);

/** The cache directory cannot be opened, so the server cannot start. */
export class OpenError extends StorageError {
  /** @param why with what to do about it */
  constructor(directory: string, cause: unknown, why: string) {
    super('open', cause);
    this.message = `cannot open the cache directory ${directory}: ${why} (${this.errno}); cache.directory in the configuration names it`;
  }
}

/** @returns `error` itself if it says already what to do */
export function openError(directory: string, error: unknown): Error {
  if (error instanceof OpenError || error instanceof CacheGroupError) return error;
  const cause = error instanceof StorageError ? error.cause : error;
  const known = cause instanceof Error ? withCodeOfSystem(cause) : cause;
  return new OpenError(directory, known, reasonOf(errnoOf(known)));
}

/** Whether nothing but the rights or the room of this process keep it from opening an index, which is then whole. */
export function isOutsideFault(error: unknown): boolean {
  const cause = error instanceof StorageError ? error.cause : error;
  return cause instanceof Error && OUTSIDE.has(errnoOf(withCodeOfSystem(cause)));
}

/**
 * Runs the first steps of an opening, each of which may hang.
 *
 * @param steps looks at the signal between two steps: it aborts when they take too long
 * @param close undoes them when they end too late
 * @throws {OpenError} they take too long
 */
export async function inTime<T>(
  { directory, clock }: { directory: string; clock: Clock },
  steps: (signal: AbortSignal) => Promise<T>,
  close: (late: T) => Promise<void>,
): Promise<T> {
  const { promise: late, reject } = Promise.withResolvers<never>();
  const abort = new AbortController();
  using _deadline = clock.every(OPEN_TIMEOUT_MS, () => {
    const cause = Object.assign(new Error('no answer'), { code: 'ETIMEDOUT' });
    const error = new OpenError(directory, cause, reasonOf('ETIMEDOUT'));
    abort.abort(error);
    reject(error);
  });
  const opened = steps(abort.signal).then(async (result) => {
    if (abort.signal.aborted) await close(result);
    return result;
  });
  return await Promise.race([opened, late]);
}

/** LevelDB gives the reason of the system as text only. */
function withCodeOfSystem(error: Error): Error {
  const code = (
    [
      [/Permission denied$/, 'EACCES'],
      [/Read-only file system$/, 'EROFS'],
      [/No space left on device$/, 'ENOSPC'],
      [/Disk quota exceeded$/, 'EDQUOT'],
    ] as const
  ).find(([text]) => errnoOf(error).startsWith('LEVEL_') && text.test(error.message))?.[1];
  return code === undefined ? error : Object.assign(new Error(error.message, { cause: error }), { code });
}

function reasonOf(code: string): string {
  switch (code) {
    case 'EACCES':
    case 'EPERM':
      return 'this user may not read and write there: give it to this user with chown -R, or choose another one';
    case 'EROFS':
      return 'its file system is mounted read-only: mount it for writing, or choose another one';
    case 'ENOSPC':
      return 'its file system is full: free some space, or choose another one';
    case 'EDQUOT':
      return 'the quota of this user is used up: free some space, or choose another one';
    case 'ENOTDIR':
    case 'EEXIST':
      return 'a file is in its place or in its path: remove the file, or choose another one';
    case 'ENOENT':
      return 'it is not there and cannot be made: choose another one';
    case 'ETIMEDOUT':
      return `no answer within ${OPEN_TIMEOUT_MS / 1000} s: check the drive that it is on, or choose another one`;
    case 'EIO':
      return 'its drive fails: look into the log of the system, or choose another one';
    default:
      return 'the system refuses it: look into the log of the system, or choose another one';
  }
}
