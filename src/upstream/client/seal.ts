/** The seal. While it is applied, the mirror sends nothing to any upstream and has no connection to one open. */
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

/** An upstream whose client exists only while the seal is lifted. */
export class SealableUpstream<Client extends Upstream = Upstream> implements Upstream {
  readonly name: string;
  readonly #createClient: () => Promise<Client>;
  #client: Client | undefined;

  constructor(name: string, createClient: () => Promise<Client>) {
    this.name = name;
    this.#createClient = createClient;
  }

  /** Undefined while sealed. */
  get client(): Client | undefined {
    return this.#client;
  }

  /** @throws what creating the client throws */
  async unseal(): Promise<void> {
    this.#client ??= await this.#createClient();
  }

  /** Aborts the requests that are under way and closes every connection. Idempotent. */
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
    return this.#unsealed().headManifest(context, repository, reference, options);
  }

  async fetchManifest(
    context: RequestContext,
    repository: Repository,
    reference: Reference,
    options?: { accept?: string; canWait?: boolean },
  ): Promise<FetchedManifest> {
    return this.#unsealed().fetchManifest(context, repository, reference, options);
  }

  async headBlob(
    context: RequestContext,
    repository: Repository,
    digest: Digest,
  ): Promise<{ size?: number }> {
    return this.#unsealed().headBlob(context, repository, digest);
  }

  async fetchBlob(
    context: RequestContext,
    repository: Repository,
    digest: Digest,
    options?: { from?: number; to?: number },
  ): Promise<FetchedBlob> {
    return this.#unsealed().fetchBlob(context, repository, digest, options);
  }

  async fetchTags(context: RequestContext, repository: Repository, query: ListQuery): Promise<FetchedTags> {
    return this.#unsealed().fetchTags(context, repository, query);
  }

  async fetchReferrers(
    context: RequestContext,
    repository: Repository,
    digest: Digest,
    query: ListQuery,
  ): Promise<FetchedReferrers | undefined> {
    return this.#unsealed().fetchReferrers(context, repository, digest, query);
  }

  #unsealed(): Upstream {
    if (this.#client !== undefined) return this.#client;
    const what =
      'not cached, and this mirror is sealed: it asks no upstream; import an archive that contains it, or unseal the mirror';
    throw new UpstreamError('sealed', this.name, what);
  }
}

/** Who has sealed a mirror: its operator or configuration, or the fleet that it belongs to. */
export type Sealer = 'node' | 'fleet';

/** Seals and unseals all upstreams together. Starts applied. It is lifted when nobody wants it any more. */
export class Seal {
  #upstreams: readonly SealableUpstream[];
  /** Upstreams that are no longer configured. Whoever still pulls from one keeps it; the seal must reach it, too. */
  #replaced: WeakRef<SealableUpstream>[] = [];
  #applied = true;
  readonly #by = new Set<Sealer>(['node']);
  #lastChange: Promise<void> = Promise.resolve();

  /** @param upstreams sealed ones */
  constructor(upstreams: readonly SealableUpstream[]) {
    this.#upstreams = upstreams;
  }

  get isApplied(): boolean {
    return this.#applied;
  }

  isAppliedBy(sealer: Sealer): boolean {
    return this.#by.has(sealer);
  }

  /** Seals every upstream. Idempotent. */
  apply(by: Sealer = 'node'): Promise<void> {
    return this.#change(() => {
      this.#by.add(by);
      return this.#applyNow();
    });
  }

  /**
   * Unseals every upstream, or none: none while the other one wants the seal. Idempotent.
   *
   * @throws if one cannot be unsealed, for example if its `ca` is gone
   */
  lift(by: Sealer = 'node'): Promise<void> {
    return this.#change(async () => {
      if ([...this.#by].some((other) => other !== by)) {
        this.#by.delete(by);
        return;
      }
      try {
        for (const upstream of this.#upstreams) await upstream.unseal();
        this.#by.clear();
        this.#applied = false;
      } catch (error) {
        await this.#applyNow();
        throw error;
      }
    });
  }

  /**
   * Takes `upstreams` in place of those of before. Pulls from one that is gone go on; its connections close when they are
   * no longer used. While the seal is lifted, the new ones are unsealed first.
   *
   * @throws if one cannot be unsealed: then those of before stay
   */
  replace(upstreams: readonly SealableUpstream[]): Promise<void> {
    return this.#change(async () => {
      const added = upstreams.filter((upstream) => !this.#upstreams.includes(upstream));
      try {
        if (!this.#applied) for (const upstream of added) await upstream.unseal();
      } catch (error) {
        await Promise.all(added.map((upstream) => upstream.seal()));
        throw error;
      }
      const gone = this.#upstreams.filter((upstream) => !upstreams.includes(upstream));
      const used = this.#replaced.filter((reference) => reference.deref() !== undefined);
      this.#replaced = [...used, ...gone.map((upstream) => new WeakRef(upstream))];
      this.#upstreams = upstreams;
    });
  }

  async #applyNow(): Promise<void> {
    this.#applied = true;
    const replaced = this.#replaced.flatMap((reference) => reference.deref() ?? []);
    await Promise.all([...this.#upstreams, ...replaced].map((upstream) => upstream.seal()));
  }

  /** Runs one change at a time. Two at once could leave an upstream unsealed, or lose a client with its connections. */
  #change(change: () => Promise<void>): Promise<void> {
    const done = this.#lastChange.then(change);
    this.#lastChange = done.catch(() => undefined); // the caller gets the error
    return done;
  }
}
