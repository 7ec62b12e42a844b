/** Limits by Valkey: each group is a hash. Each text begins with the time that it was kept at, and for how long. */
import { createHash } from 'node:crypto';
import type { CoordinatedLimits, LimitOptions } from './coordinator.ts';
import { slotOf, unreadable, type ValkeyConnection } from './valkey-connection.ts';

const KEEP = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[4] == 'unless longer' then
  local at, lasts = string.match(redis.call('HGET', KEYS[1], ARGV[1]) or '', '^(%d+) (%d+) ')
  if at and at + lasts > now + ARGV[2] then return 0 end
end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', now) .. ' ' .. ARGV[2] .. ' ' .. ARGV[3])
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 1`;
const ALL = `
local time = redis.call('TIME')
return {time[1] * 1000 + math.floor(time[2] / 1000), redis.call('HGETALL', KEYS[1])}`;

export class ValkeyLimits implements CoordinatedLimits {
  readonly #connection: ValkeyConnection;

  constructor(connection: ValkeyConnection) {
    this.#connection = connection;
  }

  async keep(
    group: string,
    name: string,
    text: string,
    { forMs, unlessLonger }: LimitOptions,
  ): Promise<void> {
    const lasts = String(Math.ceil(forMs));
    const options = [lasts, text, unlessLonger ? 'unless longer' : ''];
    await this.#connection.run(KEEP, [this.#group(group)], [name, ...options]);
  }

  async all(group: string): Promise<{ kept: { name: string; text: string; at: number }[]; now: number }> {
    const answer = await this.#connection.run(ALL, [this.#group(group)], []);
    if (!Array.isArray(answer) || !Array.isArray(answer[1])) throw unreadable();
    const fields = answer[1].map(String);
    const kept = fields.flatMap((name, at) => {
      const [, since, text = ''] = /^(\d+) \d+ (.*)$/s.exec(fields[at + 1] ?? '') ?? [];
      return at % 2 === 0 ? [{ name, text, at: Number(since ?? 0) }] : [];
    });
    return { kept, now: Number(answer[0]) };
  }

  #group(group: string): string {
    const hash = createHash('sha256').update(group).digest('hex');
    return `${this.#connection.prefix}{${slotOf(group)}}:limits:${hash}`;
  }
}
