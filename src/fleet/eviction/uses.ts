/**
 * Tells the fleet what this node has used of the content that all share.
 *
 * Hits on the local disk ask nobody: they are told in batches, each second one batch of the digests whose records lie
 * together. So every use is told within {@link USE_GROUPS} seconds, and those of a digest that is used all the time once
 * in as many. What is read from the store or written to it is told at once.
 */
import type { Clock } from '../../clock.ts';
import type { Digest } from '../../oci/digest.ts';
import { type Coordinator, USE_GROUPS, useGroup } from '../coordinator/coordinator.ts';
import type { Engine } from '../engines/engine.ts';
import { EngineError } from '../engines/errors.ts';

export interface UsesContext {
  coordinator: Coordinator;
  engine: Engine;
  /** Called with what this node has used after it had left the store. */
  onGone: (digests: readonly Digest[]) => void;
  clock: Clock;
}

const COMMAND_MS = 250;
const TELL_EVERY_MS = 1_000;
const MOST_AT_A_TIME = 5_000;
/** What is used beyond that is not told, until it is used again. */
const MOST_PENDING = USE_GROUPS * MOST_AT_A_TIME;

export class Uses implements Disposable {
  readonly #context: UsesContext;
  readonly #pending = Array.from({ length: USE_GROUPS }, () => new Set<Digest>());
  readonly #timer: Disposable;
  #pendingCount = 0;
  #nextGroup = 0;

  constructor(context: UsesContext) {
    this.#context = context;
    this.#timer = context.clock.every(TELL_EVERY_MS, () => void this.#tell());
  }

  /** Notes what was used, to be told later. */
  note(digests: Iterable<Digest>): void {
    for (const digest of digests) {
      if (this.#pendingCount >= MOST_PENDING) return;
      const group = this.#pending[useGroup(digest)];
      if (group === undefined || group.has(digest)) continue;
      group.add(digest);
      this.#pendingCount += 1;
    }
  }

  /** Tells at once that a digest is read from the store: if it is leaving, it stays. */
  read(digest: Digest): void {
    void this.#use([digest]);
  }

  /**
   * Tells that a digest is about to be written to the store: if it is leaving, it stays. Never rejects.
   *
   * @returns false: it is being removed right now, and would be again after it was written
   */
  async revive(digest: Digest): Promise<boolean> {
    const { coordinator, engine } = this.#context;
    try {
      return await engine.ask('revive', COMMAND_MS, () => coordinator.uses.revive(digest));
    } catch (error) {
      if (error instanceof EngineError) return true; // what is missing there is found by the next node that reads it
      throw error;
    }
  }

  [Symbol.dispose](): void {
    this.#timer[Symbol.dispose]();
  }

  async #tell(): Promise<void> {
    const digests = this.#takeNext();
    if (digests.length > 0) await this.#use(digests);
  }

  /** One group after the other, so that none waits for ever. */
  #takeNext(): Digest[] {
    for (let tries = 0; tries < USE_GROUPS; tries += 1) {
      const group = this.#pending[this.#nextGroup];
      this.#nextGroup = (this.#nextGroup + 1) % USE_GROUPS;
      const taken = [...(group ?? [])].slice(0, MOST_AT_A_TIME);
      if (taken.length === 0) continue;
      for (const digest of taken) group?.delete(digest);
      this.#pendingCount -= taken.length;
      return taken;
    }
    return [];
  }

  /** Never rejects. */
  async #use(digests: readonly Digest[]): Promise<void> {
    const { coordinator, engine, onGone } = this.#context;
    try {
      const gone = await engine.ask('use', COMMAND_MS, () => coordinator.uses.use(digests));
      if (gone.length > 0) onGone(gone);
    } catch (error) {
      if (!(error instanceof EngineError)) throw error;
      this.note(digests);
    }
  }
}
