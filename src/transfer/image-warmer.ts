/**
 * Fetches one image completely: it asks what the tag means now, then fetches its manifests, what refers to them, and
 * the blobs.
 *
 * Everything goes through the mirror, so clients who pull the image meanwhile share every fetch. What is cached is not
 * fetched again. What was fetched is held until the image is complete: otherwise a cache that is too small would evict
 * the first layers for the last ones, and nobody would notice.
 */
import type { Catalog } from '../cache/catalog/catalog.ts';
import type { BlobMirror } from '../mirror/blobs/blob-mirror.ts';
import type { FreshnessPolicy } from '../mirror/freshness.ts';
import type { ManifestMirror, OpenManifest } from '../mirror/manifests/manifest-mirror.ts';
import type { MirroredUpstream } from '../mirror/mirrored-upstream.ts';
import type { Digest } from '../oci/digest.ts';
import { formatImageName } from '../oci/image-name.ts';
import { type Descriptor, isNondistributable, parseManifest } from '../oci/manifest.ts';
import { choosePlatforms } from '../oci/platform.ts';
import { isDigest, type Reference } from '../oci/reference.ts';
import type { RequestContext } from '../request-context.ts';
import { isAbsent, unlessAbsent } from '../upstream/errors.ts';
import { ImageError, noPlatform } from './errors.ts';
import { PROGRESS_STEP_BYTES } from './events.ts';
import { inLanes } from './lanes.ts';
import { Referrers, type ReferrersContext } from './referrers.ts';
import type { RequestedImage } from './requested-image.ts';

export interface ImageWarmerContext extends ReferrersContext {
  catalog: Catalog;
  manifests: Pick<ManifestMirror, 'open'>;
  blobs: Pick<BlobMirror, 'open' | 'settled'>;
  upstreamNamed: (name: string) => MirroredUpstream | undefined;
  sealed: () => boolean;
}

/** The request that asked for the image, and can stop the work. */
export type AbortableContext = RequestContext & { readonly signal: AbortSignal };

const MANIFESTS_AT_A_TIME = 4;
const BLOBS_AT_A_TIME = 4;
const BUFFER_BYTES = 256 * 1024;

export class ImageWarmer implements Disposable {
  /** Bytes that were fetched from upstream because of this. */
  fetchedBytes = 0;
  /** Bytes that were cached, or that another request was fetching already. */
  presentBytes = 0;
  readonly #context: ImageWarmerContext;
  readonly #image: RequestedImage;
  readonly #upstream: MirroredUpstream;
  readonly #request: AbortableContext;
  readonly #onProgress: (bytes: number, totalBytes: number) => void;
  readonly #manifests = new Set<Digest>();
  readonly #blobs = new Map<Digest, Descriptor>();
  readonly #releases: (() => void)[] = [];
  #totalBytes = 0;
  /** Bytes read so far of the blobs that are being fetched. */
  #readBytes = 0;
  #reportedBytes = 0;

  constructor(
    context: ImageWarmerContext,
    request: AbortableContext,
    image: RequestedImage,
    onProgress: (bytes: number, totalBytes: number) => void,
  ) {
    const upstream = context.upstreamNamed(image.key.upstream);
    if (upstream === undefined) throw new Error(`${image.key.upstream} is not an upstream`);
    this.#context = context;
    this.#image = image;
    this.#upstream = upstream;
    this.#request = request;
    this.#onProgress = onProgress;
  }

  [Symbol.dispose](): void {
    for (const release of this.#releases) release();
  }

  /**
   * @returns the digest that the name means
   * @throws {ImageError | UpstreamError | ContentError | StorageError} the image is not complete, and why
   */
  async run({ platforms, referrers }: { platforms: readonly string[]; referrers: boolean }): Promise<Digest> {
    const { reference } = this.#image;
    const top = await this.#open(reference, this.#confirming);
    if (top.outcome === 'stale' && !this.#context.sealed()) {
      const message = `the tag could not be confirmed: ${top.warning ?? 'upstream did not answer'}; try again later`;
      throw new ImageError('unconfirmed', message);
    }
    const subjects: Digest[] = [top.digest];
    await this.#collect(top, { platforms, subjects });
    if (referrers) await this.#collectReferrers(subjects);
    this.#report(true);
    await inLanes(this.#blobs.values(), BLOBS_AT_A_TIME, (blob) => this.#fetchBlob(blob));
    return top.digest;
  }

  get #policy(): FreshnessPolicy {
    return this.#upstream.freshnessFor(this.#image.key.repository);
  }

  /** Asks upstream about a tag within its TTL too, but not about one that is configured never to change. */
  get #confirming(): FreshnessPolicy {
    return { ...this.#policy, tagTtlMs: 0, staleWhileRevalidateMs: 0 };
  }

  #open(reference: Reference, freshness: FreshnessPolicy, head = false): Promise<OpenManifest> {
    this.#request.signal.throwIfAborted();
    const { client } = this.#upstream;
    const { repository } = this.#image.key;
    return this.#context.manifests.open({
      context: this.#request,
      upstream: client,
      freshness,
      repository,
      reference,
      head,
    });
  }

  /**
   * Adds a manifest and everything that it lists to what the image needs.
   *
   * @param options.subjects receives the platform manifests, whose referrers may be wanted too
   * @param options.mayLack manifests that upstream does not have may be left out
   */
  async #collect(
    { digest, mediaType, bytes, size, outcome }: OpenManifest,
    options: { platforms: readonly string[]; subjects?: Digest[]; mayLack?: boolean },
  ): Promise<void> {
    if (this.#manifests.has(digest)) return;
    this.#manifests.add(digest);
    this.#hold(digest);
    await this.#requireStored(digest);
    this.#totalBytes += size;
    if (outcome === 'miss' || outcome === 'updated') this.fetchedBytes += size;
    else this.presentBytes += size;
    const { manifests = [], blobs = [] } = (bytes && parseManifest(bytes, mediaType)) ?? {};
    const { chosen, absent } = choosePlatforms(manifests, options.platforms);
    if (absent.length > 0) throw noPlatform(formatImageName(this.#image.name), absent, manifests);
    await inLanes(chosen, MANIFESTS_AT_A_TIME, async (child) => {
      const opened = this.#open(child.digest, this.#policy);
      const manifest = await (options.mayLack === true ? unlessAbsent(opened) : opened);
      if (manifest === undefined) return;
      if (child.platform !== undefined) options.subjects?.push(child.digest);
      await this.#collect(manifest, options);
    });
    for (const blob of blobs) {
      if (this.#blobs.has(blob.digest)) continue;
      this.#blobs.set(blob.digest, blob);
      this.#hold(blob.digest);
      this.#totalBytes += blob.size;
    }
  }

  async #collectReferrers(subjects: readonly Digest[]): Promise<void> {
    const { key } = this.#image;
    const referrers = new Referrers(this.#context, key, {
      context: this.#request,
      upstream: this.#upstream.client,
      freshness: this.#confirming,
      repository: key.repository,
    });
    await inLanes(subjects, MANIFESTS_AT_A_TIME, async (subject) => {
      for await (const reference of referrers.of(subject)) await this.#collectReferrer(reference);
    });
  }

  /** Most images have no referrers: it is not an error if there is nothing. */
  async #collectReferrer(reference: Reference): Promise<void> {
    // Looks by HEAD first: most of these tags do not exist, and a HEAD counts against no pull limit.
    if (!isDigest(reference) && !(await unlessAbsent(this.#open(reference, this.#confirming, true)))) return;
    const manifest = await unlessAbsent(this.#open(reference, this.#policy));
    if (manifest !== undefined) await this.#collect(manifest, { platforms: [], mayLack: true });
  }

  async #fetchBlob(blob: Descriptor): Promise<void> {
    const { digest, size } = blob;
    const { catalog } = this.#context;
    if ((await catalog.get(digest)) !== undefined) {
      catalog.touch(digest);
      this.presentBytes += size;
      this.#report();
      return;
    }
    try {
      if ((await this.#readBlob(digest)) === 'miss') this.fetchedBytes += size;
      else this.presentBytes += size;
    } catch (error) {
      if (!isNondistributable(blob) || !isAbsent(error)) throw error;
    }
    this.#report();
  }

  /** Reads the blob to its end, which makes the mirror fetch and store it. */
  async #readBlob(digest: Digest): Promise<OpenManifest['outcome']> {
    const { signal } = this.#request;
    signal.throwIfAborted();
    const { client, segments } = this.#upstream;
    const { blobs } = this.#context;
    const { repository } = this.#image.key;
    const { content, outcome } = await blobs.open({
      context: this.#request,
      upstream: client,
      segments,
      repository,
      digest,
    });
    const close = () => void content.close().catch(() => undefined);
    signal.addEventListener('abort', close); // a read may be waiting for upstream
    let at = 0;
    try {
      const buffer = Buffer.allocUnsafe(Math.min(BUFFER_BYTES, content.size));
      while (at < content.size) {
        signal.throwIfAborted();
        const length = await content.read(buffer, at, content.size);
        at += length;
        this.#readBytes += length;
        this.#report();
      }
    } finally {
      this.#readBytes -= at;
      signal.removeEventListener('abort', close);
      await content.close();
    }
    await blobs.settled({ upstream: client, digest });
    await this.#requireStored(digest);
    return outcome;
  }

  async #requireStored(digest: Digest): Promise<void> {
    if ((await this.#context.catalog.get(digest)) !== undefined) return;
    const message = `${digest} was fetched, but could not be stored: raise cache.maxSize, or free space on the disk`;
    throw new ImageError('not-stored', message);
  }

  #hold(digest: Digest): void {
    this.#releases.push(this.#context.catalog.hold(digest));
  }

  #report(now = false): void {
    const bytes = this.fetchedBytes + this.presentBytes + this.#readBytes;
    if (!now && bytes - this.#reportedBytes < PROGRESS_STEP_BYTES && bytes < this.#totalBytes) return;
    this.#reportedBytes = bytes;
    this.#onProgress(bytes, this.#totalBytes);
  }
}
