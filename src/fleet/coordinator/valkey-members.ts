/** Members by Valkey: what each says of itself, and when it last did. */
import type { CoordinatedMembers, SaidByMember } from './coordinator.ts';
import { unreadable, type ValkeyConnection } from './valkey-connection.ts';

const BEAT = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[2], now, ARGV[1])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('HSET', KEYS[3], ARGV[1], ARGV[3])
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], 0, now - ARGV[4])) do
  redis.call('HDEL', KEYS[1], id)
  redis.call('HDEL', KEYS[3], id)
  redis.call('ZREM', KEYS[2], id)
end
return {now, redis.call('HVALS', KEYS[1])}`;
const ALL = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local seen = redis.call('ZRANGE', KEYS[2], 0, -1, 'WITHSCORES')
local all = {}
for at = 1, #seen, 2 do
  local card, state = redis.call('HGET', KEYS[1], seen[at]), redis.call('HGET', KEYS[3], seen[at])
  all[#all + 1] = {card or '', state or '', math.max(0, now - seen[at + 1])}
end
return all`;

export class ValkeyMembers implements CoordinatedMembers {
  readonly #connection: ValkeyConnection;

  constructor(connection: ValkeyConnection) {
    this.#connection = connection;
  }

  async beat(
    id: string,
    { card, state }: { card: string; state: string },
    forMs: number,
  ): Promise<{ cards: string[]; now: number }> {
    const answer = await this.#connection.run(BEAT, this.#keys, [id, card, state, String(forMs)]);
    if (!Array.isArray(answer) || !Array.isArray(answer[1])) throw unreadable();
    return { now: Number(answer[0]), cards: answer[1].map(String) };
  }

  async all(): Promise<SaidByMember[]> {
    const answer = await this.#connection.run(ALL, this.#keys, []);
    if (!Array.isArray(answer)) throw unreadable();
    return answer.map((one: unknown) => {
      if (!Array.isArray(one)) throw unreadable();
      return { card: String(one[0]), state: String(one[1]), ageMs: Number(one[2]) };
    });
  }

  get #keys(): string[] {
    return ['members', 'seen', 'states'].map((what) => `${this.#connection.prefix}{members}:${what}`);
  }
}
