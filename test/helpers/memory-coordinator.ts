/** A coordinator in memory, for tests of what nodes do with its answers. It keeps the same rules as the real one. */
import type {
  CoordinatedLeases,
  CoordinatedMembers,
  CoordinatedNotes,
  Coordinator,
  Lease,
} from '../../src/fleet/coordinator/coordinator.ts';

import { FakeClock } from './fake-clock.ts';

interface HeldLease extends Lease {
  /** The number that it was claimed instead of; undefined once it was renewed. */
  before: number | undefined;
  until: number;
}

export class MemoryCoordinator implements Coordinator {
  /** By name. */
  readonly held = new Map<string, HeldLease>();
  readonly kept = new Map<string, { text: string; at: number }>();
  /** All that was asked, in turn. */
  readonly commands: string[] = [];
  /** Milliseconds since the epoch. */
  now = FakeClock.START;
  #number = 0;
  readonly #lastsUntil = new Map<string, number>();
  readonly #members = new Map<string, { member: string; at: number }>();

  readonly leases: CoordinatedLeases = {
    claim: async (name, holder, { forMs, reached = 0, instead, also }) => {
      this.commands.push('claim');
      this.#number += 1;
      const take = (one: string): boolean => {
        const lease = this.#lease(one);
        const isBehind = instead !== undefined && lease?.before === instead && lease.reached < reached;
        const isOwn = lease?.holder === holder;
        if (lease !== undefined && !isOwn && lease.number !== instead && !isBehind) return false;
        const number = isOwn ? lease.number : this.#number;
        const before = isOwn ? lease.before : instead;
        this.held.set(one, { holder, number, before, reached, until: this.now + forMs });
        return true;
      };
      const hasBoth = take(name) && also !== undefined && take(also);
      const { number, reached: byte, holder: now } = this.#lease(name) ?? { number: 0, reached: 0, holder };
      return { lease: { holder: now, number, reached: byte }, hasBoth };
    },
    renew: async (leases, forMs) => {
      this.commands.push('renew');
      return [...leases].flatMap(([name, { number, reached }]) => {
        const lease = this.#lease(name);
        if (lease?.number !== number) return [name];
        Object.assign(lease, { reached, before: undefined, until: this.now + forMs });
        return [];
      });
    },
    release: async (leases) => {
      this.commands.push('release');
      for (const [name, number] of leases) if (this.held.get(name)?.number === number) this.held.delete(name);
    },
  };

  readonly notes: CoordinatedNotes = {
    keep: async (group, texts, forMs) => {
      this.commands.push('keep');
      this.#group(group);
      this.#lastsUntil.set(group, this.now + forMs);
      for (const [name, text] of texts) this.kept.set(`${group} ${name}`, { text, at: this.now });
    },
    find: async (group, name) => {
      this.commands.push('find');
      this.#group(group);
      const found = this.kept.get(`${group} ${name}`);
      return found && { text: found.text, ageMs: this.now - found.at };
    },
  };

  readonly members: CoordinatedMembers = {
    beat: async (id, member, forMs) => {
      this.commands.push('beat');
      this.#members.set(id, { member, at: this.now });
      for (const [other, { at }] of this.#members) if (at <= this.now - forMs) this.#members.delete(other);
      return { members: [...this.#members.values()].map((one) => one.member), now: this.now };
    },
  };

  async close(): Promise<void> {}

  #lease(name: string): HeldLease | undefined {
    const lease = this.held.get(name);
    return lease === undefined || lease.until <= this.now ? undefined : lease;
  }

  /** Forgets what is in a group that has run out. */
  #group(group: string): void {
    if ((this.#lastsUntil.get(group) ?? Number.POSITIVE_INFINITY) > this.now) return;
    for (const name of this.kept.keys()) if (name.startsWith(`${group} `)) this.kept.delete(name);
  }
}
