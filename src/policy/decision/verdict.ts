/**
 * Puts the findings of several policies together. Pure: the order of the policies never matters, and what is missing is
 * never taken for an allow.
 */
import type { Finding, Refusal } from '../parts/part.ts';

export type Verdict =
  | {
      allowed: true;
      /** Up to when it holds; milliseconds since the epoch, or infinity. */
      until: number;
    }
  | {
      allowed: false;
      policy: string;
      refusal: Refusal;
      /** How long it is remembered; milliseconds since the epoch. */
      until?: number;
    };

/** @param findings of every policy that applies, by its name */
export function verdictOf(findings: ReadonlyMap<string, Finding>): Verdict {
  let until = Number.POSITIVE_INFINITY;
  for (const [policy, finding] of [...findings].toSorted(([a], [b]) => (a < b ? -1 : 1))) {
    if (!finding.allowed) return { allowed: false, policy, refusal: finding };
    until = Math.min(until, finding.until ?? until);
  }
  return { allowed: true, until };
}
