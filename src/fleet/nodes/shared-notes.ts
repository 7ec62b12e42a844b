/**
 * What nodes tell each other at once: what a manifest allows its repository to serve, and what upstream has just said of a
 * tag. The object store tells the same later, and for longer.
 *
 * Behind a load balancer each request of a pull goes to another node: without this, each would ask upstream again.
 */
import { LRUCache } from 'lru-cache';
import type { Clock } from '../../clock.ts';
import { type Digest, digestOf } from '../../oci/digest.ts';
import type { Tag } from '../../oci/reference.ts';
import type { Coordinator } from '../coordinator/coordinator.ts';
import type { Engine } from '../engines/engine.ts';
import { EngineError } from '../engines/errors.ts';
import { manifestsPrefix, type SharedRepository, tagName } from '../objects/names.ts';
import type { FleetSecret } from '../records/fleet-secret.ts';
import {
  allowedRecord,
  readRecord,
  type SharedTag,
  tagRecord,
  writeRecord,
} from '../records/signed-record.ts';
import { type Leases, REVALIDATE } from './leases.ts';
import type { Peers } from './peers.ts';

export interface SharedNotesContext {
  coordinator: Coordinator;
  engine: Engine;
  leases: Leases;
  peers: Peers;
  secret: FleetSecret;
  clock: Clock;
}

/** What upstream has said of a tag, and how long ago; milliseconds. */
export type NotedTag = SharedTag & { ageMs: number };

const COMMAND_MS = 250;
/** A reply does not wait any longer for what others are told of it. */
const TOLD_WITHIN_MS = 100;
const LASTS_MS = 3_600_000;
/** Upstream need not be asked of a tag again that another node has asked of so short a time ago. */
const JUST_NOW_MS = 2_000;
/** Another node that asks upstream is waited for, a second at a time. */
const LOOKS = 5;
const REMEMBERED = 1_000;

export class SharedNotes {
  readonly #context: SharedNotesContext;
  /** Tags that upstream is asked of now, by their names, hashed. */
  readonly #asking = new Map<Digest, Promise<unknown>>();
  /** What was told of tags last, and when. */
  readonly #told = new LRUCache<string, { record: string; at: number }>({ max: REMEMBERED });

  constructor(context: SharedNotesContext) {
    this.#context = context;
  }

  /** Tells that a repository may serve these digests. Never rejects, and never takes long. */
  async allow(repository: SharedRepository, sizes: ReadonlyMap<Digest, number>): Promise<void> {
    const { secret } = this.#context;
    const group = manifestsPrefix(repository);
    const entries = await Promise.all(
      [...sizes].map(async ([digest, size]): Promise<[string, string]> => {
        const record = await writeRecord(secret, `${group}${digest}`, { size });
        return [digest, record.toString()];
      }),
    );
    await this.#tell(group, new Map(entries));
  }

  /** Bytes of a digest that a repository may serve. Undefined: nobody has told. */
  async allowed(repository: SharedRepository, digest: Digest): Promise<number | undefined> {
    const group = manifestsPrefix(repository);
    const noted = await this.#noted(group, digest);
    return (
      noted && (await readRecord(this.#context.secret, `${group}${digest}`, noted.text, allowedRecord))?.size
    );
  }

  /** Tells what upstream has just said of a tag. Never rejects, and never takes long. */
  async tell(repository: SharedRepository, tag: Tag, accept: string, meaning: SharedTag): Promise<void> {
    const { secret, clock } = this.#context;
    const name = tagName(repository, tag, accept);
    const { digest, mediaType, size } = meaning;
    const record = (await writeRecord(secret, name, { digest, mediaType, size })).toString();
    const last = this.#told.get(name);
    const now = clock.now();
    if (last?.record === record && Math.abs(now - last.at) < JUST_NOW_MS) return; // as upstream was asked
    this.#told.set(name, { record, at: now });
    await this.#tell(name, new Map([['', record]]));
  }

  /** What a node has told of a tag. */
  async tag(repository: SharedRepository, tag: Tag, accept: string): Promise<NotedTag | undefined> {
    const name = tagName(repository, tag, accept);
    const noted = await this.#noted(name, '');
    const meaning = noted && (await readRecord(this.#context.secret, name, noted.text, tagRecord));
    return noted && meaning && { ...meaning, ageMs: noted.ageMs };
  }

  /**
   * Asks upstream what a tag means, once for all nodes that ask at the same time.
   *
   * @param ask asks upstream; undefined: it did not say all @throws what `ask` throws
   */
  async revalidate(
    repository: SharedRepository,
    tag: Tag,
    accept: string,
    ask: () => Promise<SharedTag | undefined>,
  ): Promise<SharedTag | undefined> {
    const { leases, peers } = this.#context;
    const lease = digestOf(Buffer.from(tagName(repository, tag, accept)));
    for (let looks = 0; looks < LOOKS; looks += 1) {
      const told = await this.tag(repository, tag, accept);
      if (told !== undefined && told.ageMs <= JUST_NOW_MS) return told;
      const claim = await leases.claim(REVALIDATE, lease);
      // Who does not say that it asks may have just been told: that is seen at the second look.
      if (claim.kind !== 'theirs') break;
      if (!(await peers.waitForTag(claim.member, lease)) && looks > 0) break;
    }
    const asking = ask().then(async (meaning) => {
      if (meaning !== undefined) await this.tell(repository, tag, accept, meaning);
      return meaning;
    });
    const asked = asking.catch(() => undefined);
    this.#asking.set(lease, asked);
    try {
      return await asking;
    } finally {
      if (this.#asking.get(lease) === asked) this.#asking.delete(lease);
      leases.release(REVALIDATE, lease);
    }
  }

  /** Resolves when all know what upstream says of a tag that it is asked of here just now. Undefined: it is not. */
  asking(tag: Digest): Promise<unknown> | undefined {
    return this.#asking.get(tag);
  }

  async #tell(group: string, entries: ReadonlyMap<string, string>): Promise<void> {
    const { coordinator, engine, clock } = this.#context;
    const told = engine
      .ask('note', COMMAND_MS, () => coordinator.notes.keep(group, entries, LASTS_MS))
      .catch((error: unknown) => {
        if (!(error instanceof EngineError)) throw error; // the others ask upstream
      });
    const over = new AbortController();
    await Promise.race([told, clock.sleep(TOLD_WITHIN_MS, over.signal).catch(() => undefined)]);
    over.abort();
  }

  async #noted(group: string, name: string): Promise<{ text: string; ageMs: number } | undefined> {
    const { coordinator, engine } = this.#context;
    try {
      return await engine.ask('noted', COMMAND_MS, () => coordinator.notes.find(group, name));
    } catch (error) {
      if (error instanceof EngineError) return undefined;
      throw error;
    }
  }
}
