/**
 * The nodes of a fleet, as they say of themselves. What a node says is signed, so that nobody else can lead others to an
 * address.
 */
import * as z from 'zod';
import type { Clock } from '../../clock.ts';
import type { Logger } from '../../telemetry/log.ts';
import type { Metrics } from '../../telemetry/metrics.ts';
import type { Coordinator } from '../coordinator/coordinator.ts';
import type { Engine } from '../engines/engine.ts';
import { EngineError } from '../engines/errors.ts';
import type { FleetSecret } from '../records/fleet-secret.ts';
import { readRecord, writeRecord } from '../records/signed-record.ts';

export const memberRecord = z.object({ id: z.string(), address: z.url(), version: z.string() });

export type Member = z.output<typeof memberRecord>;

export interface MembersContext {
  /** This node: its id is another one after each start. */
  own: Member;
  coordinator: Coordinator;
  engine: Engine;
  secret: FleetSecret;
  clock: Clock;
  logger: Logger;
  metrics: Metrics;
}

const CARD = 'member';
const COMMAND_MS = 250;
const BEAT_MS = 5_000;
/** Who has said nothing for this long is not a member. */
const GONE_MS = 20_000;
/** A clock that is further off is told of. */
const WARN_OFFSET_MS = 30_000;

export class Members implements Disposable {
  readonly #context: MembersContext;
  readonly #timer: Disposable;
  #all: readonly Member[] = [];
  #offsetMs = 0;
  #toldOffset = false;

  constructor(context: MembersContext) {
    this.#context = context;
    this.#timer = context.clock.every(BEAT_MS, () => void this.beat());
  }

  get own(): Member {
    return this.#context.own;
  }

  /** Those that were there at the last beat, this node too. */
  get all(): readonly Member[] {
    return this.#all;
  }

  /** The coordinator's time, as far as it is known: milliseconds since the epoch. */
  now(): number {
    return this.#context.clock.now() + this.#offsetMs;
  }

  /** What this node says of itself, signed. The same text each time. */
  async ownCard(): Promise<string> {
    return (await writeRecord(this.#context.secret, CARD, this.#context.own)).toString();
  }

  /** @returns undefined if no node of this fleet has said that */
  async read(card: string): Promise<Member | undefined> {
    const { secret, metrics } = this.#context;
    const member = await readRecord(secret, CARD, card, memberRecord);
    if (member === undefined) metrics.fleetRecordsRefused.inc({ engine: 'coordinator' });
    return member;
  }

  /** Says that this node is there, and learns who else is. Never rejects. */
  async beat(): Promise<void> {
    const { own, coordinator, engine, clock, metrics } = this.#context;
    try {
      const card = await this.ownCard();
      const before = clock.now();
      const { members, now } = await engine.ask('beat', COMMAND_MS, () =>
        coordinator.members.beat(own.id, card, GONE_MS),
      );
      this.#setOffset(now - (before + clock.now()) / 2);
      const read = await Promise.all(members.map((one) => this.read(one)));
      this.#all = read.filter((one) => one !== undefined).toSorted((a, b) => a.id.localeCompare(b.id));
      metrics.fleetMembers.set({ engine: 'coordinator' }, this.#all.length);
    } catch (error) {
      if (!(error instanceof EngineError)) throw error; // the engine tells of it
    }
  }

  [Symbol.dispose](): void {
    this.#timer[Symbol.dispose]();
  }

  #setOffset(ms: number): void {
    this.#offsetMs = ms;
    this.#context.metrics.fleetClockOffset.set({ engine: 'coordinator' }, ms / 1000);
    const isFar = Math.abs(ms) > WARN_OFFSET_MS;
    if (isFar && !this.#toldOffset)
      this.#context.logger.warn(
        { offsetSeconds: Math.round(ms / 1000) },
        "this machine's clock differs from that of the fleet: set it, by NTP for example",
      );
    this.#toldOffset = isFar;
  }
}
