/** The policies that are in use at one moment, and what they have decided. A changed policy makes a new set. */
import type { RepositoryKey } from '../../cache/index/index-store.ts';
import { ContentError, StorageError } from '../../cache/store/errors.ts';
import type { Clock } from '../../clock.ts';
import type { Manifest } from '../../mirror/manifests/manifest-store.ts';
import type { Digest } from '../../oci/digest.ts';
import { parseManifest } from '../../oci/manifest.ts';
import { SingleFlight } from '../../single-flight.ts';
import type { Logger } from '../../telemetry/log.ts';
import type { Metrics } from '../../telemetry/metrics.ts';
import { UpstreamError } from '../../upstream/errors.ts';
import { PolicyError } from '../errors.ts';
import type { Sightings } from '../parts/age/sightings.ts';
import type { Evidence, Finding, Refusal, Subject } from '../parts/part.ts';
import type { Listings } from './listings.ts';
import type { Notifier } from './notifier.ts';
import type { Indexes, Policy, PolicyMode } from './policy.ts';
import { type Remembered, RepositoryMemory } from './repository-memory.ts';
import { type Verdict, verdictOf } from './verdict.ts';

export interface PolicySetContext {
  /** Absent: no policy counts how long something has been seen. */
  sightings?: Sightings | undefined;
  listings: Listings;
  /** @param signal stops what asks for it */
  evidenceOf: (subject: Subject, signal: AbortSignal) => Evidence;
  /** Is told of every judgement. Absent: nobody is. */
  notifier?: Notifier | undefined;
  /** How long a refusal is remembered; milliseconds. What is missing now may come. */
  retryRefusedMs: number;
  /** Waits for work that no client waits for, before everything is closed. */
  track: (work: Promise<unknown>) => void;
  clock: Clock;
  logger: Logger;
  metrics: Metrics;
}

/** Each request of a check has limits of its own; this is for all of them together. */
const LONGEST_CHECK_MS = 120_000;

export interface PolicyAnswer {
  policy: string;
  mode: PolicyMode;
  finding: Finding;
}

export class PolicySet implements Disposable {
  readonly #memory: RepositoryMemory;
  readonly #context: PolicySetContext;
  readonly #closing = new AbortController();
  readonly #deciding = new SingleFlight<Verdict>();
  /** When decisions that run were begun; milliseconds since the epoch. */
  readonly #begunAt = new Map<string, number>();

  constructor(policies: readonly Policy[], context: PolicySetContext) {
    this.#memory = new RepositoryMemory(policies);
    this.#context = context;
  }

  /** Stops decisions that run. */
  [Symbol.dispose](): void {
    this.#closing.abort(new Error('the policies have changed: ask again'));
  }

  /** The name of a policy that enforces something in the repository. Undefined: there is none. */
  guardOf(key: RepositoryKey): string | undefined {
    return this.#memory.of(key).enforcing[0]?.name;
  }

  /** Whether a decision about something in the repository may take longer than a client waits. */
  isThorough(key: RepositoryKey): boolean {
    return this.#memory.of(key).isThorough;
  }

  /**
   * Refuses what can be refused by the name alone.
   *
   * @param digest what is asked for, if it was asked for by digest
   * @throws {PolicyError}
   */
  requireName(key: RepositoryKey, digest?: Digest): void {
    const { enforcing, refusing } = this.#memory.of(key);
    if (digest === undefined && refusing.length === 0) return; // the usual case, on every hit
    const now = this.#context.clock.now();
    const isMeant = (policy: Policy) => !policy.mayBeLifted(key, digest, now);
    for (const { policy, refusal } of refusing) if (isMeant(policy)) this.#refuse(policy, refusal);
    if (digest === undefined) return;
    for (const policy of enforcing) {
      const refusal = policy.refusalOf(digest);
      if (refusal !== undefined && isMeant(policy)) this.#refuse(policy, refusal);
    }
  }

  /** Given if a policy counts how long something has been seen in the repository. */
  sightingsFor(key: RepositoryKey): Sightings | undefined {
    return this.#memory.of(key).isAboutAge ? this.#context.sightings : undefined;
  }

  /**
   * The newest that is old enough of what a tag has meant. If nothing is, that which will be first.
   *
   * @param meanings the newest first
   */
  oldEnough(key: RepositoryKey, meanings: readonly Digest[]): Digest | undefined {
    const now = this.#context.clock.now();
    const { enforcing } = this.#memory.of(key);
    const from = (digest: Digest) =>
      Math.max(0, ...enforcing.map((policy) => policy.oldEnoughFrom(key, digest, now)));
    const oldEnough = meanings.find((digest) => from(digest) <= now);
    return oldEnough ?? meanings.toSorted((a, b) => from(a) - from(b))[0];
  }

  /** Forgets what was decided. */
  forget(): void {
    this.#memory.forget();
  }

  /**
   * What each policy says that is about the repository. Judges as for a client: asks upstream, and scans. Counts no
   * decision, and no verdict is changed by it.
   */
  async explain(key: RepositoryKey, manifest: Manifest): Promise<PolicyAnswer[]> {
    const subject = subjectOf(key, manifest);
    const { enforcing, auditing } = this.#memory.of(key);
    const answers = [...enforcing, ...auditing].map(async (policy) => {
      const { name, mode } = policy;
      return { policy: name, mode, finding: await this.#findingOf(policy, subject) };
    });
    return Promise.all(answers);
  }

  /** The verdict about a manifest, if it was made before and still holds. */
  recall(key: RepositoryKey, digest: Digest): Remembered | undefined {
    const known = this.#memory.of(key).verdicts.get(digest);
    if (known === undefined || known.until === Number.POSITIVE_INFINITY) return known;
    return this.#context.clock.now() < known.until ? known : undefined;
  }

  /** When a decision that runs was begun; milliseconds since the epoch. */
  begunAt(key: RepositoryKey, digest: Digest): number | undefined {
    return this.#begunAt.get(nameOf(key, digest));
  }

  /** Decides about a manifest, once for all who ask at the same time. Never rejects: what cannot be judged is refused. */
  async decide(key: RepositoryKey, manifest: Manifest): Promise<Verdict> {
    const known = this.recall(key, manifest.digest);
    if (known !== undefined) return known;
    const name = nameOf(key, manifest.digest);
    const { result } = this.#deciding.run(name, async () => {
      this.#begunAt.set(name, this.#context.clock.now());
      try {
        return await this.#decide(key, manifest);
      } finally {
        this.#begunAt.delete(name);
      }
    });
    this.#context.track(result); // it goes on when the client has left
    return result;
  }

  /** @returns undefined if the manifest is not stored: then nobody knows what it lists @throws {StorageError} */
  async decideStored(key: RepositoryKey, digest: Digest): Promise<Verdict | undefined> {
    const known = this.recall(key, digest);
    if (known !== undefined) return known;
    const manifest = await this.#context.listings.manifest(digest);
    return manifest && this.decide(key, manifest);
  }

  async #decide(key: RepositoryKey, manifest: Manifest): Promise<Verdict> {
    const { clock, retryRefusedMs } = this.#context;
    const subject = subjectOf(key, manifest);
    const { generation } = this.#memory;
    const { enforcing, auditing } = this.#memory.of(subject);
    for (const policy of auditing) this.#context.track(this.#judge(policy, subject)); // no client waits for it
    const judged = enforcing.map(
      async (policy) => [policy.name, await this.#judge(policy, subject)] as const,
    );
    const verdict = verdictOf(new Map(await Promise.all(judged)));
    if (!verdict.allowed) {
      // It may be below or above what was let in before, when its bytes were not here yet.
      this.#memory.forget();
      const until = Math.min(clock.now() + retryRefusedMs, verdict.refusal.until ?? Number.POSITIVE_INFINITY);
      this.#memory.remember(key, manifest.digest, { ...verdict, until });
    } else if (generation === this.#memory.generation)
      this.#memory.remember(key, manifest.digest, { ...verdict });
    return verdict;
  }

  /** Never rejects. */
  async #judge(policy: Policy, subject: Subject): Promise<Finding> {
    const { metrics, logger } = this.#context;
    const { name, mode } = policy;
    const finding = await this.#findingOf(policy, subject);
    const decision = finding.allowed ? 'allow' : finding.isUnknown === true ? 'unknown' : 'deny';
    metrics.policyDecisions.inc({ policy: name, mode, decision });
    const { upstream, repository, digest } = subject;
    if (decision !== 'unknown') {
      const reason = finding.allowed ? {} : { reason: finding.reason };
      const image = `${upstream}/${repository}@${digest}`;
      this.#context.notifier?.judged({ policy: name, mode, image, decision, ...reason });
    }
    if (!finding.allowed) {
      const what = mode === 'audit' ? 'let in, because the policy only looks' : 'not let in';
      logger.warn({ policy: name, mode, upstream, repository, digest, reason: finding.reason }, what);
    }
    return finding;
  }

  async #findingOf(policy: Policy, subject: Subject): Promise<Finding> {
    const { clock, evidenceOf, listings, logger } = this.#context;
    const limit = new AbortController();
    const signal = AbortSignal.any([this.#closing.signal, limit.signal]);
    if (policy.isThorough && !policy.isScanning) {
      const tooLong = () =>
        limit.abort(new UpstreamError('timeout', subject.upstream, 'the check took too long'));
      clock.sleep(LONGEST_CHECK_MS, signal).then(tooLong, () => undefined);
    }
    try {
      const indexes = this.#indexesOf(subject);
      const evidence = evidenceOf(subject, signal);
      const childrenOf = (digest: Digest) => listings.childrenOf(digest);
      return await policy.judge(subject, { evidence, indexes, childrenOf, now: clock.now() });
    } catch (error) {
      const isExpected =
        this.#closing.signal.aborted ||
        [UpstreamError, ContentError, StorageError].some((type) => error instanceof type);
      if (!isExpected)
        logger.error({ err: error, policy: policy.name, digest: subject.digest }, 'a policy failed');
      return unknown(error);
    } finally {
      limit.abort(); // nothing goes on after the finding
    }
  }

  #indexesOf(subject: Subject): Indexes {
    const { listings } = this.#context;
    const letIn = (digests: () => Promise<readonly Digest[]>) =>
      async function* (this: PolicySet) {
        for (const digest of await digests())
          if ((await this.decideStored(subject, digest))?.allowed === true) yield digest;
      }.bind(this);
    return {
      recent: letIn(async () => [listings.indexOf(subject, subject.digest) ?? []].flat()),
      all: letIn(() => listings.search(subject, subject.digest)),
    };
  }

  #refuse(policy: Policy, refusal: Refusal): never {
    this.#context.metrics.policyDecisions.inc({ policy: policy.name, mode: policy.mode, decision: 'deny' });
    throw new PolicyError(policy.name, refusal);
  }
}

function subjectOf({ upstream, repository }: RepositoryKey, manifest: Manifest): Subject {
  const parsed = parseManifest(manifest.bytes, manifest.mediaType);
  // The mirror stores and serves nothing else.
  if (parsed === undefined) throw new Error(`${manifest.digest} is not a manifest`);
  return { upstream, repository, ...manifest, parsed };
}

function nameOf({ upstream, repository }: RepositoryKey, digest: Digest): string {
  return `${upstream}/${repository}@${digest}`;
}

function unknown(error: unknown): Refusal {
  const why = error instanceof Error ? error.message : String(error);
  return {
    allowed: false,
    isUnknown: true,
    reason: `it could not be checked: ${why}`,
    advice: 'ask again',
    detail: { missing: 'answer' },
  };
}
