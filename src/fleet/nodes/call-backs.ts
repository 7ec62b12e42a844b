/**
 * Calls other members back at the address that they advertise. One that cannot be reached there is named, because whoever
 * wants its bytes would ask it in vain.
 *
 * Each node calls the next one in the order of ids: each member is called once a minute, however many there are.
 */
import type { Clock } from '../../clock.ts';
import type { Logger } from '../../telemetry/log.ts';
import type { Metrics } from '../../telemetry/metrics.ts';
import type { Member, Members } from './members.ts';
import type { Peers } from './peers.ts';

export interface CallBacksContext {
  members: Pick<Members, 'own' | 'all'>;
  peers: Pick<Peers, 'call'>;
  clock: Clock;
  logger: Logger;
  metrics: Metrics;
}

export interface CallBack {
  /** The id of the member that was called. */
  id: string;
  /** Why it cannot be reached; null if it can. */
  trouble: string | null;
}

const AGAIN_MS = 60_000;

export class CallBacks {
  readonly #context: CallBacksContext;
  #last: (CallBack & { at: number }) | undefined;

  constructor(context: CallBacksContext) {
    this.#context = context;
  }

  /** How the last call ended. Undefined: this node is alone, or has just joined. */
  get last(): CallBack | undefined {
    return this.#last && { id: this.#last.id, trouble: this.#last.trouble };
  }

  /**
   * Calls the next member if it has just joined, could not be reached, or was called a minute ago. To be called at each
   * heartbeat. Never rejects.
   */
  async look(): Promise<void> {
    const { peers, clock, logger, metrics } = this.#context;
    const next = this.#next();
    if (next === undefined) return this.#forget();
    const { id, address } = next;
    const now = clock.now();
    const known = this.#last?.id === id ? this.#last : undefined;
    if (known?.trouble === null && Math.abs(now - known.at) < AGAIN_MS) return;
    const trouble = (await peers.call(next)) ?? null;
    this.#forget(); // its place in the order may be another member's now
    this.#last = { id, trouble, at: now };
    metrics.fleetMemberReachable.set({ address }, trouble === null ? 1 : 0);
    const told = { member: id, address, version: next.version };
    if (trouble !== null && (known === undefined || known.trouble === null))
      logger.warn(
        { ...told, trouble },
        'a node of the fleet cannot be reached by another one: check its fleet.advertise',
      );
    if (trouble === null && known !== undefined && known.trouble !== null)
      logger.info(told, 'the node of the fleet can be reached again');
  }

  /** Undefined: there is no other one. */
  #next(): Member | undefined {
    const { own, all } = this.#context.members;
    const at = all.findIndex(({ id }) => id === own.id);
    const next = all[(at + 1) % all.length];
    return at < 0 || next?.id === own.id ? undefined : next;
  }

  #forget(): void {
    this.#last = undefined;
    this.#context.metrics.fleetMemberReachable.reset();
  }
}
