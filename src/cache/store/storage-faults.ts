/** Reports disk failures. Counts every failure, and logs at most one line a minute for each kind. */
import { LRUCache } from 'lru-cache';
import type { Clock } from '../../clock.ts';
import type { Logger } from '../../telemetry/log.ts';
import type { Metrics } from '../../telemetry/metrics.ts';
import { StorageError } from './errors.ts';

const LOG_INTERVAL_MS = 60_000;

export class StorageFaults {
  readonly #metrics: Metrics;
  readonly #logger: Logger;
  readonly #clock: Clock;
  readonly #loggedAtByKind = new LRUCache<string, number>({ max: 100 });

  constructor(context: { metrics: Metrics; logger: Logger; clock: Clock }) {
    this.#metrics = context.metrics;
    this.#logger = context.logger;
    this.#clock = context.clock;
  }

  /**
   * Runs a step that the pull can do without.
   *
   * @returns undefined if the disk failed, which is then reported
   */
  async tolerate<T>(step: () => Promise<T>): Promise<T | undefined> {
    try {
      return await step();
    } catch (error) {
      if (!(error instanceof StorageError)) throw error;
      this.report(error);
      return undefined;
    }
  }

  /** Only counts. The caller logs. */
  count(operation: string, code: string): void {
    this.#metrics.storageErrors.inc({ operation, code });
  }

  report(error: StorageError): void {
    this.count(error.operation, error.errno);
    const kind = `${error.operation} ${error.errno}`;
    const now = this.#clock.now();
    const loggedAt = this.#loggedAtByKind.get(kind);
    if (loggedAt !== undefined && Math.abs(now - loggedAt) < LOG_INTERVAL_MS) return;
    this.#loggedAtByKind.set(kind, now);
    this.#logger.error(
      { err: error, operation: error.operation, code: error.errno },
      'storage error: pulls go on uncached',
    );
  }
}
