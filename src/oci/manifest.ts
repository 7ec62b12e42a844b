/**
 * Manifests: their media types, the content that they list, and the types that a client accepts.
 *
 * Reads parsed copies, and never writes a manifest: its digest covers every byte, and a copy that is written again has
 * another digest.
 */
import { type Digest, parseDigest } from './digest.ts';

export const OCI_INDEX = 'application/vnd.oci.image.index.v1+json';
export const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
export const DOCKER_LIST = 'application/vnd.docker.distribution.manifest.list.v2+json';
export const DOCKER_MANIFEST = 'application/vnd.docker.distribution.manifest.v2+json';
const OCI_ARTIFACT = 'application/vnd.oci.artifact.manifest.v1+json';

/** The manifest types that are stored and served. Docker schema 1 is not among them: its digest does not cover its bytes. */
const MANIFEST_TYPES: readonly string[] = [
  OCI_INDEX,
  DOCKER_LIST,
  OCI_MANIFEST,
  DOCKER_MANIFEST,
  OCI_ARTIFACT,
];

/**
 * The `Accept` header of our requests to upstreams. It always has the full list: when the stored type of a manifest is not
 * in it word for word, Quay converts the manifest to another type, with another digest.
 */
export const ACCEPT_ALL_MANIFESTS = `${MANIFEST_TYPES.join(', ')}, */*;q=0.1`;

/** Bytes of the largest manifest that we accept. Clients accept at most a little over 4 MiB (containerd: 4 393 216). */
export const MANIFEST_MAX_BYTES = 8 * 1024 * 1024;

/** Limits the records that one manifest costs us. Real manifests list dozens; a hostile one could list 70 000. */
const MAX_DESCRIPTORS = 10_000;

/** Levels of manifests that are followed. Deeper indexes would only keep the mirror busy. */
export const MAX_MANIFEST_DEPTH = 8;

export interface Descriptor {
  mediaType: string;
  digest: Digest;
  /** Bytes. */
  size: number;
  /** The platform that an index states for a manifest: `linux/arm64`, `linux/arm/v7`. */
  platform?: string;
}

export interface ParsedManifest {
  mediaType: string;
  /** The manifests that an index lists. */
  manifests: Descriptor[];
  /** The config and layers of an image, or the blobs of an artifact. */
  blobs: Descriptor[];
}

/** Whether a registry may lack this layer: only their publisher may distribute the base layers of Windows. */
export function isNondistributable({ mediaType }: Pick<Descriptor, 'mediaType'>): boolean {
  return mediaType.includes('.foreign.') || mediaType.includes('.nondistributable.');
}

/** The digests that a manifest lists, without duplicates. */
export function childrenOf({ manifests, blobs }: ParsedManifest): Digest[] {
  return [...new Set([...manifests, ...blobs].map(({ digest }) => digest))];
}

/**
 * Reads the content that a manifest lists; `undefined` if `bytes` are not a manifest of a type that we know.
 *
 * @param contentType the type that upstream sent. It counts if the JSON has no `mediaType`, which OCI 1.0 allows
 */
export function parseManifest(bytes: Uint8Array, contentType?: string): ParsedManifest | undefined {
  let json: unknown;
  try {
    json = JSON.parse(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8'));
  } catch {
    return undefined;
  }
  if (!isObject(json)) return undefined;
  const mediaType = manifestType(json, contentType);
  if (mediaType === undefined) return undefined;
  const listed = [json['config'], ...array(json['layers']), ...array(json['blobs'])];
  if (listed.length + array(json['manifests']).length > MAX_DESCRIPTORS) return undefined;
  return {
    mediaType,
    manifests: array(json['manifests']).flatMap(descriptor),
    blobs: listed.flatMap(descriptor),
  };
}

function manifestType(json: Record<string, unknown>, contentType: string | undefined): string | undefined {
  const named = json['mediaType'] ?? contentType;
  if (typeof named === 'string' && MANIFEST_TYPES.includes(named)) return named;
  if (json['schemaVersion'] !== 2) return undefined;
  if (Array.isArray(json['manifests'])) return OCI_INDEX;
  return isObject(json['config']) ? OCI_MANIFEST : undefined;
}

/** Reads a descriptor. Leaves it out if we cannot verify its digest: we could not serve its content anyway. */
function descriptor(value: unknown): Descriptor[] {
  if (!isObject(value) || typeof value['digest'] !== 'string') return [];
  const digest = parseDigest(value['digest']);
  const { size, mediaType } = value;
  if (digest === undefined || !Number.isSafeInteger(size) || (size as number) < 0) return [];
  const platform = platformOf(value['platform']);
  return [
    {
      digest,
      size: size as number,
      mediaType: typeof mediaType === 'string' ? mediaType : '',
      ...(platform === undefined ? {} : { platform }),
    },
  ];
}

/**
 * `os/architecture[/variant]` of an entry in an index, or of the config of an image: both have these fields (image-spec).
 * `undefined` if there are none, or if they say `unknown/unknown`, as those of an attestation beside an image do.
 */
export function platformOf(value: unknown): string | undefined {
  if (!isObject(value)) return undefined;
  const { os, architecture, variant } = value;
  if (typeof os !== 'string' || typeof architecture !== 'string' || os === 'unknown') return undefined;
  return [os, architecture, ...(typeof variant === 'string' ? [variant] : [])].join('/');
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function array(value: unknown): unknown[] {
  return Array.isArray(value) ? value : [];
}

/**
 * The manifest types that a client names in `Accept`. They are sorted and without duplicates: dockerd sends them in random
 * order, and the order must not make two cache entries. Empty if the client accepts any type (no `Accept`, or a wildcard),
 * and if it names none that we know.
 */
export function acceptedManifestTypes(accept: string | undefined): string[] {
  if (accept === undefined) return [];
  const types = accept
    .split(',')
    .map((part) => part.split(';', 1)[0]?.trim().toLowerCase() ?? '')
    .filter((type) => type !== '');
  if (types.some((type) => type === '*/*' || type === 'application/*')) return [];
  return [...new Set(types)].filter((type) => MANIFEST_TYPES.includes(type)).toSorted();
}
