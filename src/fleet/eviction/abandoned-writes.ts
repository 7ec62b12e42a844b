/** Gives up writes in parts of nodes that have died meanwhile: their parts cost money, and are in no list of objects. */
import type { Engine, EngineContext } from '../engines/engine.ts';
import { EngineError } from '../engines/errors.ts';
import { contentDigest } from '../objects/names.ts';
import type { ObjectStore } from '../objects/object-store.ts';

const DAY_MS = 86_400_000;
const ANSWER_MS = 30_000;

export interface AbandonedWritesContext extends EngineContext {
  objects: ObjectStore;
  /** That of the object store. */
  engine: Engine;
}

export class AbandonedWrites implements Disposable {
  readonly #context: AbandonedWritesContext;
  #timer: Disposable | undefined;

  constructor(context: AbandonedWritesContext) {
    this.#context = context;
  }

  /** Looks now, and once a day. */
  start(): void {
    void this.#abort();
    this.#timer = this.#context.clock.every(DAY_MS, () => void this.#abort());
  }

  [Symbol.dispose](): void {
    this.#timer?.[Symbol.dispose]();
  }

  /** Only content is written in parts. Never rejects. */
  async #abort(): Promise<void> {
    const { objects, engine, logger } = this.#context;
    try {
      const count = await engine.ask('abort', ANSWER_MS, (signal) =>
        objects.abortWrites((name) => contentDigest(name) !== undefined, DAY_MS, signal),
      );
      if (count > 0)
        logger.info({ writes: count }, 'writes to the object store that nobody ended were given up');
    } catch (error) {
      if (!(error instanceof EngineError)) throw error;
      logger.warn({ err: error }, 'writes to the object store that nobody ended cannot be looked for');
    }
  }
}
