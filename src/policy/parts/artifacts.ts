/**
 * Tells what is not an image: signatures, attestations, lists of packages. Policies that are about images do not count
 * for them, or no signature could ever be pulled.
 *
 * Goes by content and never by name: a runnable image can be pushed under the tag of a signature, and its layers can be
 * called signatures, which podman unpacks all the same.
 */
import * as z from 'zod';
import { parseDigest } from '../../oci/digest.ts';
import { isArchive } from './archives.ts';
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

/** cosign and BuildKit give signatures and attestations the config of an image. */
const CONFIGS: readonly string[] = [
  ...LAYERS,
  'application/vnd.oci.empty.v1+json',
  'application/vnd.cncf.notary.signature',
  'application/vnd.oci.image.config.v1+json',
];

const DESCRIPTOR = z.object({
  mediaType: z.string(),
  digest: z.string().transform((text) => parseDigest(text)),
  size: z.number().min(0),
});
/** One with other lists beside is something else. */
const MANIFEST = z.object({
  config: DESCRIPTOR,
  layers: z.array(DESCRIPTOR).min(1),
  manifests: z.undefined().optional(),
  blobs: z.undefined().optional(),
});

/**
 * Whether a manifest is an artifact without runnable parts, or an index that lists nothing else.
 *
 * @throws {UpstreamError | ContentError} that could not be found out
 */
export async function isArtifact({ bytes, parsed }: Subject, evidence: Evidence): Promise<boolean> {
  const { manifests, blobs } = parsed;
  if (manifests.length === 0) return hasNothingToRun(bytes, evidence);
  // One that is both an index and a manifest is neither.
  if (
    blobs.length > 0 ||
    manifests.length > MAX_LISTED ||
    manifests.some(({ platform }) => platform !== undefined)
  )
    return false;
  for (const { digest } of manifests) {
    const listed = await evidence.manifest(digest);
    if (listed === undefined || !(await hasNothingToRun(listed.bytes, evidence))) return false;
  }
  return true;
}

/** Whether it says that it is such an artifact itself. @param bytes JSON */
export function isCalledArtifact(bytes: Buffer): boolean {
  return artifactLayers(bytes) !== undefined;
}

async function hasNothingToRun(bytes: Buffer, evidence: Evidence): Promise<boolean> {
  const layers = artifactLayers(bytes);
  if (layers === undefined) return false;
  for (const { digest } of layers) {
    const content = digest && (await evidence.blob(digest, MAX_BYTES));
    if (content === undefined || isArchive(content)) return false;
  }
  return true;
}

/** @returns undefined if the manifest does not say that it is an artifact */
function artifactLayers(bytes: Buffer): z.infer<typeof MANIFEST>['layers'] | undefined {
  const { data } = MANIFEST.safeParse(JSON.parse(bytes.toString('utf8')));
  if (data === undefined) return undefined;
  const { config, layers } = data;
  const size = layers.reduce((sum, layer) => sum + layer.size, config.size);
  const isCalled =
    size <= MAX_BYTES &&
    CONFIGS.includes(config.mediaType) &&
    layers.every(({ mediaType }) => LAYERS.includes(mediaType));
  return isCalled ? layers : undefined;
}
