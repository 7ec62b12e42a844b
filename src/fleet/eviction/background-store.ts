/** The object store as eviction asks it: in the background, patient, and with an error for what it does not get. */
import { buffer } from 'node:stream/consumers';
import type { Clock } from '../../clock.ts';
import type { Engine } from '../engines/engine.ts';
import { EngineError } from '../engines/errors.ts';
import { wholeBody } from '../engines/whole-body.ts';
import type { ListedObject, ObjectStore, Removal } from '../objects/object-store.ts';

const ANSWER_MS = 10_000;
/**
 * A removal is refused by the store so long after it was prepared. The SDK takes the store's clock for ours while they
 * differ by less than five minutes.
 */
const REMOVAL_LASTS_MS = 6 * 60_000;

export class BackgroundStore {
  readonly #objects: ObjectStore;
  readonly #engine: Engine;
  readonly #clock: Clock;

  constructor({ objects, engine, clock }: { objects: ObjectStore; engine: Engine; clock: Clock }) {
    this.#objects = objects;
    this.#engine = engine;
    this.#clock = clock;
  }

  /** @throws {EngineError} */
  async *list(prefix: string, signal: AbortSignal): AsyncGenerator<ListedObject[]> {
    const over = new AbortController();
    const pages = this.#objects.list(prefix, AbortSignal.any([signal, over.signal]))[Symbol.asyncIterator]();
    try {
      for (;;) {
        const page = await this.#engine.ask('list', ANSWER_MS, () => pages.next());
        if (page.done === true) return;
        yield page.value;
      }
    } finally {
      over.abort();
    }
  }

  /** A small object. Undefined: it is gone, or not small. @throws {EngineError} */
  async read(name: string, mostBytes: number, closing: AbortSignal): Promise<Buffer | undefined> {
    const found = await this.#engine.ask('get', ANSWER_MS, (deadline) =>
      this.#objects.get(name, { signal: AbortSignal.any([deadline, closing]) }),
    );
    if (found === undefined) return undefined;
    if (found.size <= mostBytes)
      return buffer(wholeBody('the object store', found.body, found.size, this.#clock));
    found.body.on('error', () => undefined).destroy();
    return undefined;
  }

  /** See {@link ObjectStore.prepareDelete}. @throws {EngineError} */
  async prepareRemoval(
    { name, etag }: { name: string; etag?: string },
    closing: AbortSignal,
  ): Promise<() => Promise<void>> {
    const condition = etag === undefined || etag === '' ? {} : { ifMatch: etag };
    const options = { ...condition, lastsMs: REMOVAL_LASTS_MS, signal: closing };
    const remove: Removal = await this.#objects.prepareDelete(name, options);
    return async () => {
      await this.#engine.ask('delete', ANSWER_MS, (deadline) => remove(AbortSignal.any([deadline, closing])));
    };
  }
}

/** Whether the store has answered, so that nothing of the request is under way any more. */
export function isAnswer(error: unknown): boolean {
  return error instanceof EngineError && (error.code === 'denied' || error.code === 'invalid-response');
}
