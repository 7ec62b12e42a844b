/**
 * When each manifest was first seen in a repository, and what its tags have meant since.
 *
 * Kept in a file of its own beside the index, which only grows: neither the loss of the index nor an eviction makes
 * anything younger. A line that could not be written is forgotten at a restart, which also only makes things younger.
 */
import { type FileHandle, open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as z from 'zod';
import type { RepositoryKey } from '../../../cache/index/index-store.ts';
import type { Clock } from '../../../clock.ts';
import { errnoOf } from '../../../files/errors.ts';
import type { Digest } from '../../../oci/digest.ts';
import type { Tag } from '../../../oci/reference.ts';
import type { Logger } from '../../../telemetry/log.ts';

/** Lies in the cache directory. */
const FILE_NAME = 'first-seen.jsonl';
/** When something was first seen that was here before anybody counted. */
export const LONG_AGO = 0;
/** Of a tag that moves every minute, this many meanings are enough for a week. */
const MOST_MEANINGS = 10_000;

const LINE = z.union([
  z.strictObject({ seen: z.number(), in: z.string(), digest: z.string(), tag: z.string().optional() }),
  z.strictObject({ begun: z.string() }),
]);

type Line = z.infer<typeof LINE>;

interface Seen {
  firstSeen: Map<Digest, number>;
  /** What each tag has meant, in the order in which it began to. */
  meanings: Map<Tag, Digest[]>;
}

export class Sightings implements AsyncDisposable {
  readonly #file: FileHandle;
  readonly #context: { clock: Clock; logger: Logger };
  /** By upstream and repository. */
  readonly #seen = new Map<string, Map<string, Seen>>();
  /** The policies that have begun. */
  readonly #begun = new Set<string>();
  /** Of all lines. No new one gets an earlier time, so that a clock that goes back makes nothing older. */
  #latest = 0;
  #pending: string[] = [];
  #writing: Promise<void> = Promise.resolve();

  private constructor(file: FileHandle, context: { clock: Clock; logger: Logger }) {
    this.#file = file;
    this.#context = context;
  }

  /** @throws the system's error if the file cannot be read or opened */
  static async open(directory: string, context: { clock: Clock; logger: Logger }): Promise<Sightings> {
    const path = join(directory, FILE_NAME);
    const text = await readFile(path, 'utf8').catch((error: unknown) => {
      if (errnoOf(error) === 'ENOENT') return '';
      throw error;
    });
    const file = await open(path, 'a', 0o600);
    const sightings = new Sightings(file, context);
    const lines = text.split('\n').filter((line) => line !== '');
    const unreadable = lines.filter((line) => !sightings.#read(line)).length;
    if (unreadable > 0)
      context.logger.warn({ file: path, lines: unreadable }, 'lines that cannot be read are skipped');
    // Ends a line that a crash has torn, so that the next one does not grow together with it.
    if (text !== '' && !text.endsWith('\n')) sightings.#append('\n');
    return sightings;
  }

  /** Whether a policy has begun before. The first time, what is cached already counts as seen long ago. */
  hasBegun(policy: string): boolean {
    return this.#begun.has(policy);
  }

  /** Notes that a policy has begun, after all that was cached was noted. */
  begin(policy: string): Promise<void> {
    this.#begun.add(policy);
    return this.#write([{ begun: policy }]);
  }

  /** Milliseconds since the epoch. Undefined: never. */
  firstSeen(key: RepositoryKey, digest: Digest): number | undefined {
    return this.#seenIn(key)?.firstSeen.get(digest);
  }

  /** What a tag has meant, the newest first. */
  meaningsOf(key: RepositoryKey, tag: Tag): Digest[] {
    return this.#seenIn(key)?.meanings.get(tag)?.toReversed() ?? [];
  }

  /** Whether a sighting says nothing new. */
  knows(key: RepositoryKey, digest: Digest, tag: Tag | undefined): boolean {
    const seen = this.#seenIn(key);
    if (seen?.firstSeen.has(digest) !== true) return false;
    return tag === undefined || seen.meanings.get(tag)?.at(-1) === digest;
  }

  /**
   * Notes what is seen in a repository. Resolves when it is on the disk.
   *
   * @param digests the first of them is what `tag` means
   * @param at milliseconds since the epoch; default: now
   */
  note(key: RepositoryKey, digests: readonly Digest[], tag?: Tag, at?: number): Promise<void> {
    this.#latest = Math.max(this.#latest, this.#context.clock.now());
    const name = nameOf(key);
    const lines = digests.flatMap((digest, place): Line[] => {
      const meant = place === 0 ? tag : undefined;
      const isEarlier = at !== undefined && at < (this.firstSeen(key, digest) ?? at);
      if (!isEarlier && this.knows(key, digest, meant)) return [];
      const line = {
        seen: at ?? this.#latest,
        in: name,
        digest,
        ...(meant === undefined ? {} : { tag: meant }),
      };
      this.#take(line);
      return [line];
    });
    return this.#write(lines);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#writing;
    await this.#file.close();
  }

  #read(text: string): boolean {
    try {
      const line = LINE.parse(JSON.parse(text));
      if ('begun' in line) this.#begun.add(line.begun);
      else {
        this.#latest = Math.max(this.#latest, line.seen);
        this.#take(line);
      }
      return true;
    } catch {
      return false; // counted by the caller
    }
  }

  #seenIn({ upstream, repository }: RepositoryKey): Seen | undefined {
    return this.#seen.get(upstream)?.get(repository);
  }

  #take({ seen: at, in: name, digest, tag }: Extract<Line, { seen: number }>): void {
    const slash = name.indexOf('/');
    const [upstream, repository] = [name.slice(0, slash), name.slice(slash + 1)];
    let ofUpstream = this.#seen.get(upstream);
    if (ofUpstream === undefined) this.#seen.set(upstream, (ofUpstream = new Map()));
    let seen = ofUpstream.get(repository);
    if (seen === undefined)
      ofUpstream.set(repository, (seen = { firstSeen: new Map(), meanings: new Map() }));
    seen.firstSeen.set(digest as Digest, Math.min(at, seen.firstSeen.get(digest as Digest) ?? at));
    if (tag === undefined) return;
    const before = seen.meanings.get(tag as Tag) ?? [];
    const meanings = [...before.filter((other) => other !== digest), digest as Digest];
    seen.meanings.set(tag as Tag, meanings.slice(-MOST_MEANINGS));
  }

  #write(lines: readonly Line[]): Promise<void> {
    if (lines.length > 0) this.#append(lines.map((line) => `${JSON.stringify(line)}\n`).join(''));
    return this.#writing;
  }

  /** Writes what has gathered while the last write ran in one go. */
  #append(text: string): void {
    this.#pending.push(text);
    if (this.#pending.length > 1) return; // the write that comes next takes it along
    this.#writing = this.#writing.then(async () => {
      const gathered = this.#pending.splice(0).join('');
      try {
        await this.#file.appendFile(gathered);
        await this.#file.datasync();
      } catch (error) {
        this.#context.logger.error({ err: error }, 'what was first seen now is forgotten at a restart');
      }
    });
  }
}

function nameOf({ upstream, repository }: RepositoryKey): string {
  return `${upstream}/${repository}`;
}
