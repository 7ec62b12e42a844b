/**
 * Remembers for each repository which policies are about it, and the verdicts about its manifests. A hit asks for nothing
 * else.
 */
import type { RepositoryKey } from '../../cache/index/index-store.ts';
import type { Digest } from '../../oci/digest.ts';
import type { Refusal } from '../parts/part.ts';
import type { Policy } from './policy.ts';
import type { Verdict } from './verdict.ts';

/** A verdict that was made. */
export type Remembered = Verdict & {
  /** Milliseconds since the epoch, or infinity. */
  until: number;
  /** Whether what the manifest lists has been noted. */
  isNoted?: boolean;
};

interface RepositoryPolicies {
  enforcing: readonly Policy[];
  auditing: readonly Policy[];
  /** Those that refuse the repository as a whole. */
  refusing: readonly { policy: Policy; refusal: Refusal }[];
  isAboutAge: boolean;
  /** Whether a decision may take longer than a client waits. */
  isThorough: boolean;
  verdicts: Map<Digest, Remembered>;
}

/** Repositories and verdicts: some 300 bytes each. Beyond that, all is forgotten and made again. */
const MOST = 50_000;

export class RepositoryMemory {
  readonly #policies: readonly Policy[];
  /** By upstream and repository: to make one name of both for each hit would cost more than all else. */
  readonly #known = new Map<string, Map<string, RepositoryPolicies>>();
  #size = 0;
  #generation = 0;

  constructor(policies: readonly Policy[]) {
    // In one order, so that the same policy is named in every refusal.
    this.#policies = policies.toSorted((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** How often it has forgotten. */
  get generation(): number {
    return this.#generation;
  }

  of({ upstream, repository }: RepositoryKey): RepositoryPolicies {
    const known = this.#known.get(upstream)?.get(repository);
    if (known !== undefined) return known;
    const found = this.#find(`${upstream}/${repository}`);
    this.#grow();
    const ofUpstream = this.#known.get(upstream);
    if (ofUpstream === undefined) this.#known.set(upstream, new Map([[repository, found]]));
    else ofUpstream.set(repository, found);
    return found;
  }

  remember(key: RepositoryKey, digest: Digest, verdict: Remembered): void {
    this.#grow();
    this.of(key).verdicts.set(digest, verdict);
  }

  /** Clients can ask for any number of repositories that do not exist. */
  #grow(): void {
    if (this.#size >= MOST) this.forget();
    this.#size += 1;
  }

  forget(): void {
    this.#generation += 1;
    this.#known.clear();
    this.#size = 0;
  }

  #find(name: string): RepositoryPolicies {
    const matching = this.#policies.filter((policy) => policy.matches(name));
    const enforcing = matching.filter(({ mode }) => mode === 'enforce');
    return {
      enforcing,
      auditing: matching.filter(({ mode }) => mode === 'audit'),
      refusing: enforcing.flatMap((policy) => {
        const refusal = policy.refusalOfRepository(name);
        return refusal === undefined ? [] : [{ policy, refusal }];
      }),
      isAboutAge: matching.some((policy) => policy.isAboutAge),
      isThorough: enforcing.some((policy) => policy.isThorough),
      verdicts: new Map(),
    };
  }
}
