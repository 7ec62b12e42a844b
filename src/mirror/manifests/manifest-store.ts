/**
 * Keeps manifests in the content store exactly as they came, recent ones also in memory.
 *
 * Storing a manifest records what it lists. That gives its repository permission to serve those digests.
 */
import { LRUCache } from 'lru-cache';
import type { Catalog } from '../../cache/catalog/catalog.ts';
import type { ContentCache } from '../../cache/catalog/content-cache.ts';
import type { Space } from '../../cache/catalog/space.ts';
import type { IndexChange, IndexStore, RepositoryKey, TagKey } from '../../cache/index/index-store.ts';
import type { Spool } from '../../cache/ingest/spool.ts';
import type { Digest } from '../../oci/digest.ts';
import { childrenOf, type Descriptor, type ParsedManifest, parseManifest } from '../../oci/manifest.ts';

const MEMORY_BYTES = 64 * 1024 * 1024;

export interface Manifest {
  digest: Digest;
  mediaType: string;
  /** Exactly as upstream sent them. */
  bytes: Buffer;
}

export interface ManifestStoreContext {
  catalog: Catalog;
  cache: ContentCache;
  space: Space;
  index: IndexStore;
  spool: Spool;
}

export class ManifestStore {
  readonly #context: ManifestStoreContext;
  readonly #recent = new LRUCache<Digest, Manifest>({
    maxSize: MEMORY_BYTES,
    sizeCalculation: (manifest) => manifest.bytes.length + 1,
  });

  constructor(context: ManifestStoreContext) {
    this.#context = context;
  }

  /** @throws {StorageError} */
  async get(digest: Digest): Promise<Manifest | undefined> {
    const manifest = await this.peek(digest);
    if (manifest !== undefined) this.#context.catalog.touch(digest);
    return manifest;
  }

  /** Like {@link get}, but does not count as a use. @throws {StorageError} */
  async peek(digest: Digest): Promise<Manifest | undefined> {
    const { catalog, cache } = this.#context;
    const mediaType = (await catalog.get(digest))?.mediaType;
    if (mediaType === undefined) return undefined;
    const recent = this.#recent.get(digest);
    if (recent !== undefined) return recent;
    const bytes = await cache.read(digest);
    if (bytes === undefined) return undefined;
    const manifest = { digest, mediaType, bytes };
    this.#recent.set(digest, manifest);
    return manifest;
  }

  /**
   * Stores a verified manifest and its tag in one step, so that a tag never moves before its manifest is stored.
   *
   * @throws {StorageError}
   */
  async put(key: RepositoryKey, manifest: Manifest, parsed: ParsedManifest, tag?: TagChange): Promise<void> {
    const { cache, space, spool } = this.#context;
    const { digest, mediaType, bytes } = manifest;
    using _reservation = await space.reserve(bytes.length);
    const path = await spool.put(bytes);
    const changes = changesOf(key, manifest, parsed, tag);
    const children = childrenOf(parsed);
    try {
      await cache.commit({ digest, path, mediaType, children }, changes);
    } catch (error) {
      await spool.discard(path);
      throw error;
    }
    this.#recent.set(digest, manifest);
  }

  /**
   * Stores a verified manifest unless it is stored already. Gives the repository permission for it and for what it
   * lists, and records `tag`.
   *
   * @throws {StorageError}
   */
  async putIfAbsent(
    key: RepositoryKey,
    manifest: Manifest,
    parsed: ParsedManifest,
    tag?: TagChange,
  ): Promise<void> {
    // An import first stores manifests like blobs, without a media type. These are stored once more.
    const isStored = (await this.#context.catalog.get(manifest.digest))?.mediaType !== undefined;
    if (isStored) await this.permit(key, manifest, tag);
    else await this.put(key, manifest, parsed, tag);
  }

  /** Gives a repository permission for a stored manifest and what it lists. Records `tag`. @throws {StorageError} */
  async permit(key: RepositoryKey, manifest: Manifest, tag?: TagChange): Promise<void> {
    const parsed = parseManifest(manifest.bytes, manifest.mediaType);
    if (parsed !== undefined) await this.#context.index.write(changesOf(key, manifest, parsed, tag));
  }
}

export interface TagChange {
  key: TagKey;
  /** When upstream confirmed the tag; milliseconds since the epoch. */
  confirmedAt: number;
}

function changesOf(
  key: RepositoryKey,
  { digest, mediaType, bytes }: Manifest,
  { manifests, blobs }: ParsedManifest,
  tag: TagChange | undefined,
): IndexChange[] {
  const permit = (listed: Descriptor): IndexChange => {
    return { put: 'permission', key, digest: listed.digest, value: { size: listed.size } };
  };
  const own: IndexChange = {
    put: 'permission',
    key,
    digest,
    value: { size: bytes.length, expanded: true },
  };
  const permissions = [...manifests.map(permit), ...blobs.map(permit), own];
  if (tag === undefined) return permissions;
  const value = { digest, mediaType, size: bytes.length, confirmedAt: tag.confirmedAt };
  return [...permissions, { put: 'tag', key: tag.key, value }];
}
