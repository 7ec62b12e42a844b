/** Tags that lead to the referrers of a manifest: for registries without a referrers API, and for cosign. */
import type { Digest } from './digest.ts';
import { parseTag, type Tag } from './reference.ts';

const COSIGN_SUFFIXES = ['.sig', '.att', '.sbom'];

/**
 * The tag of the index that lists the referrers of `digest` (distribution-spec, "Referrers Tag Schema").
 *
 * @returns undefined for a sha512 digest, which is longer than a tag may be
 */
export function fallbackTag(digest: Digest): Tag | undefined {
  return parseTag(digest.replace(':', '-'));
}

/** The tags under which cosign stores signatures, attestations and SBOMs; none for a sha512 digest. */
export function cosignTags(digest: Digest): Tag[] {
  return COSIGN_SUFFIXES.flatMap((suffix) => parseTag(digest.replace(':', '-') + suffix) ?? []);
}

/** All of these tags. */
export function referrerTags(digest: Digest): Tag[] {
  return [fallbackTag(digest) ?? [], ...cosignTags(digest)].flat();
}
