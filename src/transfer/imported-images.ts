/** Makes images out of content that has come: what they need is looked up, then recorded, their tag last. */
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
import { ImageError } from './errors.ts';
import type { RequestedImage } from './requested-image.ts';

export interface ImportedImagesContext {
  cache: ContentCache;
  manifests: ManifestStore;
  clock: Clock;
}

interface HeldManifest {
  manifest: Manifest;
  parsed: ParsedManifest;
}

/** A manifest and all that it lists. */
interface Tree {
  /** The manifest is the last; those that it lists come before it. */
  manifests: Set<HeldManifest>;
  platforms: string[];
  missing: string[];
}

const NAMED_MISSING = 3;

export class ImportedImages {
  /** What the images need that were taken. */
  readonly needed = new Set<Digest>();
  readonly #context: ImportedImagesContext;
  readonly #archived: ReadonlySet<Digest>;

  /** @param archived what the archive holds; all of it is in the cache, and held */
  constructor(context: ImportedImagesContext, archived: ReadonlySet<Digest>) {
    this.#context = context;
    this.#archived = archived;
  }

  /**
   * Makes an image visible, if all of it is here. Of an index one platform is enough, and each of which the archive has
   * the manifest must be whole.
   *
   * @throws {ImageError} `incomplete`
   * @throws {StorageError}
   */
  async take({ key, reference }: RequestedImage, top: Descriptor): Promise<{ platforms: string[] }> {
    const { cache, manifests, clock } = this.#context;
    const held: (() => void)[] = [];
    try {
      const tree = await this.#tree(top, 0, new Map(), held);
      const missing = tree?.missing ?? [`its manifest ${top.digest}`];
      if (tree === undefined || missing.length > 0) throw incomplete(missing);
      for (const { manifest, parsed } of tree.manifests) {
        const isTagged = manifest.digest === top.digest && !isDigest(reference);
        const tag = isTagged
          ? { key: { ...key, tag: reference, accept: '' }, confirmedAt: clock.now() }
          : undefined;
        if (cache.get(manifest.digest)?.mediaType === undefined)
          await manifests.put(key, manifest, parsed, tag);
        else await manifests.link(key, manifest, tag);
        this.needed.add(manifest.digest);
        for (const { digest } of parsed.blobs) this.needed.add(digest);
      }
      cache.touch(top.digest);
      return { platforms: tree.platforms };
    } finally {
      for (const release of held) release();
    }
  }

  /** @returns undefined if there is no such manifest here */
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
    const tree: Tree = { manifests: new Set(), platforms: [], missing: this.#missing(blobs, held) };
    for (const child of listed) {
      const below = await this.#tree(child, depth + 1, known, held);
      if (below === undefined) continue; // a platform that was left out
      if (below.missing.length === 0) {
        for (const one of below.manifests) tree.manifests.add(one);
        if (child.platform !== undefined) tree.platforms.push(child.platform);
      } else if (this.#archived.has(child.digest)) tree.missing.push(...below.missing);
    }
    if (listed.length > 0 && tree.manifests.size === 0 && tree.missing.length === 0)
      tree.missing.push('all of its platforms');
    tree.manifests.add(root);
    known.set(digest, tree);
    return tree;
  }

  #missing(blobs: readonly Descriptor[], held: (() => void)[]): string[] {
    const { cache } = this.#context;
    return blobs
      .filter((blob) => {
        held.push(cache.hold(blob.digest));
        return cache.get(blob.digest) === undefined && !isNondistributable(blob);
      })
      .map(({ digest }) => `blob ${digest}`);
  }

  async #read({ digest, mediaType }: Descriptor, held: (() => void)[]): Promise<HeldManifest | undefined> {
    const { cache, manifests } = this.#context;
    held.push(cache.hold(digest));
    const record = cache.get(digest);
    if (record === undefined || record.size > MANIFEST_MAX_BYTES) return undefined;
    const bytes =
      record.mediaType === undefined ? await cache.read(digest) : (await manifests.peek(digest))?.bytes;
    const parsed = bytes && parseManifest(bytes, mediaType);
    if (bytes === undefined || parsed === undefined) return undefined;
    return { manifest: { digest, mediaType: parsed.mediaType, bytes }, parsed };
  }
}

function incomplete(missing: readonly string[]): ImageError {
  const more = missing.length > NAMED_MISSING ? ` and ${missing.length - NAMED_MISSING} more` : '';
  const what = `neither the archive nor the cache has ${missing.slice(0, NAMED_MISSING).join(', ')}${more}`;
  return new ImageError(
    'incomplete',
    `${what}: import the archive that it was written --since first, or write it anew`,
  );
}
