/**
 * Keeps what policies have let in, so that neither a restart nor upstream's loss of a signature asks for it again. A finding
 * holds for one manifest of one repository, and for the policy as it was.
 *
 * Refusals are not kept: what is missing may come at any time.
 */
import type { IndexStore, RepositoryKey } from '../../cache/index/index-store.ts';
import type { StorageFaults } from '../../cache/store/storage-faults.ts';
import type { Clock } from '../../clock.ts';
import type { Digest } from '../../oci/digest.ts';
import { ALLOWED, type Finding } from '../parts/part.ts';

export interface FindingsContext {
  index: IndexStore;
  faults: StorageFaults;
  clock: Clock;
}

type Judged = RepositoryKey & { digest: Digest };

export class Findings {
  readonly #context: FindingsContext;

  constructor(context: FindingsContext) {
    this.#context = context;
  }

  /** @returns undefined if there is none, or it no longer holds */
  async recall(judged: Judged, policy: string, policyHash: string): Promise<Finding | undefined> {
    const { index, faults, clock } = this.#context;
    const record = await faults.tolerate(() => index.finding(keyOf(judged, policy)));
    if (record === undefined || record.policyHash !== policyHash) return undefined;
    const { until } = record;
    if (until === undefined) return ALLOWED;
    return clock.now() < until ? { allowed: true, until } : undefined;
  }

  /** A disk that fails only means that it is judged again. */
  async keep(judged: Judged, policy: string, policyHash: string, until: number | undefined): Promise<void> {
    const { index, faults } = this.#context;
    const value = { policyHash, ...(until === undefined ? {} : { until }) };
    await faults.tolerate(() => index.write([{ put: 'finding', key: keyOf(judged, policy), value }]));
  }
}

function keyOf({ upstream, repository, digest }: Judged, policy: string) {
  return { upstream, repository, digest, policy };
}
