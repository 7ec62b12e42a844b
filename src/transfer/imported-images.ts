/** Makes the images of an imported archive visible: looks for everything they need, then records it, the tag last. */
import type { Catalog } from '../cache/catalog/catalog.ts';
import type { ContentCache } from '../cache/catalog/content-cache.ts';
import type { IndexStore, RepositoryKey } from '../cache/index/index-store.ts';
import type { Clock } from '../clock.ts';
import type { Manifest, ManifestStore } from '../mirror/manifests/manifest-store.ts';
import type { Digest } from '../oci/digest.ts';
import {
  type Descriptor,
  isNondistributable,
  MANIFEST_MAX_BYTES,
  MAX_MANIFEST_DEPTH,
  type ParsedManifest,
  parseManifest,
} from '../oci/manifest.ts';
import { isDigest, type Tag } from '../oci/reference.ts';
import { ImageError, listMissing } from './errors.ts';
import type { RequestedImage } from './requested-image.ts';

export interface ImportedImagesContext {
  catalog: Catalog;
  cache: ContentCache;
  index: IndexStore;
  manifests: ManifestStore;
  clock: Clock;
  /** Called for each manifest that a repository has got from an archive. @param tag that means it now */
  onImported: (key: RepositoryKey, digest: Digest, tag: Tag | undefined) => Promise<void>;
}

/** An image on its way to becoming visible. */
interface Taking {
  /** The repository that will show it. */
  key: RepositoryKey;
  /** Releases what is held for it. */
  held: (() => void)[];
}

interface HeldManifest {
  manifest: Manifest;
  parsed: ParsedManifest;
}

/** A manifest and everything below it. */
interface Tree {
  /** The manifest itself is last, after those that it lists. */
  manifests: Set<HeldManifest>;
  platforms: string[];
  missing: Set<string>;
}

export class ImportedImages {
  readonly #context: ImportedImagesContext;
  readonly #archived: ReadonlySet<Digest>;

  readonly #isTrusted: boolean;

  /**
   * @param archived what the archive contains; all of it is in the cache, and held against eviction
   * @param isTrusted see {@link ImportRequest.isTrusted}
   */
  constructor(context: ImportedImagesContext, archived: ReadonlySet<Digest>, isTrusted: boolean) {
    this.#context = context;
    this.#archived = archived;
    this.#isTrusted = isTrusted;
  }

  /**
   * Makes an image visible if it is complete. Of an index one platform is enough, because an export may leave out the
   * others. But every platform whose manifest is in the archive must be complete.
   *
   * @param top the manifest of the image
   * @returns the platforms that are complete
   * @throws {ImageError} `incomplete`
   * @throws {StorageError}
   */
  async take({ key, reference }: RequestedImage, top: Descriptor): Promise<{ platforms: string[] }> {
    const { catalog, manifests, clock, onImported } = this.#context;
    const held: (() => void)[] = [];
    const needed = new Set<Digest>();
    try {
      const tree = await this.#tree(top, 0, new Map(), { key, held });
      if (tree === undefined) throw this.#incomplete(new Set([`its manifest ${top.digest}`]));
      if (tree.missing.size > 0) throw this.#incomplete(tree.missing);
      for (const { manifest, parsed } of tree.manifests) {
        const isTagged = manifest.digest === top.digest && !isDigest(reference);
        const tag = isTagged
          ? { key: { ...key, tag: reference, accept: '' }, confirmedAt: clock.now() }
          : undefined;
        await manifests.putIfAbsent(key, manifest, parsed, tag);
        await onImported(key, manifest.digest, tag?.key.tag);
        for (const { digest } of [manifest, ...parsed.blobs]) needed.add(digest);
      }
      await catalog.setOrigin(needed, 'imported');
      catalog.touch(top.digest);
      return { platforms: tree.platforms };
    } finally {
      for (const release of held) release();
    }
  }

  /** @returns undefined if the manifest is neither in the archive nor in the cache */
  async #tree(
    descriptor: Descriptor,
    depth: number,
    known: Map<Digest, Tree | undefined>,
    taking: Taking,
  ): Promise<Tree | undefined> {
    const { digest } = descriptor;
    if (known.has(digest)) return known.get(digest);
    known.set(digest, undefined);
    const root = depth > MAX_MANIFEST_DEPTH ? undefined : await this.#read(descriptor, taking);
    if (root === undefined) return undefined;
    const { manifests: listed, blobs } = root.parsed;
    const tree: Tree = { manifests: new Set(), platforms: [], missing: await this.#missing(blobs, taking) };
    for (const child of listed) {
      const below = await this.#tree(child, depth + 1, known, taking);
      if (below === undefined) {
        // A platform that was left out of the archive. The index would give its repository permission for it.
        if (!(await this.#mayUse(child.digest, taking))) tree.missing.add(`the manifest ${child.digest}`);
        continue;
      }
      if (below.missing.size === 0) {
        for (const one of below.manifests) tree.manifests.add(one);
        if (child.platform !== undefined) tree.platforms.push(child.platform);
      } else if (this.#archived.has(child.digest)) {
        for (const one of below.missing) tree.missing.add(one);
      }
    }
    if (listed.length > 0 && tree.manifests.size === 0 && tree.missing.size === 0)
      tree.missing.add('any of its platforms');
    tree.manifests.add(root);
    known.set(digest, tree);
    return tree;
  }

  /** Holds the blobs and finds those that are missing. */
  async #missing(blobs: readonly Descriptor[], taking: Taking): Promise<Set<string>> {
    const { catalog } = this.#context;
    const missing = new Set<string>();
    for (const blob of blobs) {
      taking.held.push(catalog.hold(blob.digest));
      const isHere = isNondistributable(blob) || (await catalog.get(blob.digest)) !== undefined;
      if (!isHere || !(await this.#mayUse(blob.digest, taking))) missing.add(`the blob ${blob.digest}`);
    }
    return missing;
  }

  async #read({ digest, mediaType }: Descriptor, taking: Taking): Promise<HeldManifest | undefined> {
    const { catalog, cache, manifests } = this.#context;
    taking.held.push(catalog.hold(digest));
    if (!(await this.#mayUse(digest, taking))) return undefined;
    const record = await catalog.get(digest);
    if (record === undefined || record.size > MANIFEST_MAX_BYTES) return undefined;
    const bytes =
      record.mediaType === undefined ? await cache.read(digest) : (await manifests.peek(digest))?.bytes;
    const parsed = bytes && parseManifest(bytes, mediaType);
    if (bytes === undefined || parsed === undefined) return undefined;
    return { manifest: { digest, mediaType: parsed.mediaType, bytes }, parsed };
  }

  /** Whether permission for a digest may be recorded: storing a manifest gives it for everything that it lists. */
  async #mayUse(digest: Digest, { key }: Taking): Promise<boolean> {
    if (this.#isTrusted || this.#archived.has(digest)) return true;
    return (await this.#context.index.permission(key, digest)) !== undefined;
  }

  #incomplete(missing: ReadonlySet<string>): ImageError {
    const [place, advice] = this.#isTrusted
      ? ['cache', 'import the archives named by --since first, or export it again without --since']
      : ['repository', 'export it again without --since and --platform, or import it with operate: true'];
    const what = `neither the archive nor the ${place} has ${listMissing(missing)}`;
    return new ImageError('incomplete', `${what}: ${advice}`);
  }
}
