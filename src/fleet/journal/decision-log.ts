/** The decisions of the fleet: which are there, which of them this node has applied, and the next one. */
import type { Clock } from '../../clock.ts';
import type { Logger } from '../../telemetry/log.ts';
import type { Metrics } from '../../telemetry/metrics.ts';
import { EngineError } from '../engines/errors.ts';
import { journalName } from '../objects/names.ts';
import type { FleetSecret } from '../records/fleet-secret.ts';
import { readRecord, writeRecord } from '../records/signed-record.ts';
import type { AppliedEntries, RemovedHere } from './applied-entries.ts';
import type { Decisions } from './decisions.ts';
import { type Decision, decision, type NewDecision } from './entries.ts';
import type { JournalState } from './journal-state.ts';
import type { Removals } from './removals.ts';

export interface DecisionLogContext {
  state: JournalState;
  decisions: Decisions;
  entries: AppliedEntries;
  removals: Removals;
  secret: FleetSecret;
  onSealed: (sealed: boolean) => Promise<void>;
  clock: Clock;
  logger: Logger;
  metrics: Metrics;
}

const KEPT_MS = 30 * 24 * 3_600_000;
const WRITE_TRIES = 20;
const READS_AT_A_TIME = 16;

/** Its methods must not run at the same time. */
export class DecisionLog {
  readonly #context: DecisionLogContext;
  /** Of the decisions that are in the store: what they say, as it is written there, and when they were made. */
  readonly #known = new Map<number, { record: string; at: number | undefined }>();
  /** Numbers that are taken by what nobody of this fleet has written. */
  #forged: ReadonlySet<number> = new Set();
  #lastSeal = 0;

  constructor(context: DecisionLogContext) {
    this.#context = context;
    context.removals.applied = context.state.now.applied;
  }

  /** All decisions up to this number were applied. */
  get applied(): number {
    return this.#context.state.now.applied;
  }

  /**
   * Reads the decisions in the store, and applies what this node has missed. Without those that are too old to be there,
   * it compares what this node has with the store.
   *
   * @param now the time by the fleet's clock; milliseconds since the epoch @throws {EngineError | StorageError}
   */
  async look(now: number): Promise<void> {
    const { decisions, entries, logger, metrics } = this.#context;
    const listed = await decisions.list();
    const there = new Set(listed);
    const forged = new Set<number>();
    for (const [number, record] of await this.#read(listed))
      if (!(await this.take(number, record))) {
        forged.add(number);
        metrics.fleetRecordsRefused.inc({ engine: 'objects' });
        logger.warn(
          { object: journalName(number) },
          'a record in the object store is not signed by this fleet, and is ignored',
        );
      }
    this.#forged = forged;
    const highest = Math.max(this.applied, ...this.#known.keys());
    const missed = Array.from({ length: highest - this.applied }, (_, at) => this.applied + 1 + at);
    if (missed.some((number) => !there.has(number) && !this.#known.has(number))) await entries.compare();
    await this.#setApplied(highest);
    await this.#expire(there, now);
  }

  /**
   * Writes a decision, and applies it here.
   *
   * @param look called before each try @param onWritten called before it is applied
   * @throws {EngineError} it was not written @throws {StorageError} it was, and is not applied yet
   */
  async make(
    decided: NewDecision,
    now: number,
    look: () => Promise<void>,
    onWritten: (name: string, record: string) => Promise<void>,
  ): Promise<RemovedHere | undefined> {
    const { decisions, secret } = this.#context;
    for (let tries = 0; tries < WRITE_TRIES; tries += 1) {
      await look(); // numbers go on behind the last one in the store, whatever the coordinator has lost
      const number = this.applied + 1;
      const name = journalName(number);
      const record = (await writeRecord(secret, name, { ...decided, at: now })).toString();
      if (!(await decisions.write(number, record, this.#forged.has(number)))) continue;
      await onWritten(name, record);
      const removed = await this.#apply(number, record, { ...decided, at: now });
      await this.#setApplied(number);
      return removed;
    }
    throw new EngineError('unavailable', 'many nodes write to the journal at the same time: try again');
  }

  /**
   * Applies a decision, unless this node did so before.
   *
   * @returns false if nobody of this fleet has written it @throws {StorageError}
   */
  async take(number: number, record: string): Promise<boolean> {
    const made = await readRecord(this.#context.secret, journalName(number), record, decision);
    if (made === undefined) return false;
    await this.#apply(number, record, made);
    if (number === this.applied + 1) await this.#setApplied(number);
    return true;
  }

  async #read(listed: readonly number[]): Promise<[number, string][]> {
    const records = new Map<number, string>();
    const left = listed.values();
    const lane = async () => {
      for (const number of left) {
        const record = this.#known.has(number) ? undefined : await this.#context.decisions.read(number);
        if (record !== undefined) records.set(number, record);
      }
    };
    await Promise.all(Array.from({ length: READS_AT_A_TIME }, lane));
    return [...records].toSorted(([a], [b]) => a - b);
  }

  /** What was applied before the last stop still says which records count no more. */
  async #apply(number: number, record: string, made: Decision): Promise<RemovedHere | undefined> {
    const { removals, entries, state, onSealed } = this.#context;
    if (this.#known.get(number)?.record === record) return undefined;
    // Two nodes may have written at the same time into a store that ignores conditions.
    const isNew = number > this.applied || this.#known.has(number);
    let removed: RemovedHere | undefined;
    if (made.kind === 'removal') {
      removals.add(number, made);
      if (isNew) removed = await entries.remove(made);
    }
    if (made.kind === 'seal' && number >= this.#lastSeal) {
      this.#lastSeal = number;
      if (isNew) {
        await state.set({ sealed: made.sealed });
        await onSealed(made.sealed);
      }
    }
    this.#known.set(number, { record, at: made.at });
    return removed;
  }

  async #setApplied(number: number): Promise<void> {
    const { state, removals, metrics } = this.#context;
    if (number !== this.applied) await state.set({ applied: number });
    removals.applied = number;
    metrics.fleetJournalApplied.set(number);
  }

  /** The last number stays, so that numbers go on, and the seal, so that a new node learns of it. */
  async #expire(there: Set<number>, now: number): Promise<void> {
    const { decisions, removals, state } = this.#context;
    const isKept = (number: number) =>
      number === this.applied || (state.now.sealed && number === this.#lastSeal);
    for (const [number, { at = now }] of this.#known) {
      if (there.has(number) && now - at > KEPT_MS && !isKept(number)) {
        await decisions.delete(number);
        there.delete(number);
      }
      if (there.has(number)) continue;
      this.#known.delete(number);
      removals.forget(number);
    }
  }
}
