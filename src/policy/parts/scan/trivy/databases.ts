/**
 * Keeps Trivy's databases up to date.
 *
 * They are fetched beside those in use, while others scan, and then take their place while nobody does: Trivy itself
 * would overwrite in place what a scan may be reading.
 */
import { copyFile, mkdir, rename, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../../../../clock.ts';
import type { Logger } from '../../../../telemetry/log.ts';
import type { Turns } from '../limits/turns.ts';
import { withLimit } from '../limits/with-limit.ts';
import { updateArguments } from './arguments.ts';
import type { RunFolder } from './folders.ts';
import type { TrivyRuns } from './runs.ts';

export interface DatabasesContext {
  clock: Clock;
  logger: Logger;
  runs: TrivyRuns;
  turns: Turns;
  /** Bytes that the files of an update may take. */
  maxBytes: () => Promise<number>;
  /** Aborts when the scanner is closed. */
  closing: AbortSignal;
}

/** How often Trivy is asked whether it wants newer ones. */
const AGAIN_MS = 3_600_000;
const RETRY_MS = 300_000;
/** The largest has some 800 MB. */
const LIMIT_MS = 900_000;

export type DatabaseKind = 'vulnerabilities' | 'java';

/** Where Trivy keeps them in its cache, beside `metadata.json`. */
const PLACES = {
  vulnerabilities: { folder: 'db', file: 'trivy.db' },
  java: { folder: 'java-db', file: 'trivy-java.db' },
} as const;

export class Databases {
  readonly #kinds: readonly DatabaseKind[];
  readonly #context: DatabasesContext;
  #due = Number.NEGATIVE_INFINITY;
  #running: Promise<void> | undefined;

  constructor(kinds: readonly DatabaseKind[], context: DatabasesContext) {
    this.#kinds = kinds;
    this.#context = context;
  }

  /**
   * Begins an update, if it is time.
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

  /** The update that runs now. Never rejects. */
  get running(): Promise<void> | undefined {
    return this.#running;
  }

  /** Never rejects. */
  async #update(): Promise<void> {
    for (const kind of this.#kinds) {
      const isDone = await this.#updateOne(kind);
      // Without the other one only images with jars fail, and it may be switched off.
      if (!isDone && kind === 'vulnerabilities') this.#due = this.#context.clock.now() + RETRY_MS;
    }
  }

  async #updateOne(kind: DatabaseKind): Promise<boolean> {
    const { runs, clock, logger, closing, turns, maxBytes } = this.#context;
    const { folder, file } = PLACES[kind];
    try {
      await using within = await runs.folders.makeRun();
      const fetched = join(within.path, 'cache');
      await this.#seed(kind, join(fetched, folder));
      const run = { args: updateArguments(kind, fetched), maxBytes: await maxBytes(), within };
      const { code, stderr } = await withLimit(LIMIT_MS, clock, closing, (signal) => runs.run(run, signal));
      if (code !== 0) {
        logger.warn({ kind, code, stderr }, 'the database of the scanner is not up to date');
        return false;
      }
      if (!(await hasBytes(join(fetched, folder, file)))) return true; // Trivy wanted no newer one
      using _ = await turns.takeAll(closing);
      await this.#replace(kind, join(fetched, folder), within);
      logger.info({ kind }, 'the scanner has a new database');
      return true;
    } catch (error) {
      if (!closing.aborted)
        logger.warn({ err: error, kind }, 'the database of the scanner is not up to date');
      return false;
    }
  }

  /** Tells Trivy how old the one in use is: it fetches none if that is new enough. Its file need only be there. */
  async #seed(kind: DatabaseKind, target: string): Promise<void> {
    const { folder, file } = PLACES[kind];
    const used = join(this.#context.runs.folders.cache, folder);
    await mkdir(target, { recursive: true });
    if (!(await hasBytes(join(used, file))) || !(await hasBytes(join(used, METADATA)))) return;
    await copyFile(join(used, METADATA), join(target, METADATA));
    await writeFile(join(target, file), '');
  }

  async #replace(kind: DatabaseKind, fetched: string, within: RunFolder): Promise<void> {
    const used = join(this.#context.runs.folders.cache, PLACES[kind].folder);
    await mkdir(used, { recursive: true });
    await rename(used, join(within.path, 'old'));
    await rename(fetched, used);
  }
}

const METADATA = 'metadata.json';

async function hasBytes(path: string): Promise<boolean> {
  const stats = await stat(path).catch(() => undefined);
  return stats !== undefined && stats.size > 0;
}
