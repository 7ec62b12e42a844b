/** The seal: while it is closed no upstream is asked, and no connection to one is open. */
import type { Digest } from '../../oci/digest.ts';
import type { ListQuery, Reference, Repository } from '../../oci/reference.ts';
import type { RequestContext } from '../../request-context.ts';
import { UpstreamError } from '../errors.ts';
import type {
  FetchedBlob,
  FetchedManifest,
  FetchedReferrers,
  FetchedTags,
  ManifestHead,
  Upstream,
} from '../upstream.ts';

/** An upstream that is asked while the seal is open; what it asks with exists only so long. */
export class SealableUpstream implements Upstream {
  readonly name: string;
  readonly #open: () => Promise<Upstream>;
  #client: Upstream | undefined;

  /** @param open makes what asks */
  constructor(name: string, open: () => Promise<Upstream>) {
    this.name = name;
    this.#open = open;
  }

  /** @throws whatever opening it throws */
  async unseal(): Promise<void> {
    this.#client ??= await this.#open();
  }

  /** Breaks off what is under way, and closes every connection. Idempotent. */
  async seal(): Promise<void> {
    const client = this.#client;
    this.#client = undefined;
    await client?.close();
  }

  close(): Promise<void> {
    return this.seal();
  }

  async headManifest(
    context: RequestContext,
    repository: Repository,
    reference: Reference,
    options?: { accept?: string },
  ): Promise<ManifestHead> {
    return this.#asked().headManifest(context, repository, reference, options);
  }

  async fetchManifest(
    context: RequestContext,
    repository: Repository,
    reference: Reference,
    options?: { accept?: string; canWait?: boolean },
  ): Promise<FetchedManifest> {
    return this.#asked().fetchManifest(context, repository, reference, options);
  }

  async headBlob(
    context: RequestContext,
    repository: Repository,
    digest: Digest,
  ): Promise<{ size?: number }> {
    return this.#asked().headBlob(context, repository, digest);
  }

  async fetchBlob(
    context: RequestContext,
    repository: Repository,
    digest: Digest,
    options?: { from?: number; to?: number },
  ): Promise<FetchedBlob> {
    return this.#asked().fetchBlob(context, repository, digest, options);
  }

  async fetchTags(context: RequestContext, repository: Repository, query: ListQuery): Promise<FetchedTags> {
    return this.#asked().fetchTags(context, repository, query);
  }

  async fetchReferrers(
    context: RequestContext,
    repository: Repository,
    digest: Digest,
    query: ListQuery,
  ): Promise<FetchedReferrers | undefined> {
    return this.#asked().fetchReferrers(context, repository, digest, query);
  }

  #asked(): Upstream {
    if (this.#client !== undefined) return this.#client;
    const what =
      'not cached, and this mirror is sealed: it asks no upstream; import an archive that has it, or unseal the mirror';
    throw new UpstreamError('sealed', this.name, what);
  }
}

/** Opens and closes all upstreams together. */
export class Seal {
  readonly #upstreams: readonly SealableUpstream[];
  #closed = true;

  /** @param upstreams closed ones */
  constructor(upstreams: readonly SealableUpstream[]) {
    this.#upstreams = upstreams;
  }

  get isClosed(): boolean {
    return this.#closed;
  }

  /** Idempotent. */
  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all(this.#upstreams.map((upstream) => upstream.seal()));
  }

  /** Idempotent. @throws if one of them cannot be opened, as when its `ca` is gone; then all stay closed */
  async open(): Promise<void> {
    try {
      for (const upstream of this.#upstreams) await upstream.unseal();
      this.#closed = false;
    } catch (error) {
      await this.close();
      throw error;
    }
  }
}
