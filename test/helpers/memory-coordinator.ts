/** A coordinator in memory, for tests of what nodes do with its answers. What the real one does, test/e2e shows. */
import type {
  CoordinatedLeases,
  CoordinatedMembers,
  CoordinatedNotes,
  CoordinatedUses,
  Coordinator,
} from '../../src/fleet/coordinator/coordinator.ts';
import { USE_TIMES } from '../../src/fleet/coordinator/coordinator.ts';
import type { Digest } from '../../src/oci/digest.ts';

export class MemoryCoordinator implements Coordinator {
  /** Holders of leases, by name. */
  readonly held = new Map<string, string>();
  readonly kept = new Map<string, { text: string; at: number }>();
  readonly used = new Map<Digest, { usedAt: number; leavingSince?: number; removingSince?: number }>();
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

  readonly uses: CoordinatedUses = {
    use: async (digests) => {
      this.commands.push('use');
      const isLate = (digest: Digest) => this.used.get(digest)?.removingSince !== undefined;
      for (const digest of digests) if (!isLate(digest)) this.used.set(digest, { usedAt: this.now });
      return digests.filter(isLate);
    },
    revive: async (digest) => {
      this.commands.push('revive');
      if (this.#isBeingRemoved(digest)) return false;
      this.used.set(digest, { usedAt: this.now });
      return true;
    },
    look: async (digests) => {
      this.commands.push('look');
      for (const digest of digests) {
        const { removingSince } = this.used.get(digest) ?? {};
        const isKnown = this.used.has(digest) && removingSince === undefined;
        if (!isKnown && !this.#isBeingRemoved(digest)) this.used.set(digest, { usedAt: this.now });
      }
      const uses = digests.map((digest) => {
        const { usedAt = 0, leavingSince } = this.used.get(digest) ?? {};
        return this.#isBeingRemoved(digest) ? undefined : { usedAt, leavingSince };
      });
      return { uses, now: this.now };
    },
    mark: async (victims) => {
      this.commands.push('mark');
      return victims.flatMap(({ digest, usedAt }) => {
        const use = this.used.get(digest);
        if (use?.usedAt !== usedAt || use.leavingSince !== undefined || use.removingSince !== undefined)
          return [];
        use.leavingSince = this.now;
        return [digest];
      });
    },
    take: async (digests) => {
      this.commands.push('take');
      return digests.filter((digest) => {
        const { leavingSince } = this.used.get(digest) ?? {};
        if (leavingSince === undefined || this.now - leavingSince < USE_TIMES.leavingMs) return false;
        this.used.set(digest, { usedAt: 0, removingSince: this.now });
        return true;
      });
    },
    removed: async (digests) => {
      this.commands.push('removed');
      for (const digest of digests)
        if (this.used.get(digest)?.removingSince !== undefined)
          this.used.set(digest, { usedAt: 0, removingSince: Number.NEGATIVE_INFINITY });
    },
  };

  async close(): Promise<void> {}

  #isBeingRemoved(digest: Digest): boolean {
    const since = this.used.get(digest)?.removingSince;
    return since !== undefined && this.now - since < USE_TIMES.removalMs;
  }
}
