/**
 * Fetches one image completely: what its tag means now, its manifests, what refers to them, then the blobs.
 *
 * All of it through the mirror, so that clients who pull it meanwhile and this share every fetch. What is here is not
 * fetched again, and what has come is held until the image is whole: a cache that is too small is found out.
 */
import type { ContentCache } from '../cache/catalog/content-cache.ts';
import type { Clock } from '../clock.ts';
import type { BlobMirror } from '../mirror/blobs/blob-mirror.ts';
import type { FreshnessPolicy } from '../mirror/freshness.ts';
import type { DiscoveryMirror, ReferrersRequest } from '../mirror/manifests/discovery-mirror.ts';
import type { ManifestMirror, OpenManifest } from '../mirror/manifests/manifest-mirror.ts';
import type { ManifestStore } from '../mirror/manifests/manifest-store.ts';
import type { MirroredUpstream } from '../mirror/mirrored-upstream.ts';
import { type Digest, digestOf } from '../oci/digest.ts';
import { formatImageName } from '../oci/image-name.ts';
import { type Descriptor, isNondistributable, OCI_INDEX, parseManifest } from '../oci/manifest.ts';
import { choosePlatforms } from '../oci/platform.ts';
import type { ListQuery, Reference, Tag } from '../oci/reference.ts';
import type { RequestContext } from '../request-context.ts';
import type { Logger } from '../telemetry/log.ts';
import { UpstreamError } from '../upstream/errors.ts';
import { ImageError, noPlatform } from './errors.ts';
import { PROGRESS_STEP_BYTES } from './events.ts';
import { inLanes } from './lanes.ts';
import { cosignTags, fallbackTag } from './referrer-tags.ts';
import type { RequestedImage } from './requested-image.ts';

export interface ImageWarmerContext {
  cache: ContentCache;
  manifests: ManifestMirror;
  manifestStore: ManifestStore;
  blobs: BlobMirror;
  discovery: DiscoveryMirror;
  upstreamByName: ReadonlyMap<string, MirroredUpstream>;
  sealed: () => boolean;
  clock: Clock;
  logger: Logger;
}

/** The request that asked for it, which can break it off. */
export type AbortableContext = RequestContext & { readonly signal: AbortSignal };

const MANIFESTS_AT_A_TIME = 4;
const BLOBS_AT_A_TIME = 4;
const BUFFER_BYTES = 256 * 1024;
/** An upstream may lead in a circle. */
const MAX_REFERRER_PAGES = 100;

export class ImageWarmer implements Disposable {
  /** Bytes that came from upstream for this. */
  fetchedBytes = 0;
  presentBytes = 0;
  readonly #context: ImageWarmerContext;
  readonly #image: RequestedImage;
  readonly #upstream: MirroredUpstream;
  readonly #request: RequestContext;
  readonly #signal: AbortSignal;
  readonly #onProgress: (bytes: number, totalBytes: number) => void;
  readonly #manifests = new Set<Digest>();
  readonly #blobs = new Map<Digest, Descriptor>();
  readonly #releases: (() => void)[] = [];
  #totalBytes = 0;
  /** Of blobs that are under way. */
  #readBytes = 0;
  #toldBytes = 0;

  constructor(
    context: ImageWarmerContext,
    request: AbortableContext,
    image: RequestedImage,
    onProgress: (bytes: number, totalBytes: number) => void,
  ) {
    const upstream = context.upstreamByName.get(image.key.upstream);
    if (upstream === undefined) throw new Error(`${image.key.upstream} is no upstream`);
    this.#context = context;
    this.#image = image;
    this.#upstream = upstream;
    this.#request = request;
    this.#signal = request.signal;
    this.#onProgress = onProgress;
  }

  [Symbol.dispose](): void {
    for (const release of this.#releases) release();
  }

  /**
   * @returns what the name means
   * @throws {ImageError | UpstreamError | ContentError | StorageError} why it is not all here
   */
  async run({ platforms, referrers }: { platforms: readonly string[]; referrers: boolean }): Promise<Digest> {
    const { reference } = this.#image;
    const top = await this.#open(reference, this.#asking);
    if (top.outcome === 'stale' && !this.#context.sealed())
      throw new ImageError('unconfirmed', `not confirmed: ${top.warning ?? 'upstream did not answer'}`);
    const subjects: Digest[] = [top.digest];
    await this.#collect(top, { platforms, subjects });
    if (referrers) await inLanes(subjects, MANIFESTS_AT_A_TIME, (subject) => this.#collectReferrers(subject));
    this.#tell(true);
    await inLanes(this.#blobs.values(), BLOBS_AT_A_TIME, (blob) => this.#fetchBlob(blob));
    return top.digest;
  }

  get #policy(): FreshnessPolicy {
    return this.#upstream.freshnessFor(this.#image.key.repository);
  }

  /** A tag within its TTL is asked about all the same; one that never changes is not. */
  get #asking(): FreshnessPolicy {
    return { ...this.#policy, tagTtlMs: 0, staleWhileRevalidateMs: 0 };
  }

  #open(reference: Reference, freshness: FreshnessPolicy, head = false): Promise<OpenManifest> {
    this.#signal.throwIfAborted();
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

  /** Adds a manifest and all that it lists to what the image needs. */
  async #collect(
    { digest, mediaType, bytes, size, outcome }: OpenManifest,
    options: { platforms: readonly string[]; subjects?: Digest[]; mayLack?: boolean },
  ): Promise<void> {
    if (this.#manifests.has(digest)) return;
    this.#manifests.add(digest);
    this.#hold(digest);
    this.#requireStored(digest);
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

  /**
   * What refers to `subject`: as the referrers API says, else under the tag that stands in for it; and what cosign keeps
   * under tags of its own. That there is none is no fault.
   */
  async #collectReferrers(subject: Digest): Promise<void> {
    const index = await this.#listReferrers(subject);
    const fallback = fallbackTag(subject);
    const listed = index && fallback && (await this.#keepReferrers(index, fallback));
    if (listed !== undefined) await this.#collectReferrer(listed);
    for (const tag of [index === undefined && fallback ? fallback : [], ...cosignTags(subject)].flat()) {
      // By HEAD, which counts against no limit: most images have none.
      const head = await unlessAbsent(this.#open(tag, this.#asking, true));
      if (head !== undefined) await this.#collectReferrer(tag);
    }
  }

  /**
   * All pages of the referrers API as one index; undefined if this upstream has no such API.
   *
   * @throws {UpstreamError} also for pages without end
   */
  async #listReferrers(digest: Digest): Promise<Buffer | undefined> {
    const { discovery } = this.#context;
    const { client: upstream } = this.#upstream;
    const { repository } = this.#image.key;
    const pages: Buffer[] = [];
    for (let query: ListQuery | undefined = ''; query !== undefined; ) {
      if (pages.length === MAX_REFERRER_PAGES)
        throw new UpstreamError('invalid-response', upstream.name, 'its list of referrers has no end');
      const question: ReferrersRequest = {
        context: this.#request,
        upstream,
        freshness: this.#asking,
        repository,
        digest,
        query,
      };
      const page = await unlessAbsent(discovery.referrers(question));
      if (page?.referrers === undefined) return undefined;
      pages.push(page.referrers.body);
      query = page.referrers.next;
    }
    return joinIndexes(pages);
  }

  async #collectReferrer(reference: Reference): Promise<void> {
    const manifest = await unlessAbsent(this.#open(reference, this.#policy));
    if (manifest !== undefined) await this.#collect(manifest, { platforms: [], mayLack: true });
  }

  /**
   * Keeps what the referrers API says under the tag where clients look when there is no such API, as in a sealed mirror
   * (distribution-spec, "Referrers Tag Schema").
   */
  async #keepReferrers(bytes: Buffer, tag: Tag): Promise<Digest | undefined> {
    const { manifestStore, cache, clock } = this.#context;
    const { key } = this.#image;
    const parsed = parseManifest(bytes, OCI_INDEX);
    if (parsed?.mediaType !== OCI_INDEX || parsed.manifests.length === 0) return undefined;
    const manifest = { digest: digestOf(bytes), mediaType: OCI_INDEX, bytes };
    const change = { key: { ...key, tag, accept: '' }, confirmedAt: clock.now() };
    if (cache.get(manifest.digest)?.mediaType === undefined)
      await manifestStore.put(key, manifest, parsed, change);
    else await manifestStore.link(key, manifest, change);
    return manifest.digest;
  }

  async #fetchBlob(blob: Descriptor): Promise<void> {
    const { digest, size } = blob;
    const { cache } = this.#context;
    if (cache.get(digest) !== undefined) {
      cache.touch(digest);
      this.presentBytes += size;
      this.#tell();
      return;
    }
    try {
      if ((await this.#readBlob(digest)) === 'miss') this.fetchedBytes += size;
      else this.presentBytes += size;
    } catch (error) {
      if (!isNondistributable(blob) || !isAbsent(error)) throw error;
    }
    this.#tell();
  }

  /** To read it is to have it fetched. */
  async #readBlob(digest: Digest): Promise<OpenManifest['outcome']> {
    this.#signal.throwIfAborted();
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
    this.#signal.addEventListener('abort', close); // a read may be waiting for upstream
    let at = 0;
    try {
      const buffer = Buffer.allocUnsafe(Math.min(BUFFER_BYTES, content.size));
      while (at < content.size) {
        this.#signal.throwIfAborted();
        const length = await content.read(buffer, at, content.size);
        at += length;
        this.#readBytes += length;
        this.#tell();
      }
    } finally {
      this.#readBytes -= at;
      this.#signal.removeEventListener('abort', close);
      await content.close();
    }
    await blobs.settled(digest);
    this.#requireStored(digest);
    return outcome;
  }

  #requireStored(digest: Digest): void {
    if (this.#context.cache.get(digest) !== undefined) return;
    const message = `${digest} was fetched, but could not be stored: is cache.maxSize too small, or the disk full?`;
    throw new ImageError('not-stored', message);
  }

  #hold(digest: Digest): void {
    this.#releases.push(this.#context.cache.hold(digest));
  }

  #tell(now = false): void {
    const bytes = this.fetchedBytes + this.presentBytes + this.#readBytes;
    if (!now && bytes - this.#toldBytes < PROGRESS_STEP_BYTES && bytes < this.#totalBytes) return;
    this.#toldBytes = bytes;
    this.#onProgress(bytes, this.#totalBytes);
  }
}

/** One index of what all list; undefined if any is none. */
function joinIndexes(pages: readonly Buffer[]): Buffer | undefined {
  if (pages.some((page) => parseManifest(page, OCI_INDEX)?.mediaType !== OCI_INDEX)) return undefined;
  if (pages.length === 1) return pages[0];
  const indexes = pages.map((page) => JSON.parse(page.toString('utf8')) as { manifests?: unknown });
  const manifests = indexes.flatMap(({ manifests: listed }) => (Array.isArray(listed) ? listed : []));
  return Buffer.from(JSON.stringify({ ...indexes[0], manifests }));
}

/** Some registries refuse to say of what is not there. */
function isAbsent(error: unknown): boolean {
  return error instanceof UpstreamError && ['not-found', 'denied', 'sealed'].includes(error.code);
}

async function unlessAbsent<T>(asked: Promise<T>): Promise<T | undefined> {
  try {
    return await asked;
  } catch (error) {
    if (isAbsent(error)) return undefined;
    throw error;
  }
}
