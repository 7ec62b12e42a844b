/** The records of the store, where more than a pull needs is read, and where they are deleted. */
import * as z from 'zod';
import type { Clock } from '../../clock.ts';
import type { Digest } from '../../oci/digest.ts';
import type { Tag } from '../../oci/reference.ts';
import type { Engine } from '../engines/engine.ts';
import { EngineError } from '../engines/errors.ts';
import {
  REPOSITORIES_PREFIX,
  recordSubject,
  recordsPrefix,
  type SharedRepository,
} from '../objects/names.ts';
import { readObject } from '../objects/object-bytes.ts';
import type { ObjectStore } from '../objects/object-store.ts';
import type { FleetSecret } from '../records/fleet-secret.ts';
import {
  digestField,
  manifestRecord,
  RECORD_MAX_BYTES,
  readRecord,
  tagRecord,
} from '../records/signed-record.ts';
import type { RepositoryView } from './removal-plan.ts';
import type { Removals } from './removals.ts';

export interface StoredRecordsContext {
  objects: ObjectStore;
  engine: Engine;
  secret: FleetSecret;
  removals: Removals;
  clock: Clock;
}

/** For a whole list. */
const LIST_MS = 60_000;
const GET_MS = 2_000;
const DELETE_MS = 2_000;
const AT_A_TIME = 16;

const anyRecord = z.object({ journal: z.int().min(0).default(0), digest: digestField.optional() });

export class StoredRecords {
  readonly #context: StoredRecordsContext;

  constructor(context: StoredRecordsContext) {
    this.#context = context;
  }

  /** All that the store knows of a repository, with the names of the records. @throws {EngineError} */
  async of(repository: SharedRepository): Promise<RepositoryView & { names: string[] }> {
    const names = await this.#names(recordsPrefix(repository));
    const tags: { tag: Tag; digest: Digest }[] = [];
    const lists = new Map<Digest, Digest[]>();
    await inLanes(names, async (name) => {
      const of = recordSubject(name)?.of ?? '';
      if (of.startsWith(':')) {
        const record = await this.#read(name, tagRecord);
        if (record !== undefined) tags.push({ tag: of.slice(1) as Tag, digest: record.digest });
      } else {
        const record = await this.#read(name, manifestRecord);
        if (record !== undefined)
          lists.set(
            of.slice(1) as Digest,
            record.lists.map(([digest]) => digest),
          );
      }
    });
    return { tags, lists, names };
  }

  /** The names of all records. @throws {EngineError} */
  async all(): Promise<Set<string>> {
    return new Set(await this.#names(REPOSITORIES_PREFIX));
  }

  /** Deletes those records that count no more. What cannot be deleted now counts no more all the same. */
  async clear(names: readonly string[]): Promise<void> {
    const { objects, engine } = this.#context;
    try {
      await inLanes(names, async (name) => {
        if (
          (await this.#read(name, anyRecord, (record) => this.#context.removals.hides(name, record))) ===
          undefined
        )
          return;
        await engine.ask('delete', DELETE_MS, (signal) => objects.delete(name, signal));
      });
    } catch (error) {
      if (!(error instanceof EngineError)) throw error; // the engine tells of it
    }
  }

  async #names(prefix: string): Promise<string[]> {
    const { objects, engine } = this.#context;
    const names: string[] = [];
    await engine.ask('list', LIST_MS, async (signal) => {
      for await (const page of objects.list(prefix, signal)) names.push(...page.map(({ name }) => name));
    });
    return names;
  }

  /** @returns undefined if it is not there, nobody of this fleet wrote it, or `counts` is false for it */
  async #read<T extends { journal: number; digest?: Digest | undefined }>(
    name: string,
    schema: z.ZodType<T>,
    counts = (record: T) => !this.#context.removals.hides(name, record),
  ): Promise<T | undefined> {
    const { secret } = this.#context;
    const text = await readObject(this.#context, name, { mostBytes: RECORD_MAX_BYTES, withinMs: GET_MS });
    const record = text && (await readRecord(secret, name, text, schema));
    return record !== undefined && record !== '' && counts(record) ? record : undefined;
  }
}

async function inLanes<T>(items: readonly T[], step: (item: T) => Promise<void>): Promise<void> {
  const left = items.values();
  const lane = async () => {
    for (const item of left) await step(item);
  };
  await Promise.all(Array.from({ length: AT_A_TIME }, lane));
}
