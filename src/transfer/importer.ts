/**
 * Imports an image layout tar. Every blob is verified as it comes in. An image becomes visible only when it is complete.
 *
 * Invariant: a blob of the archive belongs to no repository at first, so no client can get it. When everything that an
 * image needs is stored, its manifests are recorded, and its tag last of all.
 */
import { createHash } from 'node:crypto';
import type { Catalog } from '../cache/catalog/catalog.ts';
import type { ContentCache } from '../cache/catalog/content-cache.ts';
import type { Space } from '../cache/catalog/space.ts';
import type { IndexStore, RepositoryKey } from '../cache/index/index-store.ts';
import type { Spool } from '../cache/ingest/spool.ts';
import { ContentError, StorageError } from '../cache/store/errors.ts';
import type { Clock } from '../clock.ts';
import type { ManifestStore } from '../mirror/manifests/manifest-store.ts';
import { type Digest, digestAlgorithm, digestFrom } from '../oci/digest.ts';
import { formatImageName, type ImageName } from '../oci/image-name.ts';
import { isDigest } from '../oci/reference.ts';
import type { Logger } from '../telemetry/log.ts';
import { ImageError, policyRefusal } from './errors.ts';
import { type EventSink, eventsOf, PROGRESS_STEP_BYTES } from './events.ts';
import { ImportedImages, type ImportedImagesContext } from './imported-images.ts';
import { LayoutError } from './layout/errors.ts';
import type { ListedImage } from './layout/layout-index.ts';
import { readLayout } from './layout/layout-reader.ts';
import { imageOf, type RequestedImage, type UpstreamOf } from './requested-image.ts';

export interface ImportContext extends Pick<ImportedImagesContext, 'onImported'> {
  catalog: Catalog;
  cache: ContentCache;
  space: Space;
  spool: Spool;
  index: IndexStore;
  manifests: ManifestStore;
  upstreamOf: UpstreamOf;
  clock: Clock;
  logger: Logger;
  /** @throws {PolicyError | UndecidedError} a policy does not let a manifest of the repository in */
  requireManifest: (key: RepositoryKey, digest: Digest) => Promise<void>;
}

export interface ImportRequest {
  archive: AsyncIterable<Uint8Array>;
  /** The name for the one image in the archive, instead of the name that the archive gives it. */
  name?: ImageName | undefined;
  /** Called once, before anything is visible. Throws if one of the images may not be imported: then none is. */
  authorize: (images: readonly RepositoryKey[]) => void;
  /**
   * Whether the sender may import everything. From others, the archive itself must hold the content, unless the repository
   * may serve it already: whoever knows only the digest of a private layer must not get it by naming it in a manifest.
   */
  isTrusted: boolean;
  /** Whether to fail at once for images that policies do not let in. They stay in the cache, and are refused at each pull. */
  verify?: boolean | undefined;
}

interface Taken {
  key: RepositoryKey;
  event: { image: string; digest: Digest; platforms: string[] };
}

export type ImportEvent =
  /** Bytes of the archive that were read. */
  | { event: 'progress'; bytes: number }
  | { event: 'image'; image: string; outcome: 'done'; digest: Digest; platforms: string[] }
  | { event: 'image'; image: string; outcome: 'failed'; reason: string }
  /** Bytes of content that were stored, and bytes that the cache had already. */
  | { event: 'done'; images: number; failed: number; storedBytes: number; presentBytes: number };

export class Importer {
  readonly #context: ImportContext;
  readonly #running = new Set<Promise<void>>();

  constructor(context: ImportContext) {
    this.#context = context;
  }

  /**
   * Starts with the first read. The work does not depend on how fast its events are read: it goes on to the end of the
   * archive.
   *
   * @throws {LayoutError | StorageError} while the events are read. Blobs that were verified by then are kept: the next
   *   attempt need not store them again
   */
  begin(request: ImportRequest): AsyncGenerator<ImportEvent> {
    return eventsOf<ImportEvent>((sink) => {
      const running = this.#import(request, sink).finally(() => this.#running.delete(running));
      this.#running.add(running);
      return running;
    });
  }

  /** Waits for the imports that are running. Each ends with its archive, or when its client leaves. */
  async close(): Promise<void> {
    await Promise.allSettled(this.#running);
  }

  async #import(request: ImportRequest, sink: EventSink<ImportEvent>): Promise<void> {
    const { archive, name, isTrusted } = request;
    const { logger, upstreamOf, requireManifest } = this.#context;
    sink.push({ event: 'progress', bytes: 0 });
    using content = new ArchiveContent(this.#context, isTrusted);
    const listed = await readLayout(counted(archive, sink), content);
    const images = new ImportedImages(this.#context, content.digests, isTrusted);
    const wanted = imagesToTake(listed, name);
    await this.#authorize(request, wanted, content);
    let failed = 0;
    const fail = (image: string, error: Error) => {
      failed += 1;
      logger.warn({ err: error, image }, 'not imported');
      sink.push({ event: 'image', image, outcome: 'failed', reason: error.message });
    };
    const taken: Taken[] = [];
    for (const one of wanted) {
      const label = labelOf(one, name);
      try {
        const image = named(one, name, upstreamOf);
        const { platforms } = await images.take(image, one.descriptor);
        const { digest } = one.descriptor;
        taken.push({ key: image.key, event: { image: formatImageName(image.name), digest, platforms } });
      } catch (error) {
        if (!(error instanceof ImageError) && !(error instanceof StorageError)) throw error;
        fail(label, error);
      }
    }
    // Comes after all images are here: a signature may come after what it signs.
    for (const { key, event } of taken) {
      const refused =
        request.verify === true ? await policyRefusal(requireManifest(key, event.digest)) : undefined;
      if (refused !== undefined) {
        fail(event.image, refused);
        continue;
      }
      logger.info(event, 'imported');
      sink.push({ event: 'image', outcome: 'done', ...event });
    }
    await this.#removeUnowned(content.stored);
    const { storedBytes, presentBytes } = content;
    sink.push({ event: 'done', images: wanted.length - failed, failed, storedBytes, presentBytes });
  }

  async #authorize(
    { authorize, name }: ImportRequest,
    wanted: readonly ListedImage[],
    { stored }: ArchiveContent,
  ): Promise<void> {
    const keys = wanted.flatMap((one) => {
      try {
        return named(one, name, this.#context.upstreamOf).key;
      } catch (error) {
        if (error instanceof ImageError) return []; // is not imported, and the reason is told later
        throw error;
      }
    });
    try {
      authorize(keys);
    } catch (error) {
      await this.#removeUnowned(stored);
      throw error;
    }
  }

  /** Removes what belongs to no repository: a sealed mirror evicts nothing, so it would stay there for ever. */
  async #removeUnowned(stored: Iterable<Digest>): Promise<void> {
    const unowned: Digest[] = [];
    for (const digest of stored) if (!(await this.#isOwned(digest))) unowned.push(digest);
    if (unowned.length > 0) await this.#context.catalog.remove(unowned);
  }

  async #isOwned(digest: Digest): Promise<boolean> {
    for await (const _permission of this.#context.index.permissions(digest)) return true;
    return false;
  }
}

/** The content of an archive that was read so far. It is not evicted before its image is recorded. */
class ArchiveContent implements Disposable {
  readonly digests = new Set<Digest>();
  /** Those that the cache did not have. */
  readonly stored = new Set<Digest>();
  storedBytes = 0;
  presentBytes = 0;
  readonly #context: ImportContext;
  readonly #releases: (() => void)[] = [];

  readonly #isTrusted: boolean;

  constructor(context: ImportContext, isTrusted: boolean) {
    this.#context = context;
    this.#isTrusted = isTrusted;
  }

  async blob(digest: Digest, size: number, body: AsyncIterable<Buffer>): Promise<void> {
    const { catalog } = this.#context;
    this.#releases.push(catalog.hold(digest));
    this.digests.add(digest);
    if ((await catalog.get(digest))?.size === size) {
      if (!this.#isTrusted) await requireDigest(digest, body);
      this.presentBytes += size;
      return;
    }
    await this.#store(digest, size, body);
    this.stored.add(digest);
    this.storedBytes += size;
  }

  [Symbol.dispose](): void {
    for (const release of this.#releases) release();
  }

  async #store(digest: Digest, size: number, body: AsyncIterable<Buffer>): Promise<void> {
    const { cache, space, spool } = this.#context;
    using _reservation = await space.reserve(size);
    const ingest = await spool.openApart(digest);
    try {
      ingest.setSize(size);
      const writer = ingest.writer(0);
      for await (const chunk of body) await writer.append(chunk);
      await ingest.verify();
      await ingest.sync();
      const content = { digest, path: ingest.path, sums: ingest.sums(), origin: 'imported' } as const;
      await cache.commit(content, []);
    } catch (error) {
      await spool.discard(ingest.path);
      if (!(error instanceof ContentError)) throw error;
      throw wrongDigest(digest, error);
    } finally {
      await ingest.end();
    }
  }
}

/** Proves that the sender has the content, and does not only know its digest. @throws {LayoutError} */
async function requireDigest(digest: Digest, body: AsyncIterable<Buffer>): Promise<void> {
  const algorithm = digestAlgorithm(digest);
  const hash = createHash(algorithm);
  for await (const chunk of body) hash.update(chunk);
  if (digestFrom(hash, algorithm) !== digest) throw wrongDigest(digest);
}

function wrongDigest(digest: Digest, cause?: unknown): LayoutError {
  const message = `the archive is damaged: the content of ${digest} does not match its digest; copy it again`;
  return new LayoutError('wrong-digest', message, { cause });
}

async function* counted(
  archive: AsyncIterable<Uint8Array>,
  sink: EventSink<ImportEvent>,
): AsyncGenerator<Uint8Array, void> {
  let bytes = 0;
  let reported = 0;
  for await (const chunk of archive) {
    yield chunk;
    bytes += chunk.length;
    if (bytes - reported < PROGRESS_STEP_BYTES) continue;
    reported = bytes;
    sink.progress('archive', { event: 'progress', bytes });
  }
  sink.progress('archive', { event: 'progress', bytes });
}

/** @throws {LayoutError} the archive lists no image, or a name is given for several */
function imagesToTake(listed: readonly ListedImage[], given: ImageName | undefined): readonly ListedImage[] {
  const [first] = listed;
  if (first === undefined)
    throw new LayoutError('bad-index', 'index.json in the archive lists no images: write the archive again');
  if (given === undefined) return listed;
  const digests = new Set(listed.map(({ descriptor }) => descriptor.digest));
  if (digests.size === 1) return [first];
  const message = `the archive holds ${digests.size} images, and --name can name only one: leave it out`;
  throw new LayoutError('bad-index', message);
}

function labelOf({ name, tag, descriptor }: ListedImage, given: ImageName | undefined): string {
  const known = given ?? name;
  return known === undefined ? (tag ?? descriptor.digest) : formatImageName(known);
}

/** @throws {ImageError} it has no name, or a name that cannot be served */
function named(
  { name, tag, descriptor }: ListedImage,
  given: ImageName | undefined,
  upstreamOf: UpstreamOf,
): RequestedImage {
  const known = given ?? name;
  if (known === undefined) {
    const what = tag === undefined ? 'no name' : `only the tag ${tag}, and no repository`;
    const advice = `give the full name, as in --name docker.io/library/alpine:${tag ?? '3.20'}`;
    const message = `the archive has ${what} for this image: ${advice}`;
    throw new ImageError('bad-name', message);
  }
  const image = imageOf(known, upstreamOf);
  if (isDigest(image.reference) && image.reference !== descriptor.digest) {
    const message = `the image in the archive is ${descriptor.digest}: give a name with this digest, or without one`;
    throw new ImageError('bad-name', message);
  }
  return image;
}
