/**
 * Lets an image in only if a scanner finds nothing bad in it.
 *
 * How long a finding holds: `rescan` for what the scanner has found, 5 minutes if there was no scanner, and no longer than
 * the exceptions that mattered.
 */
import { LRUCache } from 'lru-cache';
import type { Clock } from '../../../clock.ts';
import type { Digest } from '../../../oci/digest.ts';
import type { Logger } from '../../../telemetry/log.ts';
import {
  ALLOWED,
  type Evidence,
  type Finding,
  type PolicyPart,
  type Refusal,
  type Subject,
} from '../part.ts';
import type { QuarantineContent } from './quarantine/content.ts';
import { type RefusedResult, refusalFor } from './refusals.ts';
import { assess } from './report/assessment.ts';
import type { ScanFinding, ScanReport } from './report/scan-report.ts';
import type { Scanner } from './scanner/scanner.ts';
import type { Fallback, ScanSettings } from './scanner/settings.ts';
import { kindOf } from './subject-kind.ts';

/**
 * What a scan came to. `reported`: found to be bad, and let in because it was clean before and `onNewFinding` says so. The
 * last three are decided by the settings.
 */
type ScanResult = 'clean' | 'found' | 'reported' | 'nothing' | 'failed' | 'unavailable';

/** Which images a policy has found to be clean. Kept by whoever keeps its decisions; a loss makes new findings deny. */
export interface CleanImages {
  has(subject: Subject): Promise<boolean>;
  add(subject: Subject): Promise<void>;
}

export interface ScanContext {
  clock: Clock;
  logger: Logger;
  scanner: Scanner;
  /** The blobs of a manifest's repository. */
  contentOf: (subject: Subject) => QuarantineContent;
  clean: CleanImages;
  /** Counts a result in the metrics. */
  count: (result: ScanResult) => void;
}

type HeldFinding = Finding & { until: number };

const UNAVAILABLE_HOLDS_MS = 300_000;
/** It costs little to ask whether the scanner is back. */
const UNAVAILABLE_REFUSED_MS = 30_000;
/** A scan that failed may take the scanner's whole time, so it is not done again for every client that asks. */
const FAILURE_HOLDS_MS = 300_000;
/** The scanner was well, so no return of it ends this allow; but what failed once may not fail again. */
const ALLOWED_FAILURE_HOLDS_MS = 3_600_000;
/** Refusals have some kilobytes each. */
const REMEMBERED_REFUSALS = 2_000;
/** Some 200 bytes each. */
const REMEMBERED_FAILURES = 50_000;

export class ScanPart implements PolicyPart {
  readonly #settings: ScanSettings;
  readonly #context: ScanContext;
  /** Refusals: whoever asks again in 30 seconds starts no new scan. */
  readonly #refused = new LRUCache<string, Refusal & { until: number }>({ max: REMEMBERED_REFUSALS });
  /**
   * What the scanner has failed on. If it is away afterwards, the image may be the reason, and so it is not let in by
   * `ifUnavailable`.
   */
  readonly #failedOn = new LRUCache<Digest, true>({ max: REMEMBERED_FAILURES });

  constructor(settings: ScanSettings, context: ScanContext) {
    this.#settings = settings;
    this.#context = context;
  }

  /**
   * Scans an image; lets an index through as a list, because each of its images is decided when it is asked for.
   *
   * @param evidence its signal ends the scan
   * @throws what the mirror throws if the image's bytes do not come
   * @throws the reason of the signal, when it aborts
   */
  async judge(subject: Subject, { signal }: Pick<Evidence, 'signal'>): Promise<Finding> {
    const { clock } = this.#context;
    if (kindOf(subject) === 'list') return ALLOWED;
    const key = `${subject.upstream}/${subject.repository}@${subject.digest}`;
    const known = this.#refused.get(key);
    if (known !== undefined && clock.now() < known.until) return known;
    const finding = await this.#decide(subject, signal);
    if (finding.allowed) this.#refused.delete(key);
    else this.#refused.set(key, finding);
    return finding;
  }

  async #decide(subject: Subject, signal: AbortSignal): Promise<HeldFinding> {
    const kind = kindOf(subject);
    if (kind === 'other') return this.#fallBack(subject, { kind: 'nothing' });
    if (kind === 'ambiguous') return this.#fallBack(subject, AMBIGUOUS);
    const { scanner, contentOf } = this.#context;
    const outcome = await scanner.scan(subject, contentOf(subject), signal);
    switch (outcome.kind) {
      case 'unavailable':
        return this.#failedOn.has(subject.digest)
          ? this.#fallBack(subject, AWAY_SINCE, UNAVAILABLE_HOLDS_MS)
          : this.#fallBack(subject, outcome);
      case 'failed':
        this.#failedOn.set(subject.digest, true);
        return this.#fallBack(subject, outcome);
      case 'report':
        this.#failedOn.delete(subject.digest);
        return this.#assess(subject, outcome.report);
    }
  }

  async #assess(subject: Subject, report: ScanReport): Promise<HeldFinding> {
    const now = this.#context.clock.now();
    const assessed = assess(report, this.#settings, now);
    const until = Math.min(now + this.#settings.rescan, assessed.until);
    switch (assessed.kind) {
      case 'found':
        return this.#found(subject, assessed.findings, until);
      case 'unrated': {
        const reason = `the severity of ${assessed.findings[0]?.id} is not known`;
        return this.#fallBack(subject, { kind: 'failed', reason }, until - now);
      }
      case 'nothing':
        return this.#fallBack(subject, { kind: 'nothing' }, until - now);
      case 'clean':
        // What is clean only by an exception is not: when that ends, its finding is no new one.
        if (assessed.until === Number.POSITIVE_INFINITY) await this.#context.clean.add(subject);
        this.#context.count('clean');
        return { allowed: true, until };
    }
  }

  async #found(subject: Subject, findings: readonly ScanFinding[], until: number): Promise<HeldFinding> {
    const { logger, count, clean } = this.#context;
    const { upstream, repository, digest } = subject;
    const isReported = this.#settings.onNewFinding === 'report' && (await clean.has(subject));
    count(isReported ? 'reported' : 'found');
    const ids = findings.map(({ id }) => id).slice(0, LOGGED_FINDINGS);
    logger.warn(
      { upstream, repository, digest, findings: ids, more: findings.length - ids.length },
      isReported ? 'an image that was clean is not any more, and is let in' : 'the scanner found something',
    );
    if (isReported) return { allowed: true, until };
    return { ...refusalFor({ kind: 'found', findings }, this.#settings.failOn), until };
  }

  /** @param holdsMs how long it may hold; the most that it does is given by its kind */
  #fallBack(subject: Subject, result: FallbackResult, holdsMs = this.#settings.rescan): HeldFinding {
    const { clock, logger, count } = this.#context;
    const { upstream, repository, digest } = subject;
    count(result.kind);
    const allowed = this.#fallbackOf(result.kind) === 'allow';
    logger[result.kind === 'nothing' ? 'info' : 'warn'](
      {
        upstream,
        repository,
        digest,
        result: result.kind,
        allowed,
        ...('reason' in result ? { reason: result.reason } : {}),
      },
      'not scanned',
    );
    const until = clock.now() + Math.min(holdsMs, longestMs(result.kind, allowed));
    return allowed ? { allowed, until } : { ...refusalFor(result, this.#settings.failOn), until };
  }

  #fallbackOf(kind: FallbackResult['kind']): Fallback {
    const { ifUnavailable, ifFailed, ifNothingFound } = this.#settings;
    return { unavailable: ifUnavailable, failed: ifFailed, nothing: ifNothingFound }[kind];
  }
}

type FallbackResult = Exclude<RefusedResult, { kind: 'found' }>;

const LOGGED_FINDINGS = 20;
const AMBIGUOUS = { kind: 'failed', reason: 'its manifest is an index and an image at once' } as const;
const AWAY_SINCE = { kind: 'failed', reason: 'the scanner failed on it before, and is away since' } as const;

function longestMs(kind: FallbackResult['kind'], allowed: boolean): number {
  switch (kind) {
    case 'unavailable':
      return allowed ? UNAVAILABLE_HOLDS_MS : UNAVAILABLE_REFUSED_MS;
    case 'failed':
      return allowed ? ALLOWED_FAILURE_HOLDS_MS : FAILURE_HOLDS_MS;
    case 'nothing':
      return Number.POSITIVE_INFINITY;
  }
}
