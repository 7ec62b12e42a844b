/**
 * Finds out how much of an image is here.
 *
 * An index lists platforms, and clients pull only theirs. An image is therefore complete if each platform that was pulled
 * is: whoever pulls one of these again needs no upstream.
 */
import type { Catalog } from '../../cache/catalog/catalog.ts';
import type { ContentCache } from '../../cache/catalog/content-cache.ts';
import type { Digest } from '../../oci/digest.ts';
import {
  type Descriptor,
  isNondistributable,
  MANIFEST_MAX_BYTES,
  MAX_MANIFEST_DEPTH,
  type ParsedManifest,
  parseManifest,
  platformOf,
} from '../../oci/manifest.ts';
import type { ManifestStore } from './manifest-store.ts';

/** `list-only`: of all that an index lists, nothing is here. */
type ContentState = 'complete' | 'partial' | 'list-only';

interface PlatformContents {
  /** Such as `linux/arm64`; absent where the index states none, as for attestations. */
  platform?: string;
  digest: Digest;
  state: ContentState;
}

export interface ImageContents {
  state: ContentState;
  /** The platforms whose manifest is here. */
  platforms: string[];
  /** All that an index lists; absent if the image is none. */
  listed?: PlatformContents[];
  /** Bytes of the whole, as far as the manifests that are here tell. Images may share some of them. */
  size: number;
  /** Bytes of it that are here. */
  stored: number;
  /** Configs and layers that are not here, and of how many. */
  missing: { blobs: number; of: number };
}

export interface ImageContentsContext {
  catalog: Catalog;
  cache: ContentCache;
  manifests: ManifestStore;
}

/** By digest, because platforms may share layers. Sizes are in bytes. */
interface Found {
  /** Of the manifests that are here. */
  states: Map<Digest, ContentState>;
  manifests: Map<Digest, number>;
  blobs: Map<Digest, number>;
  missing: Map<Digest, number>;
}

/** @param digest of a stored manifest @throws {StorageError} */
export async function describeContents(
  digest: Digest,
  context: ImageContentsContext,
): Promise<ImageContents> {
  const found: Found = { states: new Map(), manifests: new Map(), blobs: new Map(), missing: new Map() };
  const parsed = await read(digest, context);
  const state = await look(digest, found, context);
  const isIndex = parsed !== undefined && parsed.manifests.length > 0;
  const listed = isIndex ? platformsOf(parsed, found) : undefined;
  const stored = sum(found.manifests) + sum(found.blobs);
  return {
    state,
    platforms:
      listed === undefined
        ? await ownPlatform(parsed, context)
        : listed.flatMap((one) => (one.state === 'list-only' ? [] : (one.platform ?? []))),
    ...(listed === undefined ? {} : { listed }),
    size: stored + sum(found.missing),
    stored,
    missing: { blobs: found.missing.size, of: found.missing.size + found.blobs.size },
  };
}

/** What the look at the whole has found of each. */
function platformsOf(index: ParsedManifest, { states }: Found): PlatformContents[] {
  return index.manifests.map(({ digest, platform }) => ({
    ...(platform === undefined ? {} : { platform }),
    digest,
    state: states.get(digest) ?? 'list-only',
  }));
}

/** Adds a manifest and all below it to `found`. */
async function look(
  digest: Digest,
  found: Found,
  context: ImageContentsContext,
  depth = 0,
): Promise<ContentState> {
  const state = await lookBelow(digest, found, context, depth);
  found.states.set(digest, state);
  return state;
}

async function lookBelow(
  digest: Digest,
  found: Found,
  context: ImageContentsContext,
  depth: number,
): Promise<ContentState> {
  const { catalog } = context;
  const record = await catalog.get(digest);
  if (record?.mediaType === undefined || depth >= MAX_MANIFEST_DEPTH) return 'list-only';
  found.manifests.set(digest, record.size);
  const states: ContentState[] = [];
  const unknown = new Set<Digest>();
  for (const child of record.children ?? []) {
    const below = await catalog.get(child);
    if (below === undefined) unknown.add(child);
    else if (below.mediaType !== undefined) states.push(await look(child, found, context, depth + 1));
    else found.blobs.set(child, below.size);
  }
  if (unknown.size === 0) return stateOf(states);
  // Only the manifest itself tells what is missing: reading it is for these alone.
  const parsed = await read(digest, context);
  const isMissing = (blob: Descriptor) => unknown.has(blob.digest) && !isNondistributable(blob);
  const missing = parsed?.blobs.filter(isMissing) ?? [];
  for (const blob of missing) found.missing.set(blob.digest, blob.size);
  if (missing.length > 0) states.push('partial');
  if (states.length === 0 && parsed !== undefined && parsed.manifests.length > 0) return 'list-only';
  return stateOf(states);
}

function stateOf(states: readonly ContentState[]): ContentState {
  return states.every((state) => state === 'complete') ? 'complete' : 'partial';
}

async function read(
  digest: Digest,
  { manifests }: ImageContentsContext,
): Promise<ParsedManifest | undefined> {
  const manifest = await manifests.peek(digest);
  return manifest && parseManifest(manifest.bytes, manifest.mediaType);
}

/** The platform that the config of a single image states. */
async function ownPlatform(
  parsed: ParsedManifest | undefined,
  { catalog, cache }: ImageContentsContext,
): Promise<string[]> {
  const [config] = parsed?.blobs ?? [];
  const size = config === undefined ? undefined : (await catalog.get(config.digest))?.size;
  // Limits the size, because the config of an artifact may be anything.
  if (config === undefined || (size ?? Number.POSITIVE_INFINITY) > MANIFEST_MAX_BYTES) return [];
  const bytes = await cache.read(config.digest);
  try {
    const platform = platformOf(JSON.parse(bytes?.toString('utf8') ?? ''));
    return platform === undefined ? [] : [platform];
  } catch {
    return [];
  }
}

function sum(sizes: ReadonlyMap<Digest, number>): number {
  let bytes = 0;
  for (const size of sizes.values()) bytes += size;
  return bytes;
}
