/**
 * The mirrors as clients see them: what policies do not let in reaches none of them. The room of policies is loaded only
 * when there are some.
 */
import type { Config } from '../config/schema.ts';
import type { BlobRequest } from '../mirror/blobs/blob-mirror.ts';
import type { ReferrersRequest, TagsRequest } from '../mirror/manifests/discovery-mirror.ts';
import type { ManifestRequest } from '../mirror/manifests/manifest-mirror.ts';
import { keyOf } from '../mirror/permissions.ts';
import type { PolicyDoor } from '../policy/door/policy-door.ts';
import type { PolicyOffice } from '../policy/door/policy-office.ts';
import type { Mirrors } from './mirrors.ts';
import type { OpenPolicies, Policies, PoliciesContext } from './policies.ts';

export class PolicedMirrors implements AsyncDisposable {
  readonly #mirrors: Mirrors;
  readonly #context: PoliciesContext;
  /** Loaded when there are policies for the first time. */
  #policies: Policies | undefined;
  #current: OpenPolicies | undefined;

  constructor(mirrors: Mirrors, context: PoliciesContext) {
    this.#mirrors = mirrors;
    this.#context = context;
  }

  /** The door that everything has to pass. Undefined: there are no policies. */
  get door(): PolicyDoor | undefined {
    return this.#current?.door;
  }

  /** What operators ask of policies. Undefined: there are none. */
  get office(): PolicyOffice | undefined {
    return this.#current?.office;
  }

  readonly manifests = {
    open: (request: ManifestRequest) => {
      const { manifests } = this.#mirrors;
      return this.door === undefined
        ? manifests.open(request)
        : this.door.manifest(request, (same) => manifests.open(same));
    },
  };

  readonly blobs = {
    open: (request: BlobRequest) => {
      const { blobs } = this.#mirrors;
      return this.door === undefined
        ? blobs.open(request)
        : this.door.blob(request, (same) => blobs.open(same));
    },
    stat: (request: BlobRequest) => {
      const { blobs } = this.#mirrors;
      return this.door === undefined
        ? blobs.stat(request)
        : this.door.blob(request, (same) => blobs.stat(same));
    },
    settled: (...which: Parameters<Mirrors['blobs']['settled']>) => this.#mirrors.blobs.settled(...which),
  };

  readonly discovery = {
    tags: async (request: TagsRequest) => {
      this.door?.requireRepository(keyOf(request), request.context.identity);
      return this.#mirrors.discovery.tags(request);
    },
    referrers: async (request: ReferrersRequest) => {
      this.door?.requireRepository(keyOf(request), request.context.identity);
      return this.#mirrors.discovery.referrers(request);
    },
  };

  /**
   * Reads what policies need.
   *
   * @returns takes them over. Until it is called, nothing has changed
   * @throws {FileError} a file of a policy cannot be used @throws {Error} a scanner cannot be opened
   */
  async prepare(config: Config): Promise<{ use: () => void } & Disposable> {
    const opened = config.policies.length === 0 ? undefined : await this.#open(config);
    let isUsed = false;
    return {
      use: () => {
        isUsed = true;
        this.#current?.[Symbol.dispose]();
        opened?.publish(); // the old ones have ended the metrics of theirs that have the same names
        this.#current = opened;
      },
      [Symbol.dispose]: () => {
        if (!isUsed) opened?.[Symbol.dispose]();
      },
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#current?.[Symbol.dispose]();
    await this.#policies?.[Symbol.asyncDispose]();
  }

  async #open(config: Config): Promise<OpenPolicies> {
    const { Policies: Loaded } = await import('./policies.ts');
    this.#policies ??= new Loaded(this.#mirrors, this.#context);
    return this.#policies.open(config);
  }
}
