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
import { type MemberState, memberStateRecord, readRecord, writeRecord } from '../records/signed-record.ts';

const memberRecord = z.object({ id: z.string(), address: z.url(), version: z.string() });

export type Member = z.output<typeof memberRecord>;

/** How a member is, as the fleet sees it. */
export interface MemberCondition extends Member {
  isOwn: boolean;
  /** When it last said something, in ISO 8601; null: the coordinator does not answer. */
  lastSeen: string | null;
  /** Whether another member could reach it when it last called it back; null: none has called it yet. */
  reachable: boolean | null;
  /** Why it cannot be reached; null: it can, or it is not known. */
  trouble: string | null;
  /** Some of what it fetched when it last said something, and how many fetches there were in all. */
  fetching: string[];
  fetches: number;
}

export interface MembersContext {
  /** This node: its id is another one after each start. */
  own: Member;
  /** What this node is at. */
  state: () => MemberState;
  coordinator: Coordinator;
  engine: Engine;
  secret: FleetSecret;
  clock: Clock;
  logger: Logger;
  metrics: Metrics;
}

const CARD = 'member';
const COMMAND_MS = 250;
/** Who has said nothing for this long is not a member. */
const GONE_MS = 20_000;
/** A clock that is further off is told of. */
const WARN_OFFSET_MS = 30_000;

export class Members {
  readonly #context: MembersContext;
  #all: readonly Member[] = [];
  #offsetMs = 0;
  #toldOffset = false;

  constructor(context: MembersContext) {
    this.#context = context;
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

  /** Says that this node is there and what it is at, and learns who else is. Never rejects. */
  async beat(): Promise<void> {
    const { own, coordinator, engine, secret, clock, metrics } = this.#context;
    try {
      const card = await this.ownCard();
      const state = (await writeRecord(secret, stateName(own.id), this.#context.state())).toString();
      const before = clock.now();
      const { cards, now } = await engine.ask('beat', COMMAND_MS, () =>
        coordinator.members.beat(own.id, { card, state }, GONE_MS),
      );
      this.#setOffset(now - (before + clock.now()) / 2);
      const read = await Promise.all(cards.map((one) => this.read(one)));
      this.#all = read.filter((one) => one !== undefined).toSorted(byId);
      metrics.fleetMembers.set({ engine: 'coordinator' }, this.#all.length);
    } catch (error) {
      if (!(error instanceof EngineError)) throw error; // the engine tells of it
    }
  }

  /** How each member is, for operators. Never rejects: while the coordinator does not answer, it is who was there last. */
  async conditions(): Promise<MemberCondition[]> {
    const said = await this.#said();
    const troubles = new Map(
      said.flatMap(({ state }) =>
        state?.called === undefined ? [] : [[state.called.id, state.called.trouble]],
      ),
    );
    return said.map(({ member, state, lastSeen }) => {
      const trouble = troubles.get(member.id);
      return {
        ...member,
        ...{ isOwn: member.id === this.own.id, lastSeen },
        ...{ reachable: trouble === undefined ? null : trouble === null, trouble: trouble ?? null },
        ...{ fetching: state?.fetching ?? [], fetches: state?.fetches ?? 0 },
      };
    });
  }

  async #said(): Promise<{ member: Member; state?: MemberState | undefined; lastSeen: string | null }[]> {
    const { coordinator, engine, secret, clock } = this.#context;
    try {
      const all = await engine.ask('members', COMMAND_MS, () => coordinator.members.all());
      const read = await Promise.all(
        all.map(async ({ card, state: text, ageMs }) => {
          const member = await this.read(card);
          if (member === undefined) return undefined;
          const state = await readRecord(secret, stateName(member.id), text, memberStateRecord);
          return { member, state, lastSeen: new Date(clock.now() - ageMs).toISOString() };
        }),
      );
      return read.filter((one) => one !== undefined).toSorted((a, b) => byId(a.member, b.member));
    } catch (error) {
      if (!(error instanceof EngineError)) throw error;
      return this.#all.map((member) => ({ member, lastSeen: null }));
    }
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

/** Another member's state says nothing of this one. */
function stateName(id: string): string {
  return `member state ${id}`;
}

function byId(a: Member, b: Member): number {
  return a.id.localeCompare(b.id);
}
