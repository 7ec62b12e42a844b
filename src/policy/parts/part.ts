/** What a part of a policy is given, and what it finds. */
import type { RepositoryKey } from '../../cache/index/index-store.ts';
import type { Manifest } from '../../mirror/manifests/manifest-store.ts';
import type { Digest } from '../../oci/digest.ts';
import type { ParsedManifest } from '../../oci/manifest.ts';
import type { Reference } from '../../oci/reference.ts';

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
  /** It could not be found out: becomes 503 and not 403. */
  isUnknown?: boolean;
}

/** What the repository has beside the manifest about which is decided. It is asked of upstream, past what is remembered. */
export interface Evidence {
  /** Aborts when the decision takes too long. */
  readonly signal: AbortSignal;
  /** The manifest that a tag or digest means. Undefined: there is none. @throws {UpstreamError} that could not be found out */
  manifest(reference: Reference): Promise<Manifest | undefined>;
  /** The descriptors of what refers to it, by the referrers API or the tag that stands in for it. @throws {UpstreamError} */
  referrers(): Promise<readonly ReferrerDescriptor[]>;
  /** A whole blob. Undefined: there is none, or it is longer than `maxBytes`. @throws {UpstreamError | ContentError} */
  blob(digest: Digest, maxBytes: number): Promise<Buffer | undefined>;
}

export interface ReferrerDescriptor {
  digest: Digest;
  size: number;
  mediaType: string;
  artifactType?: string;
}

/** One kind of condition: `deny`, for example. Reads, and changes nothing. */
export interface PolicyPart {
  /** @throws an error when it cannot say: that is never an allow */
  judge(subject: Subject, evidence: Evidence): Promise<Finding>;
}
