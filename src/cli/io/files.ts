/** Errors about files that the user names on the command line. */
import { whyUnreadable } from '../../config/secrets.ts';

/** @param file as the user wrote it */
export function unreadable(file: string, error: unknown): Error {
  return new Error(`${file} cannot be read: ${whyUnreadable(error).reason}`, { cause: error });
}
