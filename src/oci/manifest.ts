/**
 * Manifests: their media types, what they point at, and which of them a client accepts.
 *
 * Manifest bytes are sacred: everything here reads a parsed copy and nothing re-serialises.
 */
import { type Digest, parseDigest } from './digest.ts';

export const OCI_INDEX = 'application/vnd.oci.image.index.v1+json';
export const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
export const DOCKER_LIST = 'application/vnd.docker.distribution.manifest.list.v2+json';
export const DOCKER_MANIFEST = 'application/vnd.docker.distribution.manifest.v2+json';
const OCI_ARTIFACT = 'application/vnd.oci.artifact.manifest.v1+json';

/** Every manifest type that is stored and served. Docker schema 1 is not: its digest does not cover its bytes. */
const MANIFEST_TYPES: readonly string[] = [
  OCI_INDEX,
  DOCKER_LIST,
  OCI_MANIFEST,
  DOCKER_MANIFEST,
  OCI_ARTIFACT,
];

/**
 * What we ask upstream for. The full list, always: Quay converts a tag's manifest to another one, with another
 * digest, when its stored type is not literally in `Accept`.
 */
export const ACCEPT_ALL_MANIFESTS = `${MANIFEST_TYPES.join(', ')}, */*;q=0.1`;

/** The largest manifest taken from an upstream. Clients refuse above 4 MiB and a little (containerd: 4 393 216). */
export const MANIFEST_MAX_BYTES = 8 * 1024 * 1024;

/** A record is kept of everything that a manifest lists. Real ones list some dozens; a hostile one could list 70 000. */
const MAX_DESCRIPTORS = 10_000;

/** How many levels of indexes within indexes are followed. Real images have two; more is an attempt to keep us busy. */
export const MAX_MANIFEST_DEPTH = 8;

export interface Descriptor {
  mediaType: string;
  digest: Digest;
  /** Bytes. */
  size: number;
  /** What an index says of a platform manifest: `linux/arm64`, `linux/arm/v7`. */
  platform?: string;
}

export interface ParsedManifest {
  mediaType: string;
  /** Platform manifests of an index. */
  manifests: Descriptor[];
  /** Config and layers of an image, blobs of an artifact. */
  blobs: Descriptor[];
}

/** Whether a registry need not have it: base layers of Windows, which only their publisher may give out. */
export function isNondistributable({ mediaType }: Descriptor): boolean {
  return mediaType.includes('.foreign.') || mediaType.includes('.nondistributable.');
}

/** What a manifest lists, each once. */
export function childrenOf({ manifests, blobs }: ParsedManifest): Digest[] {
  return [...new Set([...manifests, ...blobs].map(({ digest }) => digest))];
}

/**
 * Reads what a manifest lists, or returns undefined when `bytes` are no manifest that we know.
 *
 * @param contentType the type upstream sent; used when the JSON itself names none (it is optional in OCI 1.0)
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

/** Descriptors with digests that we cannot verify are left out: nothing could be served for them anyway. */
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
 * `os/architecture[/variant]` of an index's entry, or of an image's config: both have these fields (image-spec).
 * Attestations beside an image say `unknown/unknown`, and are no platform.
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
 * The manifest types that a client names in `Accept`, sorted, each once: dockerd sends them in random order, and
 * order must not make two cache entries. Empty when the client takes anything (no `Accept`, or a wildcard).
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
