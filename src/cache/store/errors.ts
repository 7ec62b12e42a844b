/** What can be wrong with content and with the disk it lies on. */
import type { Digest } from '../../oci/digest.ts';

export type ContentErrorCode = 'digest-mismatch' | 'size-mismatch' | 'truncated' | 'damaged';

/** Bytes that are not what their digest or descriptor promises. */
export class ContentError extends Error {
  override readonly name = 'ContentError';
  readonly code: ContentErrorCode;
  readonly digest: Digest;

  constructor(code: ContentErrorCode, digest: Digest, expected: string | number, actual: string | number) {
    super(`${digest}: ${code}: expected ${expected}, got ${actual}`);
    this.code = code;
    this.digest = digest;
  }
}

/** A failed operation on the cache directory. It never fails a pull: whoever meets it goes on uncached. */
export class StorageError extends Error {
  override readonly name = 'StorageError';
  /** What was tried: `open`, `write`, `sync`, `rename`, `read`, `index`, `reserve`. */
  readonly operation: string;
  /** The operating system's name for the fault, such as `ENOSPC`. */
  readonly errno: string;

  /** @param hint what to do about it */
  constructor(operation: string, cause: unknown, hint = '') {
    const errno = errnoOf(cause);
    super(`cache directory: ${operation} failed: ${errno}${hint}`, { cause });
    this.operation = operation;
    this.errno = errno;
  }
}

export function errnoOf(error: unknown): string {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  return typeof code === 'string' ? code : 'UNKNOWN';
}
