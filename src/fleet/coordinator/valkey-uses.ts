/**
 * Last uses by Valkey. The key of a digest holds one of these, with times in milliseconds:
 *
 *     1767225600000                          used then
 *     1767225600000 leaving 1767226500000    used then, and marked since
 *     removing 1767227400000                 its removal was decided on then
 *     gone                                   it was removed
 *
 * A number alone takes Valkey the least memory, and nearly all are that.
 */
import { type Digest, digestHex } from '../../oci/digest.ts';
import { type CoordinatedUses, type LastUse, USE_TIMES, useGroup } from './coordinator.ts';
import { unreadable, type ValkeyConnection } from './valkey-connection.ts';

const NOW = `
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
local function removingFor(kept)
  local since = kept and string.match(kept, '^removing (%d+)$')
  return since and now - since
end`;
const USE = `${NOW}
local late = {}
for at, key in ipairs(KEYS) do
  local kept = redis.call('GET', key)
  if kept == 'gone' or removingFor(kept) then late[#late + 1] = at - 1
  else redis.call('SET', key, now, 'PX', ARGV[1]) end
end
return late`;
const REVIVE = `${NOW}
local forMs = removingFor(redis.call('GET', KEYS[1]))
if forMs and forMs < tonumber(ARGV[2]) then return 0 end
redis.call('SET', KEYS[1], now, 'PX', ARGV[1])
return 1`;
const LOOK = `${NOW}
local found = {now}
for at, key in ipairs(KEYS) do
  local kept = redis.call('GET', key)
  local forMs = removingFor(kept)
  if forMs and forMs < tonumber(ARGV[2]) then kept = ''
  elseif kept and kept ~= 'gone' and not forMs then redis.call('PEXPIRE', key, ARGV[1])
  else
    redis.call('SET', key, now, 'PX', ARGV[1])
    kept = now
  end
  found[at + 1] = kept
end
return found`;
const MARK = `${NOW}
local marked = {}
for at, key in ipairs(KEYS) do
  if redis.call('GET', key) == ARGV[at + 1] then
    redis.call('SET', key, ARGV[at + 1] .. ' leaving ' .. now, 'PX', ARGV[1])
    marked[#marked + 1] = at - 1
  end
end
return marked`;
const TAKE = `${NOW}
local taken = {}
for at, key in ipairs(KEYS) do
  local since = string.match(redis.call('GET', key) or '', ' leaving (%d+)$')
  if since and now - since >= tonumber(ARGV[2]) then
    redis.call('SET', key, 'removing ' .. now, 'PX', ARGV[1])
    taken[#taken + 1] = at - 1
  end
end
return taken`;
const REMOVED = `${NOW}
for _, key in ipairs(KEYS) do
  if removingFor(redis.call('GET', key)) then redis.call('SET', key, 'gone', 'PX', ARGV[1]) end
end
return 1`;

const RECORD_MS = String(USE_TIMES.recordMs);
const GONE_MS = String(USE_TIMES.goneMs);

export class ValkeyUses implements CoordinatedUses {
  readonly #connection: ValkeyConnection;

  constructor(connection: ValkeyConnection) {
    this.#connection = connection;
  }

  use(digests: readonly Digest[]): Promise<Digest[]> {
    return this.#pick(USE, digests, () => [RECORD_MS]);
  }

  async revive(digest: Digest): Promise<boolean> {
    const args = [RECORD_MS, String(USE_TIMES.removalMs)];
    return (await this.#connection.run(REVIVE, [this.#key(digest)], args)) === 1;
  }

  async look(digests: readonly Digest[]): Promise<{ uses: (LastUse | undefined)[]; now: number }> {
    const found = new Map<Digest, LastUse | undefined>();
    let now = 0;
    await this.#forEachGroup(digests, async (group, keys) => {
      const answer = await this.#connection.run(LOOK, keys, [RECORD_MS, String(USE_TIMES.removalMs)]);
      if (!Array.isArray(answer) || answer.length !== keys.length + 1) throw unreadable();
      now = Math.max(now, Number(answer[0]));
      for (const [at, digest] of group.entries()) found.set(digest, readUse(String(answer[at + 1])));
    });
    return { uses: digests.map((digest) => found.get(digest)), now };
  }

  mark(victims: readonly { digest: Digest; usedAt: number }[]): Promise<Digest[]> {
    const usedAt = new Map(victims.map((victim) => [victim.digest, String(victim.usedAt)]));
    const args = (group: readonly Digest[]) => [
      RECORD_MS,
      ...group.map((digest) => usedAt.get(digest) ?? ''),
    ];
    return this.#pick(MARK, [...usedAt.keys()], args);
  }

  take(digests: readonly Digest[]): Promise<Digest[]> {
    return this.#pick(TAKE, digests, () => [GONE_MS, String(USE_TIMES.leavingMs)]);
  }

  async removed(digests: readonly Digest[]): Promise<void> {
    await this.#forEachGroup(digests, (_, keys) => this.#connection.run(REMOVED, keys, [GONE_MS]));
  }

  /** Runs a script that answers with places in the list of its keys. @returns the digests there */
  async #pick(
    script: string,
    digests: readonly Digest[],
    args: (group: readonly Digest[]) => string[],
  ): Promise<Digest[]> {
    const picked: Digest[] = [];
    await this.#forEachGroup(digests, async (group, keys) => {
      const answer = await this.#connection.run(script, keys, args(group));
      if (!Array.isArray(answer)) throw unreadable();
      for (const at of answer) picked.push(...group.slice(Number(at), Number(at) + 1));
    });
    return picked;
  }

  async #forEachGroup(
    digests: readonly Digest[],
    run: (group: readonly Digest[], keys: string[]) => Promise<unknown>,
  ): Promise<void> {
    const groups = Map.groupBy(digests, useGroup);
    await Promise.all(
      [...groups.values()].map((group) =>
        run(
          group,
          group.map((digest) => this.#key(digest)),
        ),
      ),
    );
  }

  #key(digest: Digest): string {
    return `${this.#connection.prefix}{use${useGroup(digest)}}:${digestHex(digest)}`;
  }
}

/** @returns undefined: it is being removed */
function readUse(kept: string): LastUse | undefined {
  const [, usedAt, since] = /^(\d+)(?: leaving (\d+))?$/.exec(kept) ?? [];
  if (usedAt === undefined) return undefined;
  return { usedAt: Number(usedAt), leavingSince: since === undefined ? undefined : Number(since) };
}
