/** Finds the manifests of a repository that list something: blobs follow them, and platform manifests their index. */
import { LRUCache } from 'lru-cache';
import type { Catalog } from '../../cache/catalog/catalog.ts';
import type { IndexStore, RepositoryKey } from '../../cache/index/index-store.ts';
import type { Manifest, ManifestStore } from '../../mirror/manifests/manifest-store.ts';
import type { Digest } from '../../oci/digest.ts';
import { MAX_MANIFEST_DEPTH, parseManifest } from '../../oci/manifest.ts';

export interface ListingsContext {
  catalog: Catalog;
  index: IndexStore;
  manifests: Pick<ManifestStore, 'peek'>;
}

/** Some 200 bytes each. */
const REMEMBERED = 50_000;

export class Listings {
  readonly #context: ListingsContext;
  /** For a blob, the last manifest of the repository that was let in and lists it. Says only where to look. */
  readonly #manifests = new LRUCache<string, Digest>({ max: REMEMBERED });
  /** The same for a manifest: its index. */
  readonly #indexes = new LRUCache<string, Digest>({ max: REMEMBERED });

  constructor(context: ListingsContext) {
    this.#context = context;
  }

  /** Notes what a manifest lists, so that the rest of its pull is found without a search. */
  note(key: RepositoryKey, { digest, bytes, mediaType }: Manifest): void {
    const parsed = parseManifest(bytes, mediaType);
    if (parsed === undefined) return;
    for (const listed of parsed.blobs) this.#manifests.set(nameOf(key, listed.digest), digest);
    for (const listed of parsed.manifests) this.#indexes.set(nameOf(key, listed.digest), digest);
  }

  /** A manifest that was let in lately and lists a blob. */
  manifestOf(key: RepositoryKey, blob: Digest): Digest | undefined {
    return this.#manifests.get(nameOf(key, blob));
  }

  /** An index that was let in lately and lists a manifest. */
  indexOf(key: RepositoryKey, manifest: Digest): Digest | undefined {
    return this.#indexes.get(nameOf(key, manifest));
  }

  /** Whether any repository has got it from a manifest, or from upstream. If not, a search finds nothing. */
  async isKnown(digest: Digest): Promise<boolean> {
    for await (const _ of this.#context.index.permissions(digest)) return true;
    return false;
  }

  /**
   * Goes through all stored manifests, so it is for what was pulled long ago, or before a restart. Only those count that
   * upstream has served as manifests of the repository, and what an index among these lists: a client that has a platform
   * manifest from another repository does not ask for it again (dockerd).
   *
   * @throws {StorageError}
   */
  async search(key: RepositoryKey, digest: Digest, depth = 0): Promise<Digest[]> {
    const { catalog, index } = this.#context;
    const found: Digest[] = [];
    for (const lister of (await catalog.parentsOf([digest])).get(digest) ?? []) {
      const isOfRepository = (await index.permission(key, lister))?.expanded === true;
      if (
        isOfRepository ||
        (depth < MAX_MANIFEST_DEPTH && (await this.search(key, lister, depth + 1)).length > 0)
      )
        found.push(lister);
    }
    return found;
  }

  /** What a stored manifest lists. */
  async childrenOf(digest: Digest): Promise<readonly Digest[]> {
    return (await this.#context.catalog.get(digest))?.children ?? [];
  }

  /** A manifest that is stored. @throws {StorageError} */
  manifest(digest: Digest): Promise<Manifest | undefined> {
    return this.#context.manifests.peek(digest);
  }
}

/** Whether a manifest lists a digest as a config or layer, and not as a manifest. */
export function listsBlob({ bytes, mediaType }: Manifest, digest: Digest): boolean {
  const { blobs = [] } = parseManifest(bytes, mediaType) ?? {};
  return blobs.some((blob) => blob.digest === digest);
}

function nameOf({ upstream, repository }: RepositoryKey, digest: Digest): string {
  return `${upstream}/${repository}@${digest}`;
}
