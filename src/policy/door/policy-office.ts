/** What operators ask of policies: why an image comes in or not, and to let one in by hand. */
import type { IndexStore, RepositoryKey } from '../../cache/index/index-store.ts';
import type { Clock } from '../../clock.ts';
import type { Digest } from '../../oci/digest.ts';
import { isDigest, type Reference } from '../../oci/reference.ts';
import type { Logger } from '../../telemetry/log.ts';
import type { Admission, Admissions } from '../decision/admissions.ts';
import type { Listings } from '../decision/listings.ts';
import type { LivePolicies } from '../decision/live-policies.ts';
import type { PolicyAnswer } from '../decision/policy-set.ts';

export interface PolicyOfficeContext {
  admissions: Admissions;
  live: LivePolicies;
  index: IndexStore;
  listings: Listings;
  clock: Clock;
  logger: Logger;
}

export interface PolicyExplanation {
  digest: Digest;
  answers: readonly PolicyAnswer[];
}

/** What is asked for cannot be let in by hand. The message says why, and what to do. */
export class AdmissionError extends Error {
  override readonly name = 'AdmissionError';
}

export class PolicyOffice {
  readonly #context: PolicyOfficeContext;

  constructor(context: PolicyOfficeContext) {
    this.#context = context;
  }

  /**
   * What each policy says about an image that is cached.
   *
   * @returns undefined if it is not cached
   * @throws {StorageError}
   */
  async explain(key: RepositoryKey, reference: Reference): Promise<PolicyExplanation | undefined> {
    const { index, listings, live } = this.#context;
    const digest = isDigest(reference)
      ? reference
      : (await index.tag({ ...key, tag: reference, accept: '' }))?.digest;
    const isKnown = digest !== undefined && (await index.permission(key, digest)) !== undefined;
    const manifest = isKnown ? await listings.manifest(digest) : undefined;
    return manifest && { digest: manifest.digest, answers: await live.current.explain(key, manifest) };
  }

  /** The admissions that hold. */
  admissions(): Admission[] {
    return this.#context.admissions.current(this.#context.clock.now());
  }

  /**
   * Lets an image in past the policies that are named.
   *
   * @throws {AdmissionError} there is no such policy, or the end has passed @throws the system's error if it cannot be written
   */
  async admit(asked: Omit<Admission, 'at'>): Promise<void> {
    const { admissions, live, clock, logger } = this.#context;
    const unknown = asked.policies.find((name) => !live.names.includes(name));
    if (unknown !== undefined)
      throw new AdmissionError(`there is no policy ${unknown}: choose from ${live.names.join(', ')}`);
    const until = new Date(asked.until).toISOString();
    if (asked.until <= clock.now())
      throw new AdmissionError(`${until} has passed: name a day that is still to come`);
    await admissions.add({ ...asked, at: clock.now() });
    live.forget();
    logger.warn({ ...asked, until }, 'let in by hand');
  }
}
