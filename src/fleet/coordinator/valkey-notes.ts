/** Notes by Valkey: each group is a hash, and each text begins with the time that it was kept at. */
import { createHash } from 'node:crypto';
import type { CoordinatedNotes } from './coordinator.ts';
import { slotOf, unreadable, type ValkeyConnection } from './valkey-connection.ts';

// No node's own time gets into what others read.
const KEEP = `
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
for at = 2, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[at], now .. ' ' .. ARGV[at + 1]) end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1`;
const FIND = `
local time = redis.call('TIME')
return {redis.call('HGET', KEYS[1], ARGV[1]), time[1] * 1000 + math.floor(time[2] / 1000)}`;

export class ValkeyNotes implements CoordinatedNotes {
  readonly #connection: ValkeyConnection;

  constructor(connection: ValkeyConnection) {
    this.#connection = connection;
  }

  async keep(group: string, texts: ReadonlyMap<string, string>, forMs: number): Promise<void> {
    await this.#connection.run(KEEP, [this.#group(group)], [String(forMs), ...[...texts].flat()]);
  }

  async find(group: string, name: string): Promise<{ text: string; ageMs: number } | undefined> {
    const answer = await this.#connection.run(FIND, [this.#group(group)], [name]);
    if (!Array.isArray(answer)) throw unreadable();
    const [kept, now] = answer as unknown[];
    if (typeof kept !== 'string') return undefined;
    const end = kept.indexOf(' ');
    return { text: kept.slice(end + 1), ageMs: Math.max(0, Number(now) - Number(kept.slice(0, end))) };
  }

  #group(group: string): string {
    const hash = createHash('sha256').update(group).digest('hex');
    return `${this.#connection.prefix}{${slotOf(group)}}:notes:${hash}`;
  }
}
