/** How far this node is in the journal. It survives a restart. */
import * as z from 'zod';
import type { IndexStore } from '../../cache/index/index-store.ts';

const state = z.object({
  /** All decisions up to this number were applied. */
  applied: z.int().min(0),
  /** The fleet is sealed. */
  sealed: z.boolean(),
  /** Where the coordinator's journal is to be read on; empty: at its start. */
  position: z.string(),
});

export type State = z.output<typeof state>;

const NAME = 'journal';
const NEW: State = { applied: 0, sealed: false, position: '' };

export class JournalState {
  readonly #index: IndexStore;
  #now: State;

  private constructor(index: IndexStore, now: State) {
    this.#index = index;
    this.#now = now;
  }

  /** @param index this node's own @throws {StorageError} */
  static async load(index: IndexStore): Promise<JournalState> {
    const text = await index.object(NAME);
    const parsed = text === undefined ? undefined : state.safeParse(JSON.parse(text));
    return new JournalState(index, parsed?.success === true ? parsed.data : NEW);
  }

  get now(): Readonly<State> {
    return this.#now;
  }

  /** @throws {StorageError} */
  async set(changes: Partial<State>): Promise<void> {
    const next = { ...this.#now, ...changes };
    await this.#index.write([{ put: 'object', name: NAME, value: JSON.stringify(next) }]);
    this.#now = next;
  }
}
