/**
 * A journal by Valkey: a stream. The number of an entry begins with the server's time, so that numbers go on where they were
 * after all keys were lost.
 */
import type { CoordinatedJournal, JournalPart } from './coordinator.ts';
import { unreadable, type ValkeyConnection } from './valkey-connection.ts';

/** About 40 MiB. Who has read less is told that some is lost. */
const ENTRIES_MOST = 100_000;
const ENTRIES_AT_A_TIME = 500;
const START = '0-0';

const APPEND = `
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[3], '*', 't', ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1`;
// The entry that was read last is still there: so is all that came after it.
const READ = `
local time = redis.call('TIME')
local whole = ARGV[1] == ARGV[3] or #redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1]) == 1
local found = {time[1] * 1000 + math.floor(time[2] / 1000), whole and 1 or 0}
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', ARGV[2])) do
  found[#found + 1] = entry[1]
  found[#found + 1] = entry[2][2]
end
return found`;

export class ValkeyJournal implements CoordinatedJournal {
  readonly #connection: ValkeyConnection;
  readonly #key: string;

  constructor(connection: ValkeyConnection) {
    this.#connection = connection;
    this.#key = `${connection.prefix}{journal}:entries`;
  }

  async append(text: string, forMs: number): Promise<void> {
    await this.#connection.run(APPEND, [this.#key], [text, String(forMs), String(ENTRIES_MOST)]);
  }

  async read(after: string): Promise<JournalPart> {
    const from = after === '' ? START : after;
    const answer = await this.#connection.run(READ, [this.#key], [from, String(ENTRIES_AT_A_TIME), START]);
    if (!Array.isArray(answer)) throw unreadable();
    const [now, whole, ...found] = answer as unknown[];
    const isWhole = whole === 1;
    const entries: JournalPart['entries'] = [];
    let position = isWhole ? from : START;
    for (let at = 0; at + 1 < found.length; at += 2) {
      position = String(found[at]);
      const ageMs = Math.max(0, Number(now) - Number(position.split('-')[0]));
      entries.push({ text: String(found[at + 1]), ageMs });
    }
    return { entries, position, isWhole };
  }
}
