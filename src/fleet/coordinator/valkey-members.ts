/** Members by Valkey: what each says of itself, and when it last did. */
import type { CoordinatedMembers } from './coordinator.ts';
import { unreadable, type ValkeyConnection } from './valkey-connection.ts';

const BEAT = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[2], now, ARGV[1])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], 0, now - ARGV[3])) do
  redis.call('HDEL', KEYS[1], id)
  redis.call('ZREM', KEYS[2], id)
end
return {now, redis.call('HVALS', KEYS[1])}`;

export class ValkeyMembers implements CoordinatedMembers {
  readonly #connection: ValkeyConnection;

  constructor(connection: ValkeyConnection) {
    this.#connection = connection;
  }

  async beat(id: string, member: string, forMs: number): Promise<{ members: string[]; now: number }> {
    const keys = ['members', 'seen'].map((what) => `${this.#connection.prefix}{members}:${what}`);
    const answer = await this.#connection.run(BEAT, keys, [id, member, String(forMs)]);
    if (!Array.isArray(answer) || !Array.isArray(answer[1])) throw unreadable();
    return { now: Number(answer[0]), members: answer[1].map(String) };
  }
}
