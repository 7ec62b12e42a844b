/** Exports cached images as an image layout tar. Images must be complete, and are not evicted until it is written. */
import type { Catalog } from '../cache/catalog/catalog.ts';
import type { ContentCache } from '../cache/catalog/content-cache.ts';
import type { IndexStore, RepositoryKey } from '../cache/index/index-store.ts';
import type { Manifest, ManifestStore } from '../mirror/manifests/manifest-store.ts';
import type { Digest } from '../oci/digest.ts';
import { formatImageName } from '../oci/image-name.ts';
import { type Descriptor, isNondistributable, parseManifest } from '../oci/manifest.ts';
import { choosePlatforms } from '../oci/platform.ts';
import { isDigest, type Tag } from '../oci/reference.ts';
import { referrerTags } from '../oci/referrer-tags.ts';
import { ImageError, listMissing, noPlatform, policyRefusal } from './errors.ts';
import { type LayoutImage, writeLayout } from './layout/layout-writer.ts';
import { type RequestedImage, requestedImage, type UpstreamOf } from './requested-image.ts';

export interface ExportContext {
  catalog: Catalog;
  cache: ContentCache;
  index: IndexStore;
  manifests: ManifestStore;
  upstreamOf: UpstreamOf;
  /** @throws {PolicyError} a policy does not let a manifest of the repository in */
  requireManifest: (key: RepositoryKey, digest: Digest) => Promise<void>;
}

export interface ExportRequest {
  /** Image names, as people write them. */
  images: readonly string[];
  /** Exports only these platforms of an index; all if empty. The index itself is exported unchanged. */
  platforms: readonly string[];
  /** Leaves out this content, because an earlier archive contains it. */
  since: ReadonlySet<Digest>;
}

/** An archive that is ready to be written. Its content is not evicted until it is disposed of. */
export interface Archive extends Disposable {
  /** Bytes of the content in the archive; the tar itself is a little longer. */
  contentBytes: number;
  /** @throws {ImageError | ContentError | StorageError} stored content is lost or damaged: the archive is cut off */
  tar: AsyncIterable<Buffer>;
}

/** Each piece gets a new buffer, because the reader of the archive keeps it. */
const PIECE_BYTES = 64 * 1024;

export class Exporter {
  readonly #context: ExportContext;

  constructor(context: ExportContext) {
    this.#context = context;
  }

  /** @throws {ImageError} images are not cached, or not complete: the message has a line for each of them */
  async prepare({ images, platforms, since }: ExportRequest): Promise<Archive> {
    const { upstreamOf } = this.#context;
    using stack = new DisposableStack();
    const selection = stack.use(new Selection(this.#context));
    const problems: ImageError[] = [];
    for (const text of images) {
      try {
        await selection.addWithReferrers(requestedImage(text, upstreamOf), platforms);
      } catch (error) {
        if (!(error instanceof ImageError)) throw error;
        problems.push(error);
      }
    }
    const [first] = problems;
    if (first !== undefined)
      throw new ImageError(first.code, problems.map(({ message }) => message).join('\n'));
    const blobs = [...selection.blobs.values()];
    const contentBytes = blobs.reduce((sum, { digest, size }) => sum + (since.has(digest) ? 0 : size), 0);
    const open = (digest: Digest) => pieces(digest, this.#context.cache);
    const tar = writeLayout({ images: selection.images, blobs, since, open });
    const held = stack.move();
    return { contentBytes, tar, [Symbol.dispose]: () => held.dispose() };
  }
}

/** The images that will be written, and everything that they need. */
class Selection implements Disposable {
  readonly images: LayoutImage[] = [];
  readonly blobs = new Map<Digest, Pick<Descriptor, 'digest' | 'size'>>();
  readonly #context: ExportContext;
  readonly #releases: (() => void)[] = [];

  constructor(context: ExportContext) {
    this.#context = context;
  }

  [Symbol.dispose](): void {
    for (const release of this.#releases) release();
  }

  /** Adds an image with those of its signatures and other referrers that are cached. @throws {ImageError} */
  async addWithReferrers(image: RequestedImage, platforms: readonly string[]): Promise<void> {
    const { key, name } = image;
    const { host, repository } = name;
    for (const digest of await this.#add(image, platforms)) {
      for (const tag of referrerTags(digest)) {
        if ((await this.#meaning(key, tag)) === undefined) continue;
        try {
          await this.#add({ key, name: { host, repository, tag }, reference: tag }, [], true);
        } catch (error) {
          if (!(error instanceof ImageError)) throw error; // an incomplete referrer is left out, as if it were not cached
        }
      }
    }
  }

  /**
   * @param mayLack manifests of an index that are not complete may be left out
   * @returns the digests of its manifests
   */
  async #add(
    { key, name, reference }: RequestedImage,
    platforms: readonly string[],
    mayLack = false,
  ): Promise<Digest[]> {
    const digest = isDigest(reference) ? reference : await this.#meaning(key, reference);
    const isKnown = digest !== undefined && (await this.#context.index.permission(key, digest)) !== undefined;
    const top = isKnown ? await this.#manifest(digest) : undefined;
    const label = formatImageName(name);
    if (top === undefined)
      throw new ImageError('not-cached', `${label} is not in the cache: fetch it with millpond warm`);
    const { tree, missing } = await this.#collect(top, { label, platforms, mayLack }, new Map());
    if (missing.size > 0) throw incomplete(label, missing);
    for (const { digest: at, isManifest } of tree.values())
      if (isManifest) await this.#requireManifest(key, at);
    for (const [at, blob] of tree) this.blobs.set(at, blob);
    const { mediaType, bytes } = top;
    this.images.push({ descriptor: { mediaType, digest: top.digest, size: bytes.length }, name });
    return [...tree.values()].flatMap(({ digest: at, isManifest }) => (isManifest ? at : []));
  }

  async #collect(
    { digest, bytes, mediaType }: Manifest,
    options: CollectOptions,
    known: Map<Digest, Collected>,
  ): Promise<Collected> {
    const into: Collected = { tree: new Map(), missing: new Set() };
    into.tree.set(digest, { digest, size: bytes.length, isManifest: true });
    const { manifests = [], blobs = [] } = parseManifest(bytes, mediaType) ?? {};
    const { chosen, absent } = choosePlatforms(manifests, options.platforms);
    if (absent.length > 0) throw noPlatform(options.label, absent, manifests);
    for (const child of chosen) {
      if (into.tree.has(child.digest)) continue;
      const below = await this.#collectChild(child, options, known);
      if (options.mayLack && below.missing.size > 0) continue;
      for (const [at, one] of below.tree) into.tree.set(at, one);
      for (const one of below.missing) into.missing.add(one);
    }
    for (const blob of blobs) {
      this.#hold(blob.digest);
      const size = (await this.#context.catalog.get(blob.digest))?.size;
      if (size !== undefined) into.tree.set(blob.digest, { digest: blob.digest, size, isManifest: false });
      else if (!isNondistributable(blob)) into.missing.add(`the blob ${blob.digest}`);
    }
    return into;
  }

  /** @param known keeps each manifest from being collected twice: a hostile index can list one at every level */
  async #collectChild(
    child: Descriptor,
    options: CollectOptions,
    known: Map<Digest, Collected>,
  ): Promise<Collected> {
    const before = known.get(child.digest);
    if (before !== undefined) return before;
    const manifest = await this.#manifest(child.digest);
    const collected =
      manifest === undefined
        ? { tree: new Map(), missing: new Set([`the manifest ${child.digest}${forPlatform(child)}`]) }
        : await this.#collect(manifest, options, known);
    known.set(child.digest, collected);
    return collected;
  }

  async #manifest(digest: Digest): Promise<Manifest | undefined> {
    this.#hold(digest);
    return this.#context.manifests.peek(digest);
  }

  async #meaning(key: RepositoryKey, tag: Tag): Promise<Digest | undefined> {
    return (await this.#context.index.tag({ ...key, tag, accept: '' }))?.digest;
  }

  /** @throws {ImageError} a policy does not let it in */
  async #requireManifest(key: RepositoryKey, digest: Digest): Promise<void> {
    const refused = await policyRefusal(this.#context.requireManifest(key, digest));
    if (refused !== undefined) throw new ImageError('refused', refused.message);
  }

  #hold(digest: Digest): void {
    this.#releases.push(this.#context.catalog.hold(digest));
  }
}

interface CollectOptions {
  label: string;
  platforms: readonly string[];
  mayLack: boolean;
}

interface Collected {
  tree: Map<Digest, { digest: Digest; size: number; isManifest: boolean }>;
  missing: Set<string>;
}

async function* pieces(digest: Digest, cache: ContentCache): AsyncGenerator<Buffer, void> {
  const content = await cache.open(digest);
  if (content === undefined)
    throw new ImageError('incomplete', `${digest} was lost during the export: fetch its image again`);
  try {
    for (let at = 0; at < content.size; ) {
      const piece = Buffer.allocUnsafeSlow(Math.min(PIECE_BYTES, content.size - at));
      const length = await content.read(piece, at, content.size);
      at += length;
      yield piece.subarray(0, length);
    }
  } finally {
    await content.close();
  }
}

function forPlatform({ platform }: Descriptor): string {
  return platform === undefined ? '' : ` of ${platform}`;
}

function incomplete(label: string, missing: ReadonlySet<string>): ImageError {
  const what = `${label} is not complete in the cache: it lacks ${listMissing(missing)}`;
  return new ImageError('incomplete', `${what}; fetch it with millpond warm, or choose with --platform`);
}
