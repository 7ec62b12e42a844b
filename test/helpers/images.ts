/** Images out of seeded noise: the same options give the same bytes. */
import { createHash } from 'node:crypto';
import { type Digest, digestOf } from '../../src/oci/digest.ts';
import { OCI_INDEX, OCI_MANIFEST } from '../../src/oci/manifest.ts';

export interface ImageOptions {
  /** Sizes of the layers of each platform, in bytes. */
  layers?: readonly number[];
  /** More than one makes an index. */
  platforms?: readonly string[];
  seed?: string;
}

export interface TestManifest {
  digest: Digest;
  mediaType: string;
  bytes: Buffer;
}

export interface TestImage {
  /** What the tag means: an index, or the one manifest. */
  top: TestManifest;
  /** The platform manifests. */
  manifests: TestManifest[];
  /** Configs and layers. */
  blobs: Buffer[];
}

export function buildImage({
  layers = [1000],
  platforms = ['amd64'],
  seed = 'seed',
}: ImageOptions): TestImage {
  const blobs: Buffer[] = [];
  const manifests = platforms.map((architecture) => {
    const config = Buffer.from(JSON.stringify({ architecture, os: 'linux', seed }));
    const layerBytes = layers.map((size, index) => noise(size, `${seed} ${architecture} ${index}`));
    blobs.push(config, ...layerBytes);
    return manifest(OCI_MANIFEST, {
      config: { mediaType: 'application/vnd.oci.image.config.v1+json', ...descriptor(config) },
      layers: layerBytes.map((bytes) => ({
        mediaType: 'application/vnd.oci.image.layer.v1.tar',
        ...descriptor(bytes),
      })),
    });
  });
  const [only] = manifests;
  if (only !== undefined && manifests.length === 1) return { top: only, manifests, blobs };
  const index = manifest(OCI_INDEX, {
    manifests: manifests.map(({ bytes, mediaType }, at) => ({
      mediaType,
      ...descriptor(bytes),
      platform: { architecture: platforms[at], os: 'linux' },
    })),
  });
  return { top: index, manifests, blobs };
}

/** Bytes that do not repeat, for `seed`. */
export function noise(size: number, seed: string): Buffer {
  // XOF output is as long as asked for, and fast.
  return createHash('shake256', { outputLength: Math.max(size, 1) })
    .update(seed)
    .digest()
    .subarray(0, size);
}

function manifest(mediaType: string, content: Record<string, unknown>): TestManifest {
  // Two spaces and a line feed: nobody who re-serialises this gets the same bytes.
  const bytes = Buffer.from(`${JSON.stringify({ schemaVersion: 2, mediaType, ...content }, null, 2)}\n`);
  return { digest: digestOf(bytes), mediaType, bytes };
}

function descriptor(bytes: Buffer): { digest: Digest; size: number } {
  return { digest: digestOf(bytes), size: bytes.length };
}
