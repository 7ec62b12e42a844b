/** The tags under which registries without a referrers API, and cosign, keep what refers to a manifest. */
import type { Digest } from '../oci/digest.ts';
import { parseTag, type Tag } from '../oci/reference.ts';

const COSIGN_SUFFIXES = ['.sig', '.att', '.sbom'];

/** An index of what refers to `digest` (distribution-spec, "Referrers Tag Schema"). */
export function fallbackTag(digest: Digest): Tag | undefined {
  return parseTag(digest.replace(':', '-'));
}

/** Those of cosign; none for a sha512 digest, which is longer than a tag may be. */
export function cosignTags(digest: Digest): Tag[] {
  return COSIGN_SUFFIXES.flatMap((suffix) => parseTag(digest.replace(':', '-') + suffix) ?? []);
}

export function referrerTags(digest: Digest): Tag[] {
  return [fallbackTag(digest) ?? [], ...cosignTags(digest)].flat();
}
