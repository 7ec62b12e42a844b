/**
 * Tells what is not an image: signatures, attestations, lists of packages. Policies that are about images do not count
 * for them, or no signature could ever be pulled.
 *
 * Goes by content and never by name: a runnable image can be pushed under the tag of a signature.
 */
import * as z from 'zod';
import type { Evidence, Subject } from './part.ts';

/** In all. Signatures take some kilobytes, lists of packages some megabytes. */
const MAX_BYTES = 8 * 1024 * 1024;
/** Of a list of signatures. */
const MAX_LISTED = 64;

const LAYERS: readonly string[] = [
  'application/vnd.dev.sigstore.bundle.v0.3+json',
  'application/vnd.dev.cosign.simplesigning.v1+json',
  'application/jose+json',
  'application/cose',
  'application/vnd.in-toto+json',
  'application/vnd.dsse.envelope.v1+json',
  'application/spdx+json',
  'text/spdx+json',
  'text/spdx',
  'application/vnd.cyclonedx+json',
  'application/vnd.cyclonedx+xml',
  'application/vnd.cyclonedx',
];

/** cosign and BuildKit give signatures and attestations the config of an image. Their layers cannot be unpacked. */
const CONFIGS: readonly string[] = [
  ...LAYERS,
  'application/vnd.oci.empty.v1+json',
  'application/vnd.cncf.notary.signature',
  'application/vnd.oci.image.config.v1+json',
];

const DESCRIPTOR = z.object({ mediaType: z.string(), size: z.number().min(0) });
/** One with other lists beside is something else. */
const MANIFEST = z.object({
  config: DESCRIPTOR,
  layers: z.array(DESCRIPTOR).min(1),
  manifests: z.undefined().optional(),
  blobs: z.undefined().optional(),
});

/** Whether a manifest is an artifact without runnable parts, or an index that lists nothing else. */
export async function isArtifact({ bytes, parsed }: Subject, evidence: Evidence): Promise<boolean> {
  const { manifests, blobs } = parsed;
  if (manifests.length === 0) return isArtifactManifest(bytes);
  // One that is both an index and a manifest is neither.
  if (
    blobs.length > 0 ||
    manifests.length > MAX_LISTED ||
    manifests.some(({ platform }) => platform !== undefined)
  )
    return false;
  for (const { digest } of manifests) {
    const listed = await evidence.manifest(digest);
    if (listed === undefined || !isArtifactManifest(listed.bytes)) return false;
  }
  return true;
}

/** Whether it is such an artifact itself. @param bytes JSON */
export function isArtifactManifest(bytes: Buffer): boolean {
  const { data } = MANIFEST.safeParse(JSON.parse(bytes.toString('utf8')));
  if (data === undefined) return false;
  const { config, layers } = data;
  const size = layers.reduce((sum, layer) => sum + layer.size, config.size);
  return (
    size <= MAX_BYTES &&
    CONFIGS.includes(config.mediaType) &&
    layers.every(({ mediaType }) => LAYERS.includes(mediaType))
  );
}
