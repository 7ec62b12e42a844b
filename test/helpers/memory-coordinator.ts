/** A coordinator in memory, for tests of what nodes do with its answers. What the real one does, test/e2e shows. */
import type {
  CoordinatedLeases,
  CoordinatedLimits,
  CoordinatedMembers,
  CoordinatedNotes,
  Coordinator,
} from '../../src/fleet/coordinator/coordinator.ts';

export class MemoryCoordinator implements Coordinator {
  /** Holders of leases, by name. */
  readonly held = new Map<string, string>();
  readonly kept = new Map<string, { text: string; at: number }>();
  readonly keptLimits = new Map<string, { name: string; text: string; at: number; forMs: number }>();
  /** All that was asked, in turn. */
  readonly commands: string[] = [];
  now = 0;
  readonly #members = new Map<string, string>();

  readonly leases: CoordinatedLeases = {
    claim: async (name, holder, { instead, also }) => {
      this.commands.push('claim');
      const isFree = (one: string) => [undefined, holder, instead].includes(this.held.get(one));
      if (!isFree(name)) return { holder: this.held.get(name), hasBoth: false };
      this.held.set(name, holder);
      const hasBoth = also !== undefined && isFree(also);
      if (hasBoth) this.held.set(also, holder);
      return { holder: undefined, hasBoth };
    },
    renew: async (names, holder) => {
      this.commands.push('renew');
      return names.filter((name) => this.held.get(name) !== holder);
    },
    release: async (names, holder) => {
      this.commands.push('release');
      for (const name of names) if (this.held.get(name) === holder) this.held.delete(name);
    },
  };

  readonly notes: CoordinatedNotes = {
    keep: async (group, texts) => {
      this.commands.push('keep');
      for (const [name, text] of texts) this.kept.set(`${group} ${name}`, { text, at: this.now });
    },
    find: async (group, name) => {
      this.commands.push('find');
      const found = this.kept.get(`${group} ${name}`);
      return found && { text: found.text, ageMs: this.now - found.at };
    },
  };

  readonly members: CoordinatedMembers = {
    beat: async (id, member) => {
      this.commands.push('beat');
      this.#members.set(id, member);
      return { members: [...this.#members.values()], now: this.now };
    },
  };

  readonly limits: CoordinatedLimits = {
    keep: async (group, name, text, { forMs, unlessLonger }) => {
      this.commands.push('keep limit');
      const kept = this.keptLimits.get(`${group}\n${name}`);
      if (unlessLonger && kept !== undefined && kept.at + kept.forMs > this.now + forMs) return;
      this.keptLimits.set(`${group}\n${name}`, { name, text, at: this.now, forMs });
    },
    all: async (group) => {
      this.commands.push('limits');
      const kept = [...this.keptLimits].filter(([key]) => key.startsWith(`${group}\n`));
      return { kept: kept.map(([, one]) => one), now: this.now };
    },
  };

  async close(): Promise<void> {}
}
