/** A coordinator in memory, for tests of what nodes do with its answers. What the real one does, test/e2e shows. */
import type { ClaimAnswer, ClaimOptions, Coordinator } from '../../src/fleet/coordinator/coordinator.ts';

export class MemoryCoordinator implements Coordinator {
  /** Holders of leases, by name. */
  readonly leases = new Map<string, string>();
  readonly members = new Map<string, string>();
  readonly notes = new Map<string, { text: string; at: number }>();
  /** All that was asked, in turn. */
  readonly commands: string[] = [];
  now = 0;

  async claim(name: string, holder: string, { instead, also }: ClaimOptions): Promise<ClaimAnswer> {
    this.commands.push('claim');
    const isFree = (one: string) => [undefined, holder, instead].includes(this.leases.get(one));
    if (!isFree(name)) return { holder: this.leases.get(name), hasBoth: false };
    this.leases.set(name, holder);
    const hasBoth = also !== undefined && isFree(also);
    if (hasBoth) this.leases.set(also, holder);
    return { holder: undefined, hasBoth };
  }

  async renew(names: readonly string[], holder: string): Promise<string[]> {
    this.commands.push('renew');
    return names.filter((name) => this.leases.get(name) !== holder);
  }

  async release(names: readonly string[], holder: string): Promise<void> {
    this.commands.push('release');
    for (const name of names) if (this.leases.get(name) === holder) this.leases.delete(name);
  }

  async note(group: string, texts: ReadonlyMap<string, string>): Promise<void> {
    this.commands.push('note');
    for (const [name, text] of texts) this.notes.set(`${group} ${name}`, { text, at: this.now });
  }

  async noted(group: string, name: string): Promise<{ text: string; ageMs: number } | undefined> {
    this.commands.push('noted');
    const kept = this.notes.get(`${group} ${name}`);
    return kept && { text: kept.text, ageMs: this.now - kept.at };
  }

  async beat(id: string, member: string): Promise<{ members: string[]; now: number }> {
    this.commands.push('beat');
    this.members.set(id, member);
    return { members: [...this.members.values()], now: this.now };
  }

  async close(): Promise<void> {}
}
