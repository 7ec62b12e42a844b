/** Leases by Valkey. A lease's key holds its number, the number that it was claimed instead of, the byte reached, and its holder. */
import type { ClaimAnswer, ClaimOptions, CoordinatedLeases, Lease } from './coordinator.ts';
import { unreadable, type ValkeyConnection } from './valkey-connection.ts';

const CLAIM = `
local time = redis.call('TIME')
local next = time[1] * 1000000 + time[2]
local leases = {}
for at, key in ipairs(KEYS) do
  local number, before, reached, holder = string.match(redis.call('GET', key) or '', '^(%d+) (%d+) (%d+) (.*)$')
  leases[at] = {number = number, before = before, reached = reached, holder = holder}
  if number then next = math.max(next, number + 1) end
end
local has = {}
for at, key in ipairs(KEYS) do
  local lease = leases[at]
  local own = lease.holder == ARGV[1]
  local dead = lease.number == ARGV[4]
  local behind = lease.before == ARGV[4] and tonumber(lease.reached) < tonumber(ARGV[3])
  if lease.holder and not own and not dead and not behind then
    if at == 1 then return {lease.holder, lease.number, lease.reached, 0} end
  else
    if not own then
      lease.number = string.format('%.0f', next)
      lease.before = ARGV[4] == '' and '0' or ARGV[4]
    end
    local value = lease.number .. ' ' .. lease.before .. ' ' .. ARGV[3] .. ' ' .. ARGV[1]
    redis.call('SET', key, value, 'PX', ARGV[2])
    has[at] = true
  end
end
return {ARGV[1], leases[1].number, ARGV[3], has[2] and 1 or 0}`;
const RENEW = `
local lost = {}
for at, key in ipairs(KEYS) do
  local number, holder = string.match(redis.call('GET', key) or '', '^(%d+) %d+ %d+ (.*)$')
  if number == ARGV[2 * at] then
    redis.call('SET', key, number .. ' 0 ' .. ARGV[2 * at + 1] .. ' ' .. holder, 'PX', ARGV[1])
  else lost[#lost + 1] = at - 1 end
end
return lost`;
const RELEASE = `
for at, key in ipairs(KEYS) do
  local number = string.match(redis.call('GET', key) or '', '^(%d+) ')
  if number == ARGV[at] then redis.call('DEL', key) end
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
    { forMs, reached = 0, instead, also }: ClaimOptions,
  ): Promise<ClaimAnswer> {
    const keys = [name, ...(also === undefined ? [] : [also])].map((one) => this.#lease(one));
    const args = [holder, String(forMs), String(reached), instead === undefined ? '' : String(instead)];
    const answer = await this.#connection.run(CLAIM, keys, args);
    if (!Array.isArray(answer) || typeof answer[0] !== 'string') throw unreadable();
    const lease = { holder: answer[0], number: Number(answer[1]), reached: Number(answer[2]) };
    return { lease, hasBoth: answer[3] === 1 };
  }

  async renew(
    leases: ReadonlyMap<string, Pick<Lease, 'number' | 'reached'>>,
    forMs: number,
  ): Promise<string[]> {
    const lost = await this.#forEachSlot([...leases], async (group, keys) => {
      const args = group.flatMap(([, { number, reached }]) => [String(number), String(reached)]);
      const answer = await this.#connection.run(RENEW, keys, [String(forMs), ...args]);
      if (!Array.isArray(answer)) throw unreadable();
      return answer.flatMap((at: unknown) => group[Number(at)]?.[0] ?? []);
    });
    return lost.flat();
  }

  async release(leases: ReadonlyMap<string, number>): Promise<void> {
    await this.#forEachSlot([...leases], (group, keys) =>
      this.#connection.run(
        RELEASE,
        keys,
        group.map(([, number]) => String(number)),
      ),
    );
  }

  /** One script for all leases that lie in the same slot of a cluster. */
  async #forEachSlot<V, T>(
    leases: readonly [string, V][],
    run: (leases: readonly [string, V][], keys: string[]) => Promise<T>,
  ): Promise<T[]> {
    const slots = Map.groupBy(leases, ([name]) => digitsOf(name));
    return Promise.all(
      [...slots.values()].map((group) =>
        run(
          group,
          group.map(([name]) => this.#lease(name)),
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
