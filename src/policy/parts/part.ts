/** What a part of a policy is given, and what it finds. */
import type { RepositoryKey } from '../../cache/index/index-store.ts';
import type { Digest } from '../../oci/digest.ts';

/** A manifest of a repository, about which is decided. */
export interface Subject extends RepositoryKey {
  digest: Digest;
  /** The digests that it lists. */
  lists: readonly Digest[];
}

export type Finding = Let | Refusal;

/** It may come in, as far as this part is concerned. */
interface Let {
  allowed: true;
  /** Up to when that holds; milliseconds since the epoch. Absent: for as long as the policy stays the same. */
  until?: number;
}

/** For as long as the policy stays the same. */
export const ALLOWED: Finding = { allowed: true };

export interface Refusal {
  allowed: false;
  /** What is wrong, or missing. Goes to the client. */
  reason: string;
  /** What to do about it. */
  advice: string;
  /** The same for machines. */
  detail: Record<string, unknown>;
}

/** One kind of condition: `deny`, for example. Pure in effect: it reads, and changes nothing. */
export interface PolicyPart {
  judge(subject: Subject): Promise<Finding>;
}
