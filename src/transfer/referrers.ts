/** Finds what refers to a manifest of an image that is warmed: signatures, attestations, SBOMs. */
import type { RepositoryKey } from '../cache/index/index-store.ts';
import type { Clock } from '../clock.ts';
import type { DiscoveryMirror, ReferrersRequest } from '../mirror/manifests/discovery-mirror.ts';
import type { ManifestStore } from '../mirror/manifests/manifest-store.ts';
import { type Digest, digestOf } from '../oci/digest.ts';
import { OCI_INDEX, parseManifest } from '../oci/manifest.ts';
import type { ListQuery, Reference, Tag } from '../oci/reference.ts';
import { cosignTags, fallbackTag } from '../oci/referrer-tags.ts';
import { UpstreamError, unlessAbsent } from '../upstream/errors.ts';

export interface ReferrersContext {
  manifestStore: ManifestStore;
  discovery: Pick<DiscoveryMirror, 'referrers'>;
  clock: Clock;
}

/** Stops an upstream whose pages lead in a circle. */
const MAX_PAGES = 100;

export class Referrers {
  readonly #context: ReferrersContext;
  readonly #key: RepositoryKey;
  readonly #question: Omit<ReferrersRequest, 'digest' | 'query'>;

  /** @param question how upstream is asked for the referrers of any manifest */
  constructor(
    context: ReferrersContext,
    key: RepositoryKey,
    question: Omit<ReferrersRequest, 'digest' | 'query'>,
  ) {
    this.#context = context;
    this.#key = key;
    this.#question = question;
  }

  /**
   * Where to look for the referrers of `subject`. First the list of the referrers API, or the tag that takes its place
   * where upstream has no such API. Then the tags of cosign, which does not use that list. A tag may not exist.
   *
   * @throws {UpstreamError | StorageError}
   */
  async *of(subject: Digest): AsyncGenerator<Reference, void> {
    const fallback = fallbackTag(subject);
    if (fallback !== undefined) {
      const index = await this.#fetchIndex(subject);
      const place = index === undefined ? fallback : await this.#keep(index, fallback);
      if (place !== undefined) yield place;
    }
    yield* cosignTags(subject);
  }

  /**
   * All pages of the referrers API as one index; undefined if this upstream has no such API.
   *
   * @throws {UpstreamError} also for more than {@link MAX_PAGES} pages
   */
  async #fetchIndex(digest: Digest): Promise<Buffer | undefined> {
    const { discovery } = this.#context;
    const pages: Buffer[] = [];
    for (let query: ListQuery | undefined = ''; query !== undefined; ) {
      if (pages.length === MAX_PAGES) {
        const message = `the list of referrers of ${digest} has more than ${MAX_PAGES} pages`;
        throw new UpstreamError('invalid-response', this.#question.upstream.name, message);
      }
      const question: ReferrersRequest = { ...this.#question, digest, query };
      const page = await unlessAbsent(discovery.referrers(question));
      if (page?.referrers === undefined) return undefined;
      pages.push(page.referrers.body);
      query = page.referrers.next;
    }
    return joinIndexes(pages);
  }

  /**
   * Stores the index of the referrers API under the fallback tag. Clients look there when there is no API, as in a
   * sealed mirror (distribution-spec, "Referrers Tag Schema").
   *
   * @returns undefined if nothing refers to the subject
   */
  async #keep(bytes: Buffer, tag: Tag): Promise<Digest | undefined> {
    const { manifestStore, clock } = this.#context;
    const key = this.#key;
    const parsed = parseManifest(bytes, OCI_INDEX);
    if (parsed?.mediaType !== OCI_INDEX || parsed.manifests.length === 0) return undefined;
    const manifest = { digest: digestOf(bytes), mediaType: OCI_INDEX, bytes };
    const change = { key: { ...key, tag, accept: '' }, confirmedAt: clock.now() };
    await manifestStore.putIfAbsent(key, manifest, parsed, change);
    return manifest.digest;
  }
}

/** Joins pages into one index; undefined if one of them is not an index. A single page keeps its bytes and digest. */
function joinIndexes(pages: readonly Buffer[]): Buffer | undefined {
  if (pages.some((page) => parseManifest(page, OCI_INDEX)?.mediaType !== OCI_INDEX)) return undefined;
  if (pages.length === 1) return pages[0];
  const indexes = pages.map((page) => JSON.parse(page.toString('utf8')) as { manifests?: unknown });
  const manifests = indexes.flatMap(({ manifests: listed }) => (Array.isArray(listed) ? listed : []));
  return Buffer.from(JSON.stringify({ ...indexes[0], manifests }));
}
