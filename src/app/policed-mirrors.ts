/**
 * The mirrors as clients see them: what policies do not let in reaches none of them. The room of policies is loaded only
 * when there are some.
 */
import type { Config } from '../config/schema.ts';
import { upstreamByHost } from '../config/upstream-names.ts';
import type { BlobRequest } from '../mirror/blobs/blob-mirror.ts';
import type { ReferrersRequest, TagsRequest } from '../mirror/manifests/discovery-mirror.ts';
import type { ManifestRequest } from '../mirror/manifests/manifest-mirror.ts';
import { keyOf } from '../mirror/permissions.ts';
import type { PolicyDoor } from '../policy/door.ts';
import type { LivePolicies, LivePoliciesContext } from '../policy/live-policies.ts';
import type { Sightings } from '../policy/parts/age/sightings.ts';
import type { Mirrors } from './mirrors.ts';

export interface PolicedMirrorsContext extends Omit<LivePoliciesContext, 'openSightings'> {
  cacheDirectory: string;
}

export class PolicedMirrors implements AsyncDisposable {
  readonly #mirrors: Mirrors;
  readonly #context: PolicedMirrorsContext;
  /** Kept over a reload. */
  #sightings: Sightings | undefined;
  #policies: LivePolicies | undefined;
  #door: PolicyDoor | undefined;

  constructor(mirrors: Mirrors, context: PolicedMirrorsContext) {
    this.#mirrors = mirrors;
    this.#context = context;
  }

  /** The door that everything has to pass. Undefined: there are no policies. */
  get door(): PolicyDoor | undefined {
    return this.#door;
  }

  readonly manifests = {
    open: (request: ManifestRequest) => {
      const { manifests } = this.#mirrors;
      return this.#door === undefined
        ? manifests.open(request)
        : this.#door.manifest(request, (same) => manifests.open(same));
    },
  };

  readonly blobs = {
    open: (request: BlobRequest) => {
      const { blobs } = this.#mirrors;
      return this.#door === undefined
        ? blobs.open(request)
        : this.#door.blob(request, (same) => blobs.open(same));
    },
    stat: (request: BlobRequest) => {
      const { blobs } = this.#mirrors;
      return this.#door === undefined
        ? blobs.stat(request)
        : this.#door.blob(request, (same) => blobs.stat(same));
    },
    settled: (...which: Parameters<Mirrors['blobs']['settled']>) => this.#mirrors.blobs.settled(...which),
  };

  readonly discovery = {
    tags: async (request: TagsRequest) => {
      this.#door?.requireRepository(keyOf(request));
      return this.#mirrors.discovery.tags(request);
    },
    referrers: async (request: ReferrersRequest) => {
      this.#door?.requireRepository(keyOf(request));
      return this.#mirrors.discovery.referrers(request);
    },
  };

  /**
   * Reads what policies need.
   *
   * @returns takes them over. Until it is called, nothing has changed
   * @throws {FileError} a file of a policy cannot be used
   */
  async prepare(config: Config): Promise<{ use: () => void } & Disposable> {
    if (config.policies.length === 0) {
      return { use: () => this.#replace(undefined, undefined), [Symbol.dispose]: () => undefined };
    }
    const [{ LivePolicies: Live }, { PolicyDoor: Door }] = await Promise.all([
      import('../policy/live-policies.ts'),
      import('../policy/door.ts'),
    ]);
    const context = { ...this.#context, openSightings: () => this.#openSightings() };
    const live = await Live.open(config.policies, upstreamByHost(config), context);
    const manifests = this.#mirrors.manifestStore;
    const door = new Door({ ...this.#context, manifests, policies: () => live.current });
    let isUsed = false;
    return {
      use: () => {
        isUsed = true;
        this.#replace(live, door);
      },
      [Symbol.dispose]: () => {
        if (!isUsed) live[Symbol.dispose]();
      },
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#policies?.[Symbol.dispose]();
    await this.#sightings?.[Symbol.asyncDispose]();
  }

  async #openSightings(): Promise<Sightings> {
    const { Sightings: Opened } = await import('../policy/parts/age/sightings.ts');
    this.#sightings ??= await Opened.open(this.#context.cacheDirectory, this.#context);
    return this.#sightings;
  }

  #replace(policies: LivePolicies | undefined, door: PolicyDoor | undefined): void {
    this.#policies?.[Symbol.dispose]();
    policies?.publish(); // the old ones have ended the metrics of theirs that have the same names
    this.#policies = policies;
    this.#door = door;
  }
}
