/** Finds what a tag means where a policy counts how long something has been seen: the newest that is old enough. */
import type { ManifestRequest, OpenManifest } from '../../mirror/manifests/manifest-mirror.ts';
import { keyOf } from '../../mirror/permissions.ts';
import { parseManifest } from '../../oci/manifest.ts';
import { isDigest } from '../../oci/reference.ts';
import type { PolicySet } from '../decision/policy-set.ts';
import type { Sightings } from '../parts/age/sightings.ts';
import { isCalledArtifact } from '../parts/artifacts.ts';

type Open = (request: ManifestRequest) => Promise<OpenManifest>;

/**
 * Notes what is seen.
 *
 * @param newest what the reference means at upstream
 * @param context.open opens what the tag meant before
 */
export async function resolveTag(
  request: ManifestRequest,
  newest: OpenManifest,
  { policies, sightings, open }: { policies: PolicySet; sightings: Sightings; open: Open },
): Promise<OpenManifest> {
  const key = keyOf(request);
  const { reference } = request;
  const tag = isDigest(reference) ? undefined : reference;
  if (!sightings.knows(key, newest.digest, tag)) {
    const { manifests = [] } = parsed(await whole(request, newest, open)) ?? {};
    await sightings.note(key, [newest.digest, ...manifests.map(({ digest }) => digest)], tag);
  }
  if (tag === undefined) return newest;
  const digest = policies.oldEnough(key, sightings.meaningsOf(key, tag));
  if (digest === undefined || digest === newest.digest) return newest;
  // The age of a signature does not count, so the newest one is served. What is only called one is refused later on.
  const { bytes } = await whole(request, newest, open);
  if (bytes !== undefined && isCalledArtifact(bytes)) return newest;
  const held = await open({ ...request, reference: digest });
  return held.outcome === 'hit' ? { ...held, outcome: 'held' } : held;
}

/** The same with its bytes: a HEAD may have been answered without them. */
export function whole(
  request: ManifestRequest,
  opened: OpenManifest,
  open: Open,
): Promise<OpenManifest> | OpenManifest {
  return opened.bytes === undefined ? open({ ...request, reference: opened.digest, head: false }) : opened;
}

function parsed({ bytes, mediaType }: OpenManifest) {
  return bytes && parseManifest(bytes, mediaType);
}
