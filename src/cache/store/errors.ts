/** Errors of content, and of the disk that it is stored on. */
import type { Digest } from '../../oci/digest.ts';

export type ContentErrorCode = 'digest-mismatch' | 'size-mismatch' | 'truncated' | 'damaged';

/** Bytes that do not match their digest or descriptor. */
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

/** A failed operation on the cache directory. It never fails a pull, which goes on uncached. */
export class StorageError extends Error {
  override readonly name = 'StorageError';
  /** The operation that failed: `open`, `write`, `sync`, `rename`, `read`, `index`, `reserve`. */
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
