/** Makes the images of an imported archive visible: looks for everything they need, then records it, the tag last. */
import type { Catalog } from '../cache/catalog/catalog.ts';
import type { ContentCache } from '../cache/catalog/content-cache.ts';
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
import { isDigest } from '../oci/reference.ts';
import { ImageError, listMissing } from './errors.ts';
import type { RequestedImage } from './requested-image.ts';

export interface ImportedImagesContext {
  catalog: Catalog;
  cache: ContentCache;
  manifests: ManifestStore;
  clock: Clock;
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

  /** @param archived what the archive contains; all of it is in the cache, and held against eviction */
  constructor(context: ImportedImagesContext, archived: ReadonlySet<Digest>) {
    this.#context = context;
    this.#archived = archived;
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
    const { catalog, manifests, clock } = this.#context;
    const held: (() => void)[] = [];
    const needed = new Set<Digest>();
    try {
      const tree = await this.#tree(top, 0, new Map(), held);
      if (tree === undefined) throw incomplete(new Set([`its manifest ${top.digest}`]));
      if (tree.missing.size > 0) throw incomplete(tree.missing);
      for (const { manifest, parsed } of tree.manifests) {
        const isTagged = manifest.digest === top.digest && !isDigest(reference);
        const tag = isTagged
          ? { key: { ...key, tag: reference, accept: '' }, confirmedAt: clock.now() }
          : undefined;
        await manifests.putIfAbsent(key, manifest, parsed, tag);
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
    held: (() => void)[],
  ): Promise<Tree | undefined> {
    const { digest } = descriptor;
    if (known.has(digest)) return known.get(digest);
    known.set(digest, undefined);
    const root = depth > MAX_MANIFEST_DEPTH ? undefined : await this.#read(descriptor, held);
    if (root === undefined) return undefined;
    const { manifests: listed, blobs } = root.parsed;
    const tree: Tree = { manifests: new Set(), platforms: [], missing: await this.#missing(blobs, held) };
    for (const child of listed) {
      const below = await this.#tree(child, depth + 1, known, held);
      if (below === undefined) continue; // a platform that was left out of the archive
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
  async #missing(blobs: readonly Descriptor[], held: (() => void)[]): Promise<Set<string>> {
    const { catalog } = this.#context;
    const missing = new Set<string>();
    for (const blob of blobs) {
      held.push(catalog.hold(blob.digest));
      if ((await catalog.get(blob.digest)) === undefined && !isNondistributable(blob))
        missing.add(`the blob ${blob.digest}`);
    }
    return missing;
  }

  async #read({ digest, mediaType }: Descriptor, held: (() => void)[]): Promise<HeldManifest | undefined> {
    const { catalog, cache, manifests } = this.#context;
    held.push(catalog.hold(digest));
    const record = await catalog.get(digest);
    if (record === undefined || record.size > MANIFEST_MAX_BYTES) return undefined;
    const bytes =
      record.mediaType === undefined ? await cache.read(digest) : (await manifests.peek(digest))?.bytes;
    const parsed = bytes && parseManifest(bytes, mediaType);
    if (bytes === undefined || parsed === undefined) return undefined;
    return { manifest: { digest, mediaType: parsed.mediaType, bytes }, parsed };
  }
}

function incomplete(missing: ReadonlySet<string>): ImageError {
  const what = `neither the archive nor the cache has ${listMissing(missing)}`;
  const advice = 'import the archives named by --since first, or export it again without --since';
  return new ImageError('incomplete', `${what}: ${advice}`);
}
