/**
 * When each robot token was last used, for `millpond token list`.
 *
 * Kept in a file of the server's own directory: the tokens file may be a read-only Kubernetes Secret, and several mirrors
 * may read the same one. So it says when a token was last used at this mirror. It is written once a minute at most, and
 * a crash loses that minute.
 */
import { readFile, rename, writeFile } from 'node:fs/promises';
import type { Clock } from '../../../clock.ts';
import { errnoOf, FileError } from '../../../files/errors.ts';
import type { Logger } from '../../../telemetry/log.ts';

/** Lies in the cache directory. */
export const LAST_USES_FILE = 'token-uses.json';
const WRITE_EVERY_MS = 60_000;

export class LastUses {
  readonly #path: string;
  readonly #context: { clock: Clock; logger: Logger };
  readonly #timeByName: Map<string, number>;
  readonly #timer: Disposable;
  #isWritten = true;
  /** One after the other. Never rejects. */
  #writing: Promise<void> = Promise.resolve();

  private constructor(
    path: string,
    context: { clock: Clock; logger: Logger },
    timeByName: Map<string, number>,
  ) {
    this.#path = path;
    this.#context = context;
    this.#timeByName = timeByName;
    this.#timer = context.clock.every(WRITE_EVERY_MS, () => this.#write());
  }

  /** Reads the file. A damaged file does not keep the mirror from starting. */
  static async open(path: string, context: { clock: Clock; logger: Logger }): Promise<LastUses> {
    let timeByName = new Map<string, number>();
    try {
      timeByName = await readLastUses(path);
    } catch (error) {
      context.logger.warn({ err: error }, 'last uses of robot tokens are lost and are counted anew');
    }
    return new LastUses(path, context, timeByName);
  }

  record(name: string): void {
    this.#timeByName.set(name, this.#context.clock.now());
    this.#isWritten = false;
  }

  /** Writes what is not written yet. */
  async close(): Promise<void> {
    this.#timer[Symbol.dispose]();
    this.#write();
    await this.#writing;
  }

  #write(): void {
    if (this.#isWritten) return;
    this.#isWritten = true;
    const uses = [...this.#timeByName].map(([name, time]) => [name, new Date(time).toISOString()]);
    const text = `${JSON.stringify(Object.fromEntries(uses), undefined, 2)}\n`;
    this.#writing = this.#writing.then(() => this.#replace(text));
  }

  async #replace(text: string): Promise<void> {
    try {
      const unfinished = `${this.#path}.new`;
      await writeFile(unfinished, text, { mode: 0o600, flush: true });
      await rename(unfinished, this.#path);
    } catch (error) {
      this.#isWritten = false; // tried again in a minute
      this.#context.logger.warn(
        { err: error, file: this.#path },
        'last uses of robot tokens cannot be written',
      );
    }
  }
}

/** Milliseconds since the epoch by token name; empty without a file. @throws {FileError} it cannot be read */
export async function readLastUses(path: string): Promise<Map<string, number>> {
  try {
    const uses: unknown = JSON.parse(await readFile(path, 'utf8'));
    if (typeof uses !== 'object' || uses === null) throw new Error('not an object');
    return new Map(Object.entries(uses).map(([name, time]) => [name, timeOf(time)]));
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === 'ENOENT') return new Map();
    const problem =
      errno === undefined ? 'is damaged: remove it to count last uses anew' : `cannot be read (${errno})`;
    throw new FileError(path, problem, { cause: error });
  }
}

function timeOf(value: unknown): number {
  const time = typeof value === 'string' ? Date.parse(value) : Number.NaN;
  if (Number.isNaN(time)) throw new Error('not a time');
  return time;
}
