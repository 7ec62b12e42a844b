/** The policies that are in use at one moment, and what they have decided. A changed policy makes a new set. */
import { LRUCache } from 'lru-cache';
import type { RepositoryKey } from '../cache/index/index-store.ts';
import type { Clock } from '../clock.ts';
import type { Digest } from '../oci/digest.ts';
import { SingleFlight } from '../single-flight.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { PolicyError } from './errors.ts';
import type { Sightings } from './parts/age/sightings.ts';
import type { Finding, Subject } from './parts/part.ts';
import type { Policy } from './policy.ts';
import { type Verdict, verdictOf } from './verdict.ts';

export interface PolicySetContext {
  /** Absent: no policy counts how long something has been seen. */
  sightings?: Sightings | undefined;
  clock: Clock;
  logger: Logger;
  metrics: Metrics;
}

/** Names, and verdicts: some 300 bytes each. */
const REMEMBERED_NAMES = 4_096;
const REMEMBERED_VERDICTS = 50_000;
/** What is refused now may be let in later: a list is corrected, a signature is pushed. */
const REFUSAL_HOLDS_MS = 30_000;

type Remembered = Verdict & { until: number };

interface MatchingPolicies {
  enforcing: readonly Policy[];
  auditing: readonly Policy[];
  isAboutAge: boolean;
}

export class PolicySet {
  readonly #policies: readonly Policy[];
  readonly #context: PolicySetContext;
  readonly #byName = new LRUCache<string, MatchingPolicies>({ max: REMEMBERED_NAMES });
  readonly #verdicts = new LRUCache<string, Remembered>({ max: REMEMBERED_VERDICTS });
  /** A verdict that was begun before the last refusal is not remembered. */
  #refusals = 0;
  readonly #deciding = new SingleFlight<Verdict>();

  constructor(policies: readonly Policy[], context: PolicySetContext) {
    // In one order, so that the same policy is named in every refusal.
    this.#policies = policies.toSorted((a, b) => (a.name < b.name ? -1 : 1));
    this.#context = context;
  }

  /** The name of a policy that enforces something in the repository. Undefined: there is none. */
  guardOf(key: RepositoryKey): string | undefined {
    return this.#about(key).enforcing[0]?.name;
  }

  /**
   * Refuses what can be refused by the name alone.
   *
   * @param digest what is asked for, if it was asked for by digest
   * @throws {PolicyError}
   */
  requireName(key: RepositoryKey, digest?: Digest): void {
    const now = this.#context.clock.now();
    for (const policy of this.#about(key).enforcing) {
      const finding = policy.judgeName(key, digest, now);
      if (finding.allowed) continue;
      this.#context.metrics.policyDecisions.inc({ policy: policy.name, mode: policy.mode, decision: 'deny' });
      throw new PolicyError(policy.name, finding);
    }
  }

  /** Given if a policy counts how long something has been seen in the repository. */
  sightingsFor(key: RepositoryKey): Sightings | undefined {
    return this.#about(key).isAboutAge ? this.#context.sightings : undefined;
  }

  /**
   * The newest that is old enough of what a tag has meant. If nothing is, that which will be first.
   *
   * @param meanings the newest first
   */
  oldEnough(key: RepositoryKey, meanings: readonly Digest[]): Digest | undefined {
    const now = this.#context.clock.now();
    const { enforcing } = this.#about(key);
    const from = (digest: Digest) =>
      Math.max(0, ...enforcing.map((policy) => policy.oldEnoughFrom(key, digest, now)));
    const oldEnough = meanings.find((digest) => from(digest) <= now);
    return oldEnough ?? meanings.toSorted((a, b) => from(a) - from(b))[0];
  }

  /** The verdict about a manifest, if it was made before and still holds. */
  recall({ upstream, repository }: RepositoryKey, digest: Digest): Verdict | undefined {
    const known = this.#verdicts.get(`${upstream}/${repository}@${digest}`);
    return known !== undefined && this.#context.clock.now() < known.until ? known : undefined;
  }

  /** Decides about a manifest, once for all who ask at the same time. @throws {StorageError} */
  async decide(subject: Subject): Promise<Verdict> {
    const known = this.recall(subject, subject.digest);
    if (known !== undefined) return known;
    const key = `${subject.upstream}/${subject.repository}@${subject.digest}`;
    return this.#deciding.run(key, async () => {
      const { clock } = this.#context;
      const refusals = this.#refusals;
      const { enforcing, auditing } = this.#about(subject);
      for (const policy of auditing) this.#audit(policy, subject);
      const judged = enforcing.map(
        async (policy) => [policy.name, await this.#judge(policy, subject)] as const,
      );
      const verdict = verdictOf(new Map(await Promise.all(judged)));
      if (!verdict.allowed) {
        // It may be below or above what was let in before, when its bytes were not here yet.
        this.#refusals += 1;
        this.#verdicts.clear();
        const until = Math.min(
          clock.now() + REFUSAL_HOLDS_MS,
          verdict.refusal.until ?? Number.POSITIVE_INFINITY,
        );
        this.#verdicts.set(key, { ...verdict, until });
      } else if (refusals === this.#refusals) this.#verdicts.set(key, verdict);
      return verdict;
    }).result;
  }

  /** Nobody waits for it, and its failure refuses nothing. */
  #audit(policy: Policy, subject: Subject): void {
    const { logger } = this.#context;
    this.#judge(policy, subject).catch((error: unknown) =>
      logger.error({ err: error, policy: policy.name, digest: subject.digest }, 'could not be audited'),
    );
  }

  async #judge(policy: Policy, subject: Subject): Promise<Finding> {
    const { clock, metrics, logger } = this.#context;
    const { name, mode } = policy;
    const finding = await policy.judge(subject, clock.now());
    metrics.policyDecisions.inc({ policy: name, mode, decision: finding.allowed ? 'allow' : 'deny' });
    if (!finding.allowed) {
      const { upstream, repository, digest } = subject;
      const what = mode === 'audit' ? 'let in, because the policy only looks' : 'not let in';
      logger.warn({ policy: name, mode, upstream, repository, digest, reason: finding.reason }, what);
    }
    return finding;
  }

  #about({ upstream, repository }: RepositoryKey): MatchingPolicies {
    const name = `${upstream}/${repository}`;
    const known = this.#byName.get(name);
    if (known !== undefined) return known;
    const matching = this.#policies.filter((policy) => policy.matches(name));
    const about = {
      enforcing: matching.filter(({ mode }) => mode === 'enforce'),
      auditing: matching.filter(({ mode }) => mode === 'audit'),
      isAboutAge: matching.some((policy) => policy.isAboutAge),
    };
    this.#byName.set(name, about);
    return about;
  }
}
