/** Leases by Valkey: a lease's key holds its holder. */
import type { ClaimAnswer, ClaimOptions, CoordinatedLeases } from './coordinator.ts';
import { unreadable, type ValkeyConnection } from './valkey-connection.ts';

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

export class ValkeyLeases implements CoordinatedLeases {
  readonly #connection: ValkeyConnection;

  constructor(connection: ValkeyConnection) {
    this.#connection = connection;
  }

  async claim(
    name: string,
    holder: string,
    { forMs, instead = '', also }: ClaimOptions,
  ): Promise<ClaimAnswer> {
    const keys = [name, ...(also === undefined ? [] : [also])].map((one) => this.#lease(one));
    const answer = await this.#connection.run(CLAIM, keys, [holder, String(forMs), instead]);
    if (!Array.isArray(answer) || typeof answer[0] !== 'string') throw unreadable();
    return { holder: answer[0] === '' ? undefined : answer[0], hasBoth: answer[1] === 1 };
  }

  async renew(names: readonly string[], holder: string, forMs: number): Promise<string[]> {
    const lost = await this.#forEachSlot(names, async (group, keys) => {
      const answer = await this.#connection.run(RENEW, keys, [holder, String(forMs)]);
      if (!Array.isArray(answer)) throw unreadable();
      return answer.flatMap((at: unknown) => group[Number(at)] ?? []);
    });
    return lost.flat();
  }

  async release(names: readonly string[], holder: string): Promise<void> {
    await this.#forEachSlot(names, (_, keys) => this.#connection.run(RELEASE, keys, [holder]));
  }

  /** One script for all leases that lie in the same slot of a cluster. */
  async #forEachSlot<T>(
    names: readonly string[],
    run: (names: readonly string[], keys: string[]) => Promise<T>,
  ): Promise<T[]> {
    const slots = Map.groupBy(names, digitsOf);
    return Promise.all(
      [...slots.values()].map((group) =>
        run(
          group,
          group.map((name) => this.#lease(name)),
        ),
      ),
    );
  }

  /** Spreads leases over 256 slots of a cluster, by the first two digits of the digest. */
  #lease(name: string): string {
    return `${this.#connection.prefix}{${digitsOf(name)}}:lease:${name}`;
  }
}

function digitsOf(name: string): string {
  return name.slice(0, 2);
}
