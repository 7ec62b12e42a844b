/** Keeps Trivy's databases up to date, in runs of their own, during which nobody scans. */
import type { Clock } from '../../../../clock.ts';
import type { Logger } from '../../../../telemetry/log.ts';
import type { Turns } from '../limits/turns.ts';
import { withLimit } from '../limits/with-limit.ts';
import { updateArguments } from './arguments.ts';
import { bytesBelow } from './folders.ts';
import type { TrivyRuns } from './runs.ts';

export interface DatabasesContext {
  clock: Clock;
  logger: Logger;
  runs: TrivyRuns;
  /** Takes all places, because Trivy overwrites in place what a scan may be reading. */
  turns: Turns;
  maxDirectoryBytes: number;
  /** Aborts when the scanner is closed. */
  closing: AbortSignal;
}

/** How often Trivy is asked whether it wants newer ones. */
const AGAIN_MS = 3_600_000;
const RETRY_MS = 300_000;
/** The largest has some 800 MB. */
const LIMIT_MS = 900_000;

type Kind = 'vulnerabilities' | 'java';

export class Databases {
  readonly #kinds: readonly Kind[];
  readonly #context: DatabasesContext;
  #due = Number.NEGATIVE_INFINITY;
  #running: Promise<void> | undefined;

  constructor(kinds: readonly Kind[], context: DatabasesContext) {
    this.#kinds = kinds;
    this.#context = context;
  }

  /**
   * Begins an update, if it is time. Does not wait for it: whoever takes a place now comes after it.
   *
   * Failures are only logged. What is there is used then; a scanner that has no database at all is told by its health.
   */
  updateIfDue(): void {
    const now = this.#context.clock.now();
    if (now < this.#due || this.#running !== undefined) return;
    this.#due = now + AGAIN_MS;
    this.#running = this.#update().finally(() => {
      this.#running = undefined;
    });
  }

  /** Resolves when no update runs. */
  async settled(): Promise<void> {
    await this.#running;
  }

  /** Never rejects. */
  async #update(): Promise<void> {
    const { turns, closing, clock, logger } = this.#context;
    try {
      using _ = await turns.takeAll(closing);
      for (const kind of this.#kinds) {
        const isDone = await this.#fetch(kind);
        // Without the other one only images with jars fail, and it may be switched off.
        if (!isDone && kind === 'vulnerabilities') this.#due = clock.now() + RETRY_MS;
      }
    } catch (error) {
      if (!closing.aborted) logger.error({ err: error }, 'the databases of the scanner were not updated');
    }
  }

  async #fetch(kind: Kind): Promise<boolean> {
    const { runs, clock, logger, closing, maxDirectoryBytes } = this.#context;
    const args = updateArguments(kind, runs.folders.cache);
    try {
      const maxBytes = maxDirectoryBytes - (await bytesBelow(runs.folders.cache));
      const { code, stderr } = await withLimit(LIMIT_MS, clock, closing, (signal) =>
        runs.run({ args, maxBytes }, signal),
      );
      if (code !== 0) logger.warn({ kind, code, stderr }, 'the database of the scanner is not up to date');
      return code === 0;
    } catch (error) {
      closing.throwIfAborted();
      logger.warn({ err: error, kind }, 'the database of the scanner is not up to date');
      return false;
    }
  }
}
