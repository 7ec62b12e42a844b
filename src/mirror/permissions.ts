/**
 * Decides which repository may serve which digest. Bytes are shared by digest, permission is not: a manifest of the
 * repository must list the digest, or upstream must confirm it there.
 */
import type { IndexStore, PermissionRecord, RepositoryKey } from '../cache/index/index-store.ts';
import type { StorageFaults } from '../cache/store/storage-faults.ts';
import type { Digest } from '../oci/digest.ts';
import type { Repository } from '../oci/reference.ts';
import { detached, type RequestContext } from '../request-context.ts';
import { SingleFlight } from '../single-flight.ts';
import type { Upstream } from '../upstream/upstream.ts';
import { requireFetch } from './cached-only.ts';

/** A digest that is asked for in a repository of an upstream. */
export interface AskedDigest {
  context: RequestContext;
  upstream: Upstream;
  repository: Repository;
  digest: Digest;
}

/** Where permission came from: a stored record, or upstream just now. */
export type GrantedBy = 'record' | 'upstream';

export class Permissions {
  readonly #index: IndexStore;
  readonly #faults: StorageFaults;
  readonly #confirmations = new SingleFlight<{ size?: number }>();

  constructor(context: { index: IndexStore; faults: StorageFaults }) {
    this.#index = context.index;
    this.#faults = context.faults;
  }

  /** Reads the recorded permission. Undefined if the disk fails, so that upstream is asked. */
  recorded(asked: AskedDigest): Promise<PermissionRecord | undefined> {
    return this.#faults.tolerate(() => this.#index.permission(keyOf(asked), asked.digest));
  }

  /** Checks that the repository may serve a blob. @throws {UpstreamError} it may not, or upstream could not be asked */
  async requireBlob(asked: AskedDigest): Promise<GrantedBy> {
    if ((await this.recorded(asked)) !== undefined) return 'record';
    const value = await this.confirmBlob(asked);
    const { digest } = asked;
    await this.#faults.tolerate(() =>
      this.#index.write([{ put: 'permission', key: keyOf(asked), digest, value }]),
    );
    return 'upstream';
  }

  /** Asks upstream by HEAD, once for all requests at the same time. @throws {UpstreamError} */
  async confirmBlob({ context, upstream, repository, digest }: AskedDigest): Promise<{ size?: number }> {
    requireFetch(context, upstream);
    const flight = `${upstream.name}/${repository}@${digest}`;
    const ask = async () => {
      const { size } = await upstream.headBlob(detached(context), repository, digest);
      return size === undefined ? {} : { size };
    };
    return this.#confirmations.run(flight, ask).result;
  }
}

export function keyOf({
  upstream,
  repository,
}: {
  upstream: Upstream;
  repository: Repository;
}): RepositoryKey {
  return { upstream: upstream.name, repository };
}
