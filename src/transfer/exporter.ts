/** Exports cached images as an image layout tar: complete ones only, held against eviction until it is written. */
import type { ContentCache } from '../cache/catalog/content-cache.ts';
import type { IndexStore, RepositoryKey } from '../cache/index/index-store.ts';
import type { Manifest, ManifestStore } from '../mirror/manifests/manifest-store.ts';
import type { Digest } from '../oci/digest.ts';
import { formatImageName } from '../oci/image-name.ts';
import { type Descriptor, isNondistributable, parseManifest } from '../oci/manifest.ts';
import { choosePlatforms } from '../oci/platform.ts';
import { isDigest, type Tag } from '../oci/reference.ts';
import { ImageError, noPlatform } from './errors.ts';
import { type LayoutImage, writeLayout } from './layout/layout-writer.ts';
import { referrerTags } from './referrer-tags.ts';
import { type RequestedImage, requestedImage, type UpstreamOf } from './requested-image.ts';

export interface ExportContext {
  cache: ContentCache;
  index: IndexStore;
  manifests: ManifestStore;
  upstreamOf: UpstreamOf;
}

export interface ExportRequest {
  /** Names. */
  images: readonly string[];
  /** Of an index only these; none: all. The index itself stays as it is. */
  platforms: readonly string[];
  /** What an earlier archive holds, and this one leaves out. */
  since: ReadonlySet<Digest>;
}

/** An archive that is about to be written. Dispose of it when it has been, or will not be. */
export interface Archive extends Disposable {
  /** Bytes of the content in it; the tar itself is a little longer. */
  contentBytes: number;
  /** @throws {ContentError | StorageError} stored content turned out damaged: the archive is not whole */
  tar: AsyncIterable<Buffer>;
}

/** Fresh for every piece: who reads the archive keeps them. */
const PIECE_BYTES = 64 * 1024;
const NAMED_MISSING = 3;

export class Exporter {
  readonly #context: ExportContext;

  constructor(context: ExportContext) {
    this.#context = context;
  }

  /** @throws {ImageError} an image is not here, or not all of it: the message tells of each */
  async prepare({ images, platforms, since }: ExportRequest): Promise<Archive> {
    const { upstreamOf } = this.#context;
    const selection = new Selection(this.#context);
    try {
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
      return {
        contentBytes: blobs.reduce((sum, { digest, size }) => sum + (since.has(digest) ? 0 : size), 0),
        tar: writeLayout({
          images: selection.images,
          blobs,
          since,
          open: (digest) => pieces(digest, this.#context.cache),
        }),
        [Symbol.dispose]: () => selection[Symbol.dispose](),
      };
    } catch (error) {
      selection[Symbol.dispose]();
      throw error;
    }
  }
}

/** Images that will be written, and all that they need. */
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

  /** With the signatures and other referrers of it that are here. @throws {ImageError} */
  async addWithReferrers(image: RequestedImage, platforms: readonly string[]): Promise<void> {
    const { key, name } = image;
    const { host, repository } = name;
    for (const digest of await this.#add(image, platforms)) {
      for (const tag of referrerTags(digest)) {
        if ((await this.#meaning(key, tag)) === undefined) continue;
        try {
          await this.#add({ key, name: { host, repository, tag }, reference: tag }, [], true);
        } catch (error) {
          if (!(error instanceof ImageError)) throw error; // one that is not all here is as good as not here
        }
      }
    }
  }

  /**
   * @param mayLack of an index, what is not all here may be left out
   * @returns the manifests of it
   */
  async #add(
    { key, name, reference }: RequestedImage,
    platforms: readonly string[],
    mayLack = false,
  ): Promise<Digest[]> {
    const digest = isDigest(reference) ? reference : await this.#meaning(key, reference);
    const isKnown = digest !== undefined && (await this.#context.index.link(key, digest)) !== undefined;
    const top = isKnown ? await this.#manifest(digest) : undefined;
    const label = formatImageName(name);
    if (top === undefined)
      throw new ImageError('not-cached', `${label} is not in the cache: fetch it with millpond warm`);
    const { tree, missing } = await this.#collect(top, { label, platforms, mayLack });
    if (missing.length > 0) throw incomplete(label, missing);
    for (const [at, blob] of tree) this.blobs.set(at, blob);
    const { mediaType, bytes } = top;
    this.images.push({ descriptor: { mediaType, digest: top.digest, size: bytes.length }, name });
    return [...tree.values()].flatMap(({ digest: at, isManifest }) => (isManifest ? at : []));
  }

  async #collect({ digest, bytes, mediaType }: Manifest, options: CollectOptions): Promise<Collected> {
    const into: Collected = { tree: new Map(), missing: [] };
    into.tree.set(digest, { digest, size: bytes.length, isManifest: true });
    const { manifests = [], blobs = [] } = parseManifest(bytes, mediaType) ?? {};
    const { chosen, absent } = choosePlatforms(manifests, options.platforms);
    if (absent.length > 0) throw noPlatform(options.label, absent, manifests);
    for (const child of chosen) {
      const manifest = await this.#manifest(child.digest);
      const below =
        manifest === undefined
          ? { tree: new Map(), missing: [`the manifest ${child.digest}${forPlatform(child)}`] }
          : await this.#collect(manifest, options);
      if (options.mayLack && below.missing.length > 0) continue;
      for (const [at, one] of below.tree) into.tree.set(at, one);
      into.missing.push(...below.missing);
    }
    for (const blob of blobs) {
      this.#hold(blob.digest);
      const size = this.#context.cache.get(blob.digest)?.size;
      if (size !== undefined) into.tree.set(blob.digest, { digest: blob.digest, size, isManifest: false });
      else if (!isNondistributable(blob)) into.missing.push(`the blob ${blob.digest}`);
    }
    return into;
  }

  async #manifest(digest: Digest): Promise<Manifest | undefined> {
    this.#hold(digest);
    return this.#context.manifests.peek(digest);
  }

  async #meaning(key: RepositoryKey, tag: Tag): Promise<Digest | undefined> {
    return (await this.#context.index.tag({ ...key, tag, accept: '' }))?.digest;
  }

  #hold(digest: Digest): void {
    this.#releases.push(this.#context.cache.hold(digest));
  }
}

interface CollectOptions {
  label: string;
  platforms: readonly string[];
  mayLack: boolean;
}

interface Collected {
  tree: Map<Digest, { digest: Digest; size: number; isManifest: boolean }>;
  missing: string[];
}

async function* pieces(digest: Digest, cache: ContentCache): AsyncGenerator<Buffer, void> {
  const content = await cache.open(digest);
  if (content === undefined)
    throw new ImageError('incomplete', `${digest} has been lost meanwhile: fetch its image again`);
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

function incomplete(label: string, missing: readonly string[]): ImageError {
  const more = missing.length > NAMED_MISSING ? ` and ${missing.length - NAMED_MISSING} more` : '';
  const what = `${label} is not all in the cache: it lacks ${missing.slice(0, NAMED_MISSING).join(', ')}${more}`;
  return new ImageError('incomplete', `${what}; fetch it with millpond warm, or choose with --platform`);
}
