/** The part of the journal that lasts: each decision is an object of the store, and its name has its number. */
import { Readable } from 'node:stream';
import type { Clock } from '../../clock.ts';
import type { Engine } from '../engines/engine.ts';
import { JOURNAL_PREFIX, journalName, journalNumber } from '../objects/names.ts';
import { readObject } from '../objects/object-bytes.ts';
import type { ObjectStore } from '../objects/object-store.ts';
import { RECORD_MAX_BYTES } from '../records/signed-record.ts';

export interface DecisionsContext {
  objects: ObjectStore;
  engine: Engine;
  clock: Clock;
}

const REQUEST_MS = 2_000;
const LIST_MS = 10_000;

/** All methods throw {EngineError}. */
export class Decisions {
  readonly #context: DecisionsContext;

  constructor(context: DecisionsContext) {
    this.#context = context;
  }

  /** The numbers that are there, in order. */
  async list(): Promise<number[]> {
    const { objects, engine } = this.#context;
    const listed: number[] = [];
    await engine.ask('list', LIST_MS, async (signal) => {
      for await (const page of objects.list(JOURNAL_PREFIX, signal))
        for (const { name } of page) {
          const number = journalNumber(name);
          if (number !== undefined) listed.push(number);
        }
    });
    return listed.toSorted((a, b) => a - b);
  }

  read(number: number): Promise<string | undefined> {
    const limits = { mostBytes: RECORD_MAX_BYTES, withinMs: REQUEST_MS };
    return readObject(this.#context, journalName(number), limits);
  }

  /**
   * @param isForged what has the number was written by nobody of this fleet
   * @returns false if another decision has the number
   */
  async write(number: number, record: string, isForged: boolean): Promise<boolean> {
    const { objects, engine } = this.#context;
    const bytes = Buffer.from(record);
    const content = {
      size: bytes.length,
      open: () => Readable.from([bytes], { objectMode: false }),
    };
    const written = await engine.ask('put', REQUEST_MS, (signal) =>
      objects.put(journalName(number), content, { ...(isForged ? {} : { onlyIf: 'absent' }), signal }),
    );
    // Two nodes may write at the same time into a store that ignores conditions.
    return written !== 'present' && (await this.read(number)) === record;
  }

  async delete(number: number): Promise<void> {
    const { objects, engine } = this.#context;
    await engine.ask('delete', REQUEST_MS, (signal) => objects.delete(journalName(number), signal));
  }
}
