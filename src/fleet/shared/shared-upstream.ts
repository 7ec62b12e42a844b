/**
 * An upstream behind the fleet: content that the repository may serve, and that is in the object store or comes in on
 * another node, comes from there. The fleet's engines are inside the seal, so that this answers while the upstream itself is sealed.
 *
 * What a tag means is always upstream's to say.
 */
import type { IndexStore, RepositoryKey } from '../../cache/index/index-store.ts';
import { type Digest, digestAlgorithm, digestOf } from '../../oci/digest.ts';
import { isDigest, type ListQuery, type Reference, type Repository, type Tag } from '../../oci/reference.ts';
import type { RequestContext } from '../../request-context.ts';
import type {
  FetchedBlob,
  FetchedManifest,
  FetchedReferrers,
  FetchedTags,
  ManifestHead,
  Upstream,
} from '../../upstream/upstream.ts';
import type { SharedFetches } from '../nodes/shared-fetches.ts';
import type { SharedNotes } from '../nodes/shared-notes.ts';
import { contentName, manifestName, type SharedRepository } from '../objects/names.ts';
import type { ObjectBytes } from '../objects/object-store.ts';
import type { SharedStore } from './shared-store.ts';

export interface SharedUpstreamContext {
  store: SharedStore;
  /** What the fleet knows of it. */
  permission: IndexStore['permission'];
  notes: SharedNotes | undefined;
  /** How a repository is called by all nodes. Undefined: its upstream is not shared. */
  sharedRepository: (key: RepositoryKey) => Promise<SharedRepository | undefined>;
  /** Undefined: the nodes have no coordinator, and each fetches for itself. */
  fetches: SharedFetches | undefined;
  /** Called with the name of what is in the store, so that it is not written there again. */
  onFound: (name: string) => void;
  /** Called with what could not be had from the store, or was wrong there. */
  onMissing: (digest: Digest) => void;
}

export class SharedUpstream implements Upstream {
  readonly name: string;
  readonly #upstream: Upstream;
  readonly #context: SharedUpstreamContext;

  constructor(upstream: Upstream, context: SharedUpstreamContext) {
    this.name = upstream.name;
    this.#upstream = upstream;
    this.#context = context;
  }

  async headManifest(
    context: RequestContext,
    repository: Repository,
    reference: Reference,
    options?: { accept?: string },
  ): Promise<ManifestHead> {
    if (!isDigest(reference)) return this.#headTag(context, repository, reference, options);
    const shared = await this.#context.store.manifest(this.#key(repository), reference);
    if (shared === undefined) return this.#upstream.headManifest(context, repository, reference, options);
    return { digest: reference, mediaType: shared.mediaType, size: shared.size };
  }

  async fetchManifest(
    context: RequestContext,
    repository: Repository,
    reference: Reference,
    options?: { accept?: string; canWait?: boolean },
  ): Promise<FetchedManifest> {
    const found = isDigest(reference) ? await this.#manifest(context, repository, reference) : undefined;
    return found ?? this.#upstream.fetchManifest(context, repository, reference, options);
  }

  async headBlob(
    context: RequestContext,
    repository: Repository,
    digest: Digest,
  ): Promise<{ size?: number }> {
    const { store, permission } = this.#context;
    const known = await permission(this.#key(repository), digest);
    const found = known && (await store.open(digest, { from: 0, to: 1 }, context.signal));
    if (found === undefined) return this.#upstream.headBlob(context, repository, digest);
    discard(found);
    return { size: found.size };
  }

  async fetchBlob(
    context: RequestContext,
    repository: Repository,
    digest: Digest,
    options: { from?: number; to?: number } = {},
  ): Promise<FetchedBlob> {
    const { store, permission, fetches, onFound, onMissing } = this.#context;
    const known = await permission(this.#key(repository), digest);
    // What is fetched in parts is looked for once.
    const isOwn = (await fetches?.isFetching(this.name, digest)) ?? false;
    const found = isOwn ? undefined : await store.open(digest, options, context.signal);
    const rejected = () => {
      store.distrust(digest);
      onMissing(digest);
    };
    const asFetched = ({ size, body }: ObjectBytes): FetchedBlob => {
      return { start: options.from ?? 0, ranged: true, size, body, source: { name: 'store', rejected } };
    };
    if (found !== undefined) onFound(contentName(digest));
    else if (!isOwn) onMissing(digest);
    const fetched =
      found === undefined ? await this.#cold(context, repository, digest, options) : asFetched(found);
    if (fetched.source === undefined || known !== undefined) return fetched;
    try {
      await this.#upstream.headBlob(context, repository, digest);
      return fetched;
    } catch (error) {
      discard(fetched);
      throw error;
    }
  }

  fetchTags(context: RequestContext, repository: Repository, query: ListQuery): Promise<FetchedTags> {
    return this.#upstream.fetchTags(context, repository, query);
  }

  fetchReferrers(
    context: RequestContext,
    repository: Repository,
    digest: Digest,
    query: ListQuery,
  ): Promise<FetchedReferrers | undefined> {
    return this.#upstream.fetchReferrers(context, repository, digest, query);
  }

  close(): Promise<void> {
    return this.#upstream.close();
  }

  /** Asks upstream what a tag means, once for all nodes that ask at the same time. */
  async #headTag(
    context: RequestContext,
    repository: Repository,
    tag: Tag,
    options?: { accept?: string },
  ): Promise<ManifestHead> {
    const { notes, sharedRepository } = this.#context;
    const shared = notes && (await sharedRepository(this.#key(repository)));
    if (notes === undefined || shared === undefined)
      return this.#upstream.headManifest(context, repository, tag, options);
    let head: ManifestHead | undefined;
    const told = await notes.revalidate(shared, tag, options?.accept ?? '', async () => {
      head = await this.#upstream.headManifest(context, repository, tag, options);
      const { digest, mediaType, size } = head;
      const isWhole = digest !== undefined && mediaType !== undefined && size !== undefined;
      return isWhole ? { digest, mediaType, size } : undefined;
    });
    return head ?? told ?? {};
  }

  /** What is not in the store: from the node that fetches it, or from upstream. */
  #cold(
    context: RequestContext,
    repository: Repository,
    digest: Digest,
    options: { from?: number; to?: number },
  ): Promise<FetchedBlob> {
    const { fetches } = this.#context;
    const fetch = () => this.#upstream.fetchBlob(context, repository, digest, options);
    return fetches === undefined ? fetch() : fetches.open(this.name, digest, options, context.signal, fetch);
  }

  async #manifest(
    context: RequestContext,
    repository: Repository,
    digest: Digest,
  ): Promise<FetchedManifest | undefined> {
    const { store, sharedRepository, onFound } = this.#context;
    const key = this.#key(repository);
    const shared = await store.manifest(key, digest);
    const bytes = shared && (await store.readManifest(digest, context.signal));
    if (shared === undefined || bytes === undefined) return undefined;
    if (digestOf(bytes, digestAlgorithm(digest)) !== digest) {
      store.distrust(digest);
      return undefined;
    }
    onFound(contentName(digest));
    const named = await sharedRepository(key);
    if (named !== undefined) onFound(manifestName(named, digest));
    return { bytes, mediaType: shared.mediaType, digest };
  }

  #key(repository: Repository): RepositoryKey {
    return { upstream: this.name, repository };
  }
}

function discard({ body }: Pick<ObjectBytes, 'body'>): void {
  body.on('error', () => undefined).destroy();
}
