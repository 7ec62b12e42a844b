/** Decides when a tag may be served without asking upstream, and what to do when asking fails. Pure. */
import type { TagRecord } from '../cache/index/index-store.ts';
import type { Tag } from '../oci/reference.ts';
import type { UpstreamErrorCode } from '../upstream/errors.ts';

export interface FreshnessPolicy {
  /** A tag is served without asking for this long; 0 asks every time. */
  tagTtlMs: number;
  /** Tags that are never revalidated while cached. */
  immutableTags: readonly RegExp[];
  /** How long past the TTL a tag is served at once, while upstream is asked in the background (RFC 5861). */
  staleWhileRevalidateMs: number;
  /** How long past the TTL a tag may be served while upstream fails. */
  staleIfErrorMs: number;
  /** What happens to a cached tag that upstream no longer has. */
  onTagDeleted: 'forget' | 'keep';
  /** How long a missing manifest is remembered as missing. */
  negativeTtlMs: number;
}

/** The same policy for a client that may force revalidation: every tag is revalidated before it is served. */
export function asking(policy: FreshnessPolicy): FreshnessPolicy {
  return { ...policy, tagTtlMs: 0, immutableTags: [], staleWhileRevalidateMs: 0 };
}

export type Freshness =
  /** Served without asking. */
  | 'fresh'
  /** Served without waiting, and revalidated meanwhile. */
  | 'stale-while-revalidate'
  /** Revalidated; served all the same if upstream fails. */
  | 'stale'
  /** Revalidated; not served if upstream fails. */
  | 'expired';

export function freshnessOf(record: TagRecord, tag: Tag, now: number, policy: FreshnessPolicy): Freshness {
  if (policy.immutableTags.some((pattern) => pattern.test(tag))) return 'fresh';
  if (record.isUnconfirmed === true) return 'stale';
  const age = now - record.confirmedAt;
  if (age < 0) return 'stale'; // the machine's clock went back, so the age is unknown
  if (age < policy.tagTtlMs) return 'fresh';
  if (age < policy.tagTtlMs + policy.staleWhileRevalidateMs) return 'stale-while-revalidate';
  return age < policy.tagTtlMs + policy.staleIfErrorMs ? 'stale' : 'expired';
}

/** Decides what to do with a cached tag whose revalidation failed with `error`. See the status table in the README. */
export function afterFailedRevalidation(
  freshness: Exclude<Freshness, 'fresh'>,
  error: UpstreamErrorCode,
  policy: FreshnessPolicy,
): 'serve-stale' | 'forget' | 'fail' {
  switch (error) {
    case 'not-found':
      return policy.onTagDeleted === 'keep' ? 'serve-stale' : 'forget';
    case 'denied':
      // Keeps the tag, because the refusal may be temporary. Does not serve it, because it may be permanent.
      return 'fail';
    case 'rate-limited':
    case 'unavailable':
    case 'timeout':
    case 'invalid-response':
      return freshness === 'expired' ? 'fail' : 'serve-stale';
    case 'sealed':
      return 'serve-stale';
  }
}
