/** Agrees by Valkey, or Redis from version 7 on. Each decision is one script, so that nothing comes between its steps. */
import { createHash } from 'node:crypto';
import { createClient } from '@redis/client';
import { EngineError } from '../engines/errors.ts';
import type { ClaimAnswer, ClaimOptions, Coordinator } from './coordinator.ts';

export interface ValkeySettings {
  /** `valkey:`, `valkeys:`, `redis:` or `rediss:`, without a password. */
  url: string;
  username: string | undefined;
  password: (() => Promise<string>) | undefined;
  /** PEM bundle to trust in addition to the usual authorities. */
  ca: string | undefined;
  /** Begins every key. */
  prefix: string;
}

const CONNECT_TIMEOUT_MS = 500;
const RECONNECT_MS = 500;
const RECONNECT_LONGEST_MS = 5_000;

// A lease's key holds its holder. In a cluster each script touches keys of one slot only.
const CLAIM = `
local has = {}
for at, key in ipairs(KEYS) do
  local holder = redis.call('GET', key)
  if holder and holder ~= ARGV[1] and holder ~= ARGV[3] then
    if at == 1 then return {holder, 0} end
  else
    redis.call('SET', key, ARGV[1], 'PX', ARGV[2])
    has[at] = true
  end
end
return {'', has[2] and 1 or 0}`;
const RENEW = `
local lost = {}
for at, key in ipairs(KEYS) do
  if redis.call('GET', key) == ARGV[1] then redis.call('PEXPIRE', key, ARGV[2])
  else lost[#lost + 1] = at - 1 end
end
return lost`;
const RELEASE = `
for _, key in ipairs(KEYS) do
  if redis.call('GET', key) == ARGV[1] then redis.call('DEL', key) end
end
return 1`;
// No node's own time gets into what others read.
const NOTE = `
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
for at = 2, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[at], now .. ' ' .. ARGV[at + 1]) end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1`;
const NOTED = `
local time = redis.call('TIME')
return {redis.call('HGET', KEYS[1], ARGV[1]), time[1] * 1000 + math.floor(time[2] / 1000)}`;
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

export class ValkeyCoordinator implements Coordinator {
  readonly #client: ReturnType<typeof createClient>;
  readonly #prefix: string;

  /** Connects in the background, again and again. */
  constructor({ url, username, password, ca, prefix }: ValkeySettings) {
    this.#prefix = prefix;
    const isSecure = /^(?:valkeys|rediss):/.test(url);
    this.#client = createClient({
      url: url.replace(/^valkey/, 'redis'),
      ...(password === undefined
        ? {}
        : {
            credentialsProvider: {
              type: 'async-credentials-provider',
              credentials: async () => ({
                ...(username === undefined ? {} : { username }),
                password: await password(),
              }),
            },
          }),
      // A command that waited for a connection would come too late for whoever asked.
      disableOfflineQueue: true,
      socket: {
        connectTimeout: CONNECT_TIMEOUT_MS,
        reconnectStrategy: (tries) => Math.min(RECONNECT_MS * 2 ** tries, RECONNECT_LONGEST_MS),
        ...(isSecure ? { tls: true as const, ...(ca === undefined ? {} : { ca }) } : {}),
      },
    });
    this.#client.on('error', () => undefined); // whoever asks is told
    void this.#client.connect().catch(() => undefined);
  }

  async claim(
    name: string,
    holder: string,
    { forMs, instead = '', also }: ClaimOptions,
  ): Promise<ClaimAnswer> {
    const keys = [name, ...(also === undefined ? [] : [also])].map((one) => this.#lease(one));
    const answer = await this.#run(CLAIM, keys, [holder, String(forMs), instead]);
    if (!Array.isArray(answer) || typeof answer[0] !== 'string') throw unreadable();
    return { holder: answer[0] === '' ? undefined : answer[0], hasBoth: answer[1] === 1 };
  }

  async renew(names: readonly string[], holder: string, forMs: number): Promise<string[]> {
    const lost = await this.#forEachSlot(names, async (group, keys) => {
      const answer = await this.#run(RENEW, keys, [holder, String(forMs)]);
      if (!Array.isArray(answer)) throw unreadable();
      return answer.flatMap((at: unknown) => group[Number(at)] ?? []);
    });
    return lost.flat();
  }

  async release(names: readonly string[], holder: string): Promise<void> {
    await this.#forEachSlot(names, (_, keys) => this.#run(RELEASE, keys, [holder]));
  }

  async note(group: string, texts: ReadonlyMap<string, string>, forMs: number): Promise<void> {
    await this.#run(NOTE, [this.#group(group)], [String(forMs), ...[...texts].flat()]);
  }

  async noted(group: string, name: string): Promise<{ text: string; ageMs: number } | undefined> {
    const answer = await this.#run(NOTED, [this.#group(group)], [name]);
    if (!Array.isArray(answer)) throw unreadable();
    const [kept, now] = answer as unknown[];
    if (typeof kept !== 'string') return undefined;
    const end = kept.indexOf(' ');
    return { text: kept.slice(end + 1), ageMs: Math.max(0, Number(now) - Number(kept.slice(0, end))) };
  }

  async beat(id: string, member: string, forMs: number): Promise<{ members: string[]; now: number }> {
    const keys = ['members', 'seen'].map((what) => `${this.#prefix}{members}:${what}`);
    const answer = await this.#run(BEAT, keys, [id, member, String(forMs)]);
    if (!Array.isArray(answer) || !Array.isArray(answer[1])) throw unreadable();
    return { now: Number(answer[0]), members: answer[1].map(String) };
  }

  async close(): Promise<void> {
    if (this.#client.isOpen) this.#client.destroy();
  }

  async #run(script: string, keys: string[], args: string[]): Promise<unknown> {
    try {
      return await this.#client.eval(script, { keys, arguments: args });
    } catch (error) {
      throw engineError(error);
    }
  }

  /** One script for all leases that lie in the same slot of a cluster. */
  async #forEachSlot<T>(
    names: readonly string[],
    run: (names: readonly string[], keys: string[]) => Promise<T>,
  ): Promise<T[]> {
    const slots = Map.groupBy(names, slotOf);
    return Promise.all(
      [...slots.values()].map((group) =>
        run(
          group,
          group.map((name) => this.#lease(name)),
        ),
      ),
    );
  }

  /** Spreads groups over 256 slots of a cluster. */
  #group(group: string): string {
    const hash = createHash('sha256').update(group).digest('hex');
    return `${this.#prefix}{${hash.slice(0, 2)}}:notes:${hash}`;
  }

  /** Spreads leases over 256 slots of a cluster, by the first two digits of the digest. */
  #lease(name: string): string {
    return `${this.#prefix}{${slotOf(name)}}:lease:${name}`;
  }
}

function slotOf(name: string): string {
  return name.slice(0, 2);
}

function unreadable(): EngineError {
  return new EngineError('invalid-response', 'the coordinator answered without what was asked for');
}

/** Its message may hold what somebody else wrote, so only its first word is passed on: `NOAUTH`, `LOADING`. */
function engineError(error: unknown): EngineError {
  const [, word = ''] = /^([A-Z]{3,20}) /.exec(error instanceof Error ? error.message : '') ?? [];
  if (word === 'NOAUTH' || word === 'WRONGPASS' || word === 'NOPERM') {
    const what = `the coordinator refuses us (${word}): check fleet.coordinator.username and password`;
    return new EngineError('denied', what, { cause: error });
  }
  const what = word === '' ? 'the coordinator cannot be reached' : `the coordinator answered ${word}`;
  return new EngineError('unavailable', what, { cause: error });
}
