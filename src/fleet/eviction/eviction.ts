/**
 * Keeps the object store within its size: one node of the fleet at a time looks at it, and removes what was used least
 * recently on any node.
 *
 * The lease of a look lasts until the next one is due, and is not given back: it says that somebody has looked. Two nodes
 * that look at the same time, because one of them was stopped for a while, do no harm: what leaves is decided by the
 * coordinator, digest by digest.
 */
import { randomUUID } from 'node:crypto';
import * as z from 'zod';
import type { Coordinator } from '../coordinator/coordinator.ts';
import type { EngineContext } from '../engines/engine.ts';
import { type Engine } from '../engines/engine.ts';
import { EngineError } from '../engines/errors.ts';
import type { ObjectStore } from '../objects/object-store.ts';
import type { FleetSecret } from '../records/fleet-secret.ts';
import { BackgroundStore } from './background-store.ts';
import { look } from './look.ts';
import { StoreRecords } from './store-records.ts';

export interface EvictionContext extends EngineContext {
  objects: ObjectStore;
  /** That of the object store. */
  storeEngine: Engine;
  coordinator: Coordinator;
  /** That of the coordinator. */
  coordinatorEngine: Engine;
  secret: FleetSecret;
  /** Bytes that the store should hold at most. */
  maxBytes: number;
  /** What is removed could not be fetched again. */
  isSealed: () => boolean;
}

const looked = z.object({ bytes: z.number(), objects: z.number(), leavingBytes: z.number() });

/** What the store held at the last look of any node. */
export type StoreCondition = z.output<typeof looked> & { maxBytes: number };

/** Longer than what leaves is left alone, so that the next look can remove what this one chose. */
const LOOK_EVERY_MS = 20 * 60_000;
/** How often a node asks whether it is its turn. */
const ASK_EVERY_MS = 60_000;
const COMMAND_MS = 250;
const LEASE = 'eviction';
const TOLD_FOR_MS = 3 * LOOK_EVERY_MS;

export class Eviction {
  readonly #context: EvictionContext;
  readonly #store: BackgroundStore;
  readonly #records: StoreRecords;
  readonly #closing = new AbortController();
  #timer: Disposable | undefined;
  #running: Promise<void> | undefined;
  #condition: StoreCondition | undefined;

  constructor(context: EvictionContext) {
    this.#context = context;
    this.#store = new BackgroundStore({ ...context, engine: context.storeEngine });
    this.#records = new StoreRecords({ ...context, store: this.#store });
  }

  /** Undefined: no node has told yet. */
  get condition(): StoreCondition | undefined {
    return this.#condition;
  }

  /** Looks now, and from now on each time that it is this node's turn. */
  start(): void {
    this.look();
    this.#timer = this.#context.clock.every(ASK_EVERY_MS, () => this.look());
  }

  /** Resolves when no look runs. */
  async idle(): Promise<void> {
    await this.#running;
  }

  /** Ends a look that runs. Idempotent. */
  async close(): Promise<void> {
    this.#timer?.[Symbol.dispose]();
    this.#closing.abort(new EngineError('unavailable', 'the mirror is shutting down'));
    await this.idle();
  }

  /** Looks at the store, if it is this node's turn. */
  look(): void {
    this.#running ??= this.#lookInTurn().finally(() => {
      this.#running = undefined;
    });
  }

  /** Never rejects. */
  async #lookInTurn(): Promise<void> {
    const { coordinator, coordinatorEngine, storeEngine, isSealed, logger } = this.#context;
    if (storeEngine.trouble !== undefined || coordinatorEngine.trouble !== undefined) return;
    try {
      if (isSealed() || !(await this.#isOurTurn())) {
        const told = await coordinatorEngine.ask('noted', COMMAND_MS, () =>
          coordinator.notes.find(LEASE, ''),
        );
        const parsed = looked.safeParse(JSON.parse(told?.text ?? 'null'));
        if (parsed.success) this.#take(parsed.data);
        return;
      }
      const found = await look(this.#lookContext(), this.#closing.signal);
      this.#take(found);
      const text = JSON.stringify(found);
      await coordinatorEngine.ask('note', COMMAND_MS, () =>
        coordinator.notes.keep(LEASE, new Map([['', text]]), TOLD_FOR_MS),
      );
    } catch (error) {
      if (this.#closing.signal.aborted) return;
      logger.warn(
        { err: error },
        'the object store could not be looked through: what is not used any more stays until the next look',
      );
    }
  }

  /** A name of its own for each look: a node whose last look has just begun gets no second one. */
  async #isOurTurn(): Promise<boolean> {
    const { coordinator, coordinatorEngine } = this.#context;
    const claim = () => coordinator.leases.claim(LEASE, randomUUID(), { forMs: LOOK_EVERY_MS });
    return (await coordinatorEngine.ask('claim', COMMAND_MS, claim)).holder === undefined;
  }

  #lookContext(): Parameters<typeof look>[0] {
    const { coordinator, coordinatorEngine, maxBytes, metrics } = this.#context;
    return {
      ...{ store: this.#store, records: this.#records },
      ...{ coordinator, engine: coordinatorEngine, maxBytes },
      onRemoved: (bytes) => {
        metrics.fleetEvictions.inc({ engine: 'objects' });
        metrics.fleetEvictedBytes.inc({ engine: 'objects' }, bytes);
      },
    };
  }

  #take(found: z.output<typeof looked>): void {
    const { metrics, maxBytes } = this.#context;
    this.#condition = { ...found, maxBytes };
    metrics.fleetObjectsBytes.set({ engine: 'objects' }, found.bytes);
    metrics.fleetObjects.set({ engine: 'objects' }, found.objects);
    metrics.fleetLeavingBytes.set({ engine: 'objects' }, found.leavingBytes);
  }
}
