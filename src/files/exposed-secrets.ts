/** Warns of files with secrets that every user of the machine can read or change. Pure. */

/**
 * Only the bits of all other users count. A group may be meant: Kubernetes gives secrets to one.
 */
const READABLE_OR_WRITABLE_BY_OTHERS = 0o006;

/**
 * The warning for the log at start.
 *
 * @param mode of the file, as `stat` gives it
 * @returns undefined if only its owner and its group can read or change it
 */
export function exposureWarning(file: string, mode: number): string | undefined {
  if ((mode & READABLE_OR_WRITABLE_BY_OTHERS) === 0) return undefined;
  return `a file with secrets can be read or changed by every user of this machine: chmod o-rwx ${file}`;
}
