/**
 * Manifests that we hold: in the content store as they came, the recent ones also in memory.
 *
 * Storing one records what it lists, which is what gives its repository leave to serve those digests.
 */
import { LRUCache } from 'lru-cache';
import type { ContentReader, ContentStore } from '../cache/content-store.ts';
import type { IndexChange, IndexStore, RepositoryKey, TagKey } from '../cache/index-store.ts';
import type { Inventory } from '../cache/inventory.ts';
import type { Spool } from '../cache/spool.ts';
import { type Digest, digestAlgorithm, digestOf } from '../oci/digest.ts';
import { type Descriptor, MANIFEST_MAX_BYTES, type ParsedManifest } from '../oci/manifest.ts';

const MEMORY_BYTES = 64 * 1024 * 1024;

export interface Manifest {
  digest: Digest;
  mediaType: string;
  /** Exactly as upstream sent them. */
  bytes: Buffer;
}

export class ManifestStore {
  readonly #store: ContentStore;
  readonly #index: IndexStore;
  readonly #inventory: Inventory;
  readonly #spool: Spool;
  readonly #recent = new LRUCache<Digest, Manifest>({
    maxSize: MEMORY_BYTES,
    sizeCalculation: (manifest) => manifest.bytes.length + 1,
  });

  constructor(context: { store: ContentStore; index: IndexStore; inventory: Inventory; spool: Spool }) {
    this.#store = context.store;
    this.#index = context.index;
    this.#inventory = context.inventory;
    this.#spool = context.spool;
  }

  /** @throws {StorageError} */
  async get(digest: Digest): Promise<Manifest | undefined> {
    const recent = this.#recent.get(digest);
    if (recent !== undefined) return recent;
    const mediaType = (await this.#index.content(digest))?.mediaType;
    if (mediaType === undefined) return undefined;
    const bytes = await this.#read(digest);
    if (bytes === undefined) {
      await this.#index.write([{ delete: 'content', digest }]);
      this.#inventory.delete(digest);
      return undefined;
    }
    const manifest = { digest, mediaType, bytes };
    this.#recent.set(digest, manifest);
    return manifest;
  }

  /**
   * Stores a verified manifest, and the tag that was asked for in the same step: a tag never moves before its
   * manifest is here.
   *
   * @throws {StorageError}
   */
  async put(key: RepositoryKey, manifest: Manifest, parsed: ParsedManifest, tag?: TagChange): Promise<void> {
    const { digest, mediaType, bytes } = manifest;
    const path = await this.#spool.put(bytes);
    try {
      await this.#store.commit(digest, path);
    } catch (error) {
      await this.#spool.discard(path);
      throw error;
    }
    this.#inventory.add(digest, bytes.length);
    const listed = [...parsed.manifests, ...parsed.blobs, { digest, size: bytes.length, mediaType }];
    const changes: IndexChange[] = [
      { put: 'content', digest, value: { size: bytes.length, mediaType } },
      ...listed.map((descriptor) => link(key, descriptor)),
    ];
    if (tag !== undefined) {
      const value = { digest, mediaType, size: bytes.length, confirmedAt: tag.confirmedAt };
      changes.push({ put: 'tag', key: tag.key, value });
    }
    await this.#index.write(changes);
    this.#recent.set(digest, manifest);
  }

  /** @returns undefined if the content is gone, or is no longer what its digest says */
  async #read(digest: Digest): Promise<Buffer | undefined> {
    const content = await this.#store.open(digest);
    if (content === undefined) return undefined;
    try {
      if (content.size > MANIFEST_MAX_BYTES) return undefined;
      const bytes = await readAll(content);
      if (digestOf(bytes, digestAlgorithm(digest)) === digest) return bytes;
      await this.#store.delete(digest);
      return undefined;
    } finally {
      await content.close();
    }
  }
}

export interface TagChange {
  key: TagKey;
  /** When upstream said what the tag means; milliseconds since the epoch. */
  confirmedAt: number;
}

function link(key: RepositoryKey, { digest, size }: Descriptor): IndexChange {
  return { put: 'link', key, digest, value: { size } };
}

async function readAll(content: ContentReader): Promise<Buffer> {
  const bytes = Buffer.alloc(content.size);
  let position = 0;
  while (position < content.size) {
    position += await content.read(bytes.subarray(position), position, content.size);
  }
  return bytes;
}
