/** Compares patterns in which `*` stands for any text. */

/** Stands for any text: no pattern can have it. */
const ANY = '\0';

/** Whether `pattern` matches everything that `other` matches. */
export function covers(pattern: string, other: string): boolean {
  const parts = pattern.split('*').map((part) => part.replace(/[\\^$.+?()[\]{}|]/g, '\\$&'));
  // Only a * can match ANY, and that * then matches whatever may stand there.
  return new RegExp(`^${parts.join('.*')}$`, 's').test(other.replaceAll('*', ANY));
}
