/**
 * What all nodes must know and may miss: removals, seals, moved tags. Each node applies what it missed before it brings
 * anything to the store or counts as a member.
 *
 * Decisions (removals and seals) have numbers, which go on by one, and are objects of the store. The coordinator tells them
 * within a second, and moved tags as well; it may lose them. A node that finds a number missing reads the store.
 */
import type { IndexStore } from '../../cache/index/index-store.ts';
import { StorageError } from '../../cache/store/errors.ts';
import type { Clock } from '../../clock.ts';
import type { Logger } from '../../telemetry/log.ts';
import type { Metrics } from '../../telemetry/metrics.ts';
import type { JournalPart } from '../coordinator/coordinator.ts';
import { EngineError } from '../engines/errors.ts';
import { journalNumber } from '../objects/names.ts';
import type { FleetSecret } from '../records/fleet-secret.ts';
import { readRecord, writeRecord } from '../records/signed-record.ts';
import type { AppliedEntries, RemovedHere } from './applied-entries.ts';
import { DecisionLog } from './decision-log.ts';
import type { Decisions } from './decisions.ts';
import { MOVED_TAG, type MovedTag, movedTag, type NewDecision } from './entries.ts';
import { JournalState } from './journal-state.ts';
import type { Removals } from './removals.ts';

/** The journal as the coordinator tells it. All methods but `now` throw {EngineError}. */
export interface ToldJournal {
  append(text: string): Promise<void>;
  read(after: string): Promise<JournalPart>;
  /** The coordinator's time, as far as it is known: milliseconds since the epoch. */
  now(): number;
}

export interface JournalContext {
  /** This node's own. */
  index: IndexStore;
  decisions: Decisions;
  entries: AppliedEntries;
  removals: Removals;
  /** Undefined: there is no coordinator, and the store is looked at once a minute. */
  told: ToldJournal | undefined;
  secret: FleetSecret;
  /** Must not reject. */
  onSealed: (sealed: boolean) => Promise<void>;
  clock: Clock;
  logger: Logger;
  metrics: Metrics;
}

const POLL_MS = 1_000;
const LOOK_MS = 60_000;
/** While the coordinator tells of all, the store is looked at once in so many times: a node may have died before it told. */
const LOOK_RARELY = 10;
/** A node that has looked within this time may bring content to the store. */
const CURRENT_MS = LOOK_MS + 5_000;

export class Journal {
  readonly #context: JournalContext;
  readonly #state: JournalState;
  readonly #log: DecisionLog;
  readonly #timers: Disposable[] = [];
  /** What the coordinator has not been told. */
  readonly #untold: string[] = [];
  /** Where the coordinator's journal is read on. */
  #position = '';
  #isTold = false;
  /** Decisions may be missing. */
  #mustLook = true;
  /** When this node last knew of all; milliseconds since the epoch. */
  #currentAt = Number.NEGATIVE_INFINITY;
  #rounds = 0;
  #turn: Promise<unknown> = Promise.resolve();
  #polling: Promise<void> | undefined;
  #complained = false;

  private constructor(context: JournalContext, state: JournalState) {
    this.#context = context;
    this.#state = state;
    this.#log = new DecisionLog({ ...context, state });
  }

  /** Applies what this node has missed, as far as the engines answer, and goes on applying. @throws {StorageError} */
  static async open(context: JournalContext): Promise<Journal> {
    const journal = new Journal(context, await JournalState.load(context.index));
    await journal.#start();
    return journal;
  }

  /** Whether the fleet is sealed, as far as this node knows. */
  get isSealed(): boolean {
    return this.#state.now.sealed;
  }

  /** Applies what the coordinator tells. Never rejects because of an engine or the disk: the next round tries again. */
  async poll(): Promise<void> {
    this.#polling ??= this.#tolerate(() => this.#poll()).finally(() => {
      this.#polling = undefined;
    });
    await this.#polling;
  }

  /** Whether this node has applied all that the coordinator tells, so that it may count as a member. */
  async isMember(): Promise<boolean> {
    if (!this.#isTold) await this.poll();
    return this.#isTold;
  }

  /** Returns when this node knows of all decisions, so that it may write to the store. @throws {EngineError} it cannot know */
  async requireCurrent(): Promise<void> {
    if (this.#isCurrent) return;
    try {
      await this.#inTurn(async () => (this.#isCurrent ? undefined : this.#look()));
    } catch (error) {
      if (!(error instanceof StorageError)) throw error;
      const what = 'what was removed from the fleet could not be removed here';
      throw new EngineError('unavailable', what, { cause: error });
    }
  }

  /** The store is looked at before anything more is written to it. */
  doubt(): void {
    this.#mustLook = true;
  }

  /**
   * Makes a decision for all nodes, and applies it here.
   *
   * @returns what was removed here @throws {EngineError} it was not made @throws {StorageError} it was, and not applied here
   */
  async decide(decided: NewDecision): Promise<RemovedHere | undefined> {
    const onWritten = (name: string, record: string) => {
      this.#untold.push(`${name}\n${record}`);
      return this.#tell();
    };
    return this.#inTurn(() => this.#log.make(decided, this.#now(), () => this.#look(), onWritten));
  }

  /** Tells that a tag means something else than before. Never rejects: without a coordinator `tagTtl` is the bound. */
  async tellMoved(moved: MovedTag): Promise<void> {
    const { told, secret } = this.#context;
    const record = await writeRecord(secret, MOVED_TAG, moved);
    await ignoringEngines(async () => told?.append(`${MOVED_TAG}\n${record.toString()}`));
  }

  /** Idempotent. */
  async close(): Promise<void> {
    for (const timer of this.#timers) timer[Symbol.dispose]();
    await this.#turn;
  }

  get #isCurrent(): boolean {
    return !this.#mustLook && Math.abs(this.#context.clock.now() - this.#currentAt) < CURRENT_MS;
  }

  async #start(): Promise<void> {
    const { clock, told, onSealed } = this.#context;
    const { sealed, position } = this.#state.now;
    if (sealed) await onSealed(true);
    await this.#tolerate(() => this.#look());
    // Without the store, all that the coordinator still tells must be read again: which records count no more.
    if (!this.#mustLook) this.#position = position;
    this.#timers.push(clock.every(LOOK_MS, () => void this.#lookInTurn()));
    if (told === undefined) return;
    // The first time is when this node wants to be a member.
    this.#timers.push(clock.every(POLL_MS, () => void this.poll()));
  }

  async #lookInTurn(): Promise<void> {
    this.#rounds += 1;
    if (this.#isTold && this.#rounds % LOOK_RARELY !== 0) return;
    await this.#tolerate(() => this.#look());
  }

  /** Reads what the coordinator tells, to its end. */
  async #poll(): Promise<void> {
    const { told, clock } = this.#context;
    if (told === undefined) return;
    this.#isTold = await ignoringEngines(async () => {
      for (let isEnd = false; !isEnd; ) {
        const { entries, position, isWhole } = await told.read(this.#position);
        if (!isWhole) this.#mustLook = true;
        for (const { text, ageMs } of entries) await this.#take(text, ageMs, told);
        if (position !== this.#state.now.position) await this.#state.set({ position });
        this.#position = position;
        isEnd = entries.length === 0;
      }
    });
    if (!this.#isTold) return;
    await this.#tell();
    if (this.#mustLook) await this.#look();
    else this.#currentAt = clock.now();
  }

  async #take(text: string, ageMs: number, told: ToldJournal): Promise<void> {
    const { secret, entries } = this.#context;
    const end = text.indexOf('\n');
    const [name, record] = [text.slice(0, end), text.slice(end + 1)];
    if (name === MOVED_TAG) {
      const moved = await readRecord(secret, MOVED_TAG, record, movedTag);
      if (moved === undefined) this.#refuse(name);
      // Told again later by somebody who kept it, it is as old as when upstream said so.
      else await entries.move(moved, Math.max(ageMs, told.now() - moved.at, 0));
      return;
    }
    const number = journalNumber(name);
    if (number === undefined || !(await this.#log.take(number, record))) return this.#refuse(name);
    if (number > this.#log.applied) this.#mustLook = true; // one before it is missing
  }

  async #look(): Promise<void> {
    await this.#log.look(this.#now());
    this.#mustLook = false;
    this.#currentAt = this.#context.clock.now();
  }

  /** By the fleet's clock. */
  #now(): number {
    const { told, clock } = this.#context;
    return told?.now() ?? clock.now();
  }

  async #tell(): Promise<void> {
    const { told } = this.#context;
    if (told === undefined) this.#untold.length = 0;
    await ignoringEngines(async () => {
      for (let text = this.#untold[0]; text !== undefined; text = this.#untold[0]) {
        await told?.append(text);
        this.#untold.shift();
      }
    });
  }

  #refuse(name: string): void {
    const { metrics, logger } = this.#context;
    metrics.fleetRecordsRefused.inc({ engine: 'coordinator' });
    logger.warn({ entry: name }, 'the coordinator told what is not signed by this fleet: it is ignored');
  }

  /** Does it when what is under way has ended. The engines tell of their failures themselves. */
  async #tolerate(step: () => Promise<void>): Promise<void> {
    try {
      await this.#inTurn(step);
      this.#complained = false;
    } catch (error) {
      if (error instanceof EngineError) return;
      if (!(error instanceof StorageError)) throw error;
      if (!this.#complained)
        this.#context.logger.error(
          { err: error },
          'what was removed from the fleet could not be removed here: it is tried again',
        );
      this.#complained = true;
    }
  }

  #inTurn<T>(step: () => Promise<T>): Promise<T> {
    const done = this.#turn.then(step);
    this.#turn = done.catch(() => undefined); // the caller gets the error
    return done;
  }
}

/** @returns whether the engine did it */
async function ignoringEngines(step: () => Promise<void>): Promise<boolean> {
  try {
    await step();
    return true;
  } catch (error) {
    if (error instanceof EngineError) return false;
    throw error;
  }
}
