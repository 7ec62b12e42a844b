/** What a part of a policy is given, and what it finds. */
import type { RepositoryKey } from '../../cache/index/index-store.ts';
import type { Manifest } from '../../mirror/manifests/manifest-store.ts';
import type { ParsedManifest } from '../../oci/manifest.ts';

/** A manifest of a repository, about which is decided. */
export interface Subject extends RepositoryKey, Manifest {
  parsed: ParsedManifest;
}

export type Finding = Allowance | Refusal;

/** It may come in, as far as this part is concerned. */
interface Allowance {
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
  /** When it may be another; milliseconds since the epoch. Absent: at any time. */
  until?: number;
}

/** One kind of condition: `deny`, for example. Reads, and changes nothing. */
export interface PolicyPart {
  /** @throws an error when it cannot say: that is never an allow */
  judge(subject: Subject): Promise<Finding>;
}
