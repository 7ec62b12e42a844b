/** Whether a manifest is an image that somebody could run. */
import { DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST } from '../../../oci/manifest.ts';
import type { Subject } from '../part.ts';

export type SubjectKind =
  /** An index: each of its images is decided when it is asked for. */
  | 'list'
  | 'image'
  /** A chart, for example. */
  | 'other'
  /** A client may take it for an index or for an image, whichever it likes. */
  | 'ambiguous';

/**
 * The configs of images. dockerd also runs one of no type, and of a type that says nothing: old clients pushed them. What
 * has a config of another type is run by no client.
 */
const IMAGE_CONFIGS: readonly string[] = [
  'application/vnd.oci.image.config.v1+json',
  'application/vnd.docker.container.image.v1+json',
  'application/octet-stream',
  '',
];
/** Layers of images, compressed or not: enough to be scanned, whatever the config says. */
const IMAGE_LAYER = /^application\/vnd\.(oci\.image\.layer\.|docker\.image\.rootfs\.)/;

export function kindOf({ bytes, mediaType, parsed }: Subject): SubjectKind {
  const isList = isListType(mediaType);
  if (isList !== isListType(parsed.mediaType)) return 'ambiguous';
  if (isList ? parsed.blobs.length > 0 : parsed.manifests.length > 0) return 'ambiguous';
  if (isList) return 'list';
  if (parsed.blobs.some((blob) => IMAGE_LAYER.test(blob.mediaType))) return 'image';
  if (parsed.mediaType !== OCI_MANIFEST && parsed.mediaType !== DOCKER_MANIFEST) return 'other';
  return IMAGE_CONFIGS.includes(configType(bytes)) ? 'image' : 'other';
}

function isListType(mediaType: string): boolean {
  return mediaType === OCI_INDEX || mediaType === DOCKER_LIST;
}

function configType(bytes: Buffer): string {
  const { config } = JSON.parse(bytes.toString('utf8')) as { config?: { mediaType?: unknown } | null };
  return typeof config?.mediaType === 'string' ? config.mediaType : '';
}
