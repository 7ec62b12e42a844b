/** Compares patterns in which `*` stands for any text. */
import { imagePattern } from '../../oci/reference.ts';

/**
 * Whether `pattern` matches everything that `other` matches. The `*` of `other` is a letter like any other here, and no
 * name has it: only a `*` of `pattern` can match it, which then matches whatever may stand there.
 */
export function covers(pattern: string, other: string): boolean {
  return imagePattern(pattern).test(other);
}
