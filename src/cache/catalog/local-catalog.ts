/** The catalog of one machine: the inventory in memory, its records in the index, the content in the store. */
import type { Clock } from '../../clock.ts';
import type { Digest } from '../../oci/digest.ts';
import type {
  ContentOrigin,
  ContentRecord,
  IndexChange,
  IndexStore,
  RepositoryKey,
} from '../index/index-store.ts';
import type { ContentStore } from '../store/content-store.ts';
import type { StorageFaults } from '../store/storage-faults.ts';
import type { Catalog } from './catalog.ts';
import type { Inventory } from './inventory.ts';

export interface LocalCatalogContext {
  store: ContentStore;
  index: IndexStore;
  inventory: Inventory;
  faults: StorageFaults;
  clock: Clock;
}

const FLUSH_BATCH = 1000;
const UNLINKS_AT_A_TIME = 16;

export class LocalCatalog implements Catalog {
  readonly #context: LocalCatalogContext;
  readonly #holdersByDigest = new Map<Digest, number>();
  /** Running removals. */
  readonly #leaving = new Map<Digest, Promise<void>>();
  #leavingBytes = 0;
  #flushing: Promise<void> = Promise.resolve();

  constructor(context: LocalCatalogContext) {
    this.#context = context;
  }

  /** Bytes that stored content takes, including content that is being removed. */
  get bytes(): number {
    return this.#context.inventory.bytes + this.#leavingBytes;
  }

  async get(digest: Digest): Promise<Readonly<ContentRecord> | undefined> {
    return this.#context.inventory.get(digest);
  }

  touch(digest: Digest): void {
    this.#context.inventory.touch(digest, this.#context.clock.now());
  }

  hold(digest: Digest): () => void {
    this.#holdersByDigest.set(digest, (this.#holdersByDigest.get(digest) ?? 0) + 1);
    let held = true;
    return () => {
      if (!held) return;
      held = false;
      const left = (this.#holdersByDigest.get(digest) ?? 1) - 1;
      if (left === 0) this.#holdersByDigest.delete(digest);
      else this.#holdersByDigest.set(digest, left);
    };
  }

  isHeld(digest: Digest): boolean {
    return this.#holdersByDigest.has(digest);
  }

  async closure(digest: Digest): Promise<Digest[]> {
    return this.#context.inventory.closure(digest);
  }

  async parentsOf(digests: Iterable<Digest>): Promise<Map<Digest, Digest[]>> {
    return this.#context.inventory.parentsOf(digests);
  }

  async *manifests(): AsyncIterable<[Digest, Readonly<ContentRecord>]> {
    for (const [digest, record] of this.oldestFirst())
      if (record.mediaType !== undefined) yield [digest, record];
  }

  /** All records, the least recently used first. */
  oldestFirst(): Iterable<[Digest, Readonly<ContentRecord>]> {
    return this.#context.inventory.oldestFirst();
  }

  async setOrigin(digests: Iterable<Digest>, origin: ContentOrigin): Promise<void> {
    const changes: IndexChange[] = [];
    for (const digest of digests) {
      const known = this.#context.inventory.get(digest);
      if (known === undefined || (known.origin ?? 'mirrored') === origin) continue;
      const { origin: _before, ...record } = known;
      const value = origin === 'mirrored' ? record : { ...record, origin };
      this.#context.inventory.add(digest, value);
      changes.push({ put: 'content', digest, value });
    }
    await this.#context.index.write(changes);
  }

  /** Resolves when no removal of `digest` runs. Wait for it before a commit: the removal would delete the new file. */
  async settled(digest: Digest): Promise<void> {
    while (this.#leaving.has(digest)) await this.#leaving.get(digest);
  }

  /**
   * Adds content that is in the store, with its records.
   *
   * @throws {StorageError}
   */
  async add(digest: Digest, record: ContentRecord, changes: readonly IndexChange[]): Promise<void> {
    const { inventory, index } = this.#context;
    inventory.add(digest, record);
    // Also writes the records of all that it lists, because they count as used now. Otherwise a crash could change the
    // order.
    const records = inventory.closure(digest).flatMap((used): IndexChange[] => {
      const value = inventory.get(used);
      return value === undefined ? [] : [{ put: 'content', digest: used, value }];
    });
    await index.write([...records, ...changes]);
  }

  async remove(digests: readonly Digest[]): Promise<number> {
    const { inventory } = this.#context;
    const records = new Map<Digest, ContentRecord>();
    for (const digest of digests) {
      const record = inventory.get(digest);
      if (record !== undefined) records.set(digest, record);
      inventory.delete(digest);
    }
    const bytes = [...records.values()].reduce((sum, { allocated }) => sum + allocated, 0);
    this.#leavingBytes += bytes;
    const gone = this.#drop(records).finally(() => {
      this.#leavingBytes -= bytes;
      for (const digest of records.keys()) this.#leaving.delete(digest);
    });
    for (const digest of records.keys()) this.#leaving.set(digest, gone);
    await gone;
    return bytes;
  }

  /** Writes the uses since the last flush to the index, in batches. Never rejects: a disk failure is reported. */
  flush(): Promise<void> {
    const { inventory, index, faults } = this.#context;
    this.#flushing = this.#flushing.then(async () => {
      const used = inventory.takeUsed();
      for (let at = 0; at < used.length; at += FLUSH_BATCH) {
        const batch = used
          .slice(at, at + FLUSH_BATCH)
          .filter(([digest]) => inventory.get(digest) !== undefined)
          .map(([digest, value]): IndexChange => ({ put: 'content', digest, value }));
        await faults.tolerate(() => index.write(batch));
      }
    });
    return this.#flushing;
  }

  /** Removes records first and files second: a crash in between leaves a file without a record, never the reverse. */
  async #drop(records: ReadonlyMap<Digest, ContentRecord>): Promise<void> {
    const { store, index, faults } = this.#context;
    await this.#flushing; // it may be writing these records
    await faults.tolerate(async () => index.write(await this.#changesOfRemoval(records)));
    const left = records.keys();
    const lane = async () => {
      for (const digest of left) await faults.tolerate(() => store.delete(digest));
    };
    await Promise.all(Array.from({ length: UNLINKS_AT_A_TIME }, lane));
  }

  async #changesOfRemoval(records: ReadonlyMap<Digest, ContentRecord>): Promise<IndexChange[]> {
    const { index, inventory } = this.#context;
    const changes: IndexChange[] = [];
    const repositories = new Map<string, RepositoryKey>();
    const forget = async (digest: Digest, { mediaType, children = [] }: ContentRecord) => {
      changes.push({ delete: 'content', digest }, { delete: 'sums', digest });
      if (mediaType !== undefined)
        for await (const key of index.findings(digest)) changes.push({ delete: 'finding', key });
      for await (const [key] of index.permissions(digest)) {
        changes.push({ delete: 'permission', key, digest });
        if (mediaType === undefined) continue;
        repositories.set(`${key.upstream}/${key.repository}`, key);
        // Keeps permissions for stored content, because upstream gave them. Removes those for content that never came.
        const absent = children.filter((child) => inventory.get(child) === undefined);
        changes.push(...absent.map((child): IndexChange => ({ delete: 'permission', key, digest: child })));
      }
    };
    await Promise.all([...records].map(([digest, record]) => forget(digest, record)));
    for (const repository of repositories.values()) {
      for await (const [key, { digest }] of index.tags(repository)) {
        if (records.has(digest)) changes.push({ delete: 'tag', key });
      }
    }
    return changes;
  }
}
