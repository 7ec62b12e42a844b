/** A coordinator in memory, for tests of what nodes do with its answers. What the real one does, test/e2e shows. */
import type {
  CoordinatedJournal,
  CoordinatedLeases,
  CoordinatedMembers,
  CoordinatedNotes,
  Coordinator,
} from '../../src/fleet/coordinator/coordinator.ts';

export class MemoryCoordinator implements Coordinator {
  /** Holders of leases, by name. */
  readonly held = new Map<string, string>();
  readonly kept = new Map<string, { text: string; at: number }>();
  /** All that was asked, in turn. */
  readonly commands: string[] = [];
  now = 0;
  /** What members have said, by id. */
  readonly said = new Map<string, { card: string; state: string; at: number }>();
  /** Of the journal, the oldest first. */
  readonly entries: { text: string; at: number; position: number }[] = [];
  #lastEntry = 0;

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
    beat: async (id, said) => {
      this.commands.push('beat');
      this.said.set(id, { ...said, at: this.now });
      return { cards: [...this.said.values()].map(({ card }) => card), now: this.now };
    },
    all: async () => {
      this.commands.push('all');
      return [...this.said.values()].map(({ at, ...said }) => ({ ...said, ageMs: this.now - at }));
    },
  };

  readonly journal: CoordinatedJournal = {
    append: async (text) => {
      this.commands.push('append');
      this.#lastEntry += 1;
      this.entries.push({ text, at: this.now, position: this.#lastEntry });
    },
    read: async (after) => {
      this.commands.push('read');
      const isWhole = after === '' || this.entries.some(({ position }) => String(position) === after);
      const found = this.entries.filter(({ position }) => position > Number(after));
      const last = found.at(-1)?.position ?? (isWhole ? after : '');
      const entries = found.map(({ text, at }) => ({ text, ageMs: this.now - at }));
      return { entries, position: String(last), isWhole };
    },
  };

  async advice(): Promise<string[]> {
    return [];
  }

  async close(): Promise<void> {}
}
