/**
 * What the mirror holds: the content, the records of it, and the order of its use. All content comes and goes here.
 *
 * Content comes file first, record second, and goes record first, file second: a crash in between leaves a file that
 * nobody knows, which the next start takes up again, and never a record that promises what is not there.
 */
import { LRUCache } from 'lru-cache';
import type { Clock } from '../../clock.ts';
import { type Digest, digestAlgorithm, digestOf } from '../../oci/digest.ts';
import { SingleFlight } from '../../single-flight.ts';
import type { Logger } from '../../telemetry/log.ts';
import type { ContentRecord, IndexChange, IndexStore, RepositoryKey } from '../index/index-store.ts';
import { CheckedReader, HeldReader, sumUp } from '../store/checked-reader.ts';
import type { ContentReader, ContentStore, StoredReader } from '../store/content-store.ts';
import { ContentError } from '../store/errors.ts';
import type { StorageFaults } from '../store/storage-faults.ts';
import type { Inventory } from './inventory.ts';

export interface NewContent {
  digest: Digest;
  /** A verified file, which is taken over. */
  path: string;
  /** The value of {@link BlockSums}; a manifest is always read whole, and checked by its digest. */
  sums?: string;
  mediaType?: string;
  children?: readonly Digest[];
}

export interface ContentCacheContext {
  store: ContentStore;
  index: IndexStore;
  inventory: Inventory;
  faults: StorageFaults;
  logger: Logger;
  clock: Clock;
}

/**
 * For this long a blob that was read whole is not checked again, if nobody has written to its file: its bytes come from
 * the system's memory then, not from the disk that could have lost them. A check costs a third of a hit.
 */
const CHECK_LASTS_MS = 10 * 60_000;
const REMEMBERED_CHECKS = 10_000;
const FLUSH_BATCH = 1000;
const UNLINKS_AT_A_TIME = 16;

export class ContentCache {
  readonly #context: ContentCacheContext;
  readonly #holdersByDigest = new Map<Digest, number>();
  /** What is being removed. */
  readonly #leaving = new Map<Digest, Promise<void>>();
  #leavingBytes = 0;
  readonly #checks = new SingleFlight<string>();
  /** When all of a blob was last seen to be right. */
  readonly #checked = new LRUCache<Digest, { version: string; at: number }>({ max: REMEMBERED_CHECKS });
  #flushing: Promise<void> = Promise.resolve();

  constructor(context: ContentCacheContext) {
    this.#context = context;
  }

  /** Bytes that are taken in the store, what is just being removed included. */
  get bytes(): number {
    return this.#context.inventory.bytes + this.#leavingBytes;
  }

  /** What is known of `digest` if it is here; to ask is no use of it. */
  get(digest: Digest): Readonly<ContentRecord> | undefined {
    return this.#context.inventory.get(digest);
  }

  /** Notes that it was asked for, which keeps it, and all that it lists. */
  touch(digest: Digest): void {
    this.#context.inventory.touch(digest, this.#context.clock.now());
  }

  /**
   * Opens content for reading; what is damaged or lost is forgotten, and so not found. What is open is not evicted.
   *
   * @throws {StorageError}
   */
  async open(digest: Digest): Promise<ContentReader | undefined> {
    if (this.get(digest) === undefined) return undefined;
    const release = this.hold(digest);
    let reader: StoredReader | undefined;
    try {
      reader = await this.#openWhole(digest);
      if (reader === undefined) {
        release();
        return undefined;
      }
      this.touch(digest);
      const { version } = reader;
      if (this.#wasChecked(digest, version)) return new HeldReader(reader, release);
      const sums = (await this.#context.index.sums(digest)) ?? (await this.#check(digest, reader));
      return new CheckedReader(reader, digest, sums, {
        whole: () => this.#checked.set(digest, { version, at: this.#context.clock.now() }),
        damaged: (error) => this.discardDamaged(error),
        closed: release,
      });
    } catch (error) {
      await reader?.close();
      release();
      if (!(error instanceof ContentError)) throw error;
      await this.discardDamaged(error);
      return undefined;
    }
  }

  /**
   * Reads all of it, checked by its digest; for manifests.
   *
   * @throws {StorageError}
   */
  async read(digest: Digest): Promise<Buffer | undefined> {
    const reader = await this.#openWhole(digest);
    if (reader === undefined) return undefined;
    const bytes = Buffer.allocUnsafeSlow(reader.size);
    try {
      for (let at = 0; at < bytes.length; ) {
        at += await reader.read(bytes.subarray(at), at, bytes.length);
      }
    } finally {
      await reader.close();
    }
    const actual = digestOf(bytes, digestAlgorithm(digest));
    if (actual === digest) return bytes;
    await this.discardDamaged(new ContentError('digest-mismatch', digest, digest, actual));
    return undefined;
  }

  /**
   * Takes verified content in, and writes `changes` with its records.
   *
   * @throws {StorageError}
   */
  async commit(content: NewContent, changes: readonly IndexChange[]): Promise<void> {
    const { store, index, inventory, clock } = this.#context;
    const { digest, path, sums, ...kind } = content;
    const release = this.hold(digest);
    try {
      while (this.#leaving.has(digest)) await this.#leaving.get(digest);
      const { size, allocated } = await store.commit(digest, path);
      inventory.add(digest, { size, allocated, usedAt: clock.now(), ...kind });
      // With what it lists, whose use is as new: else a crash could bring it back in the wrong order.
      const records = inventory.closure(digest).flatMap((used): IndexChange[] => {
        const value = inventory.get(used);
        return value === undefined ? [] : [{ put: 'content', digest: used, value }];
      });
      if (sums !== undefined) records.push({ put: 'sums', digest, value: sums });
      await index.write([...records, ...changes]);
    } finally {
      release();
    }
  }

  /** Takes up a file that is in the store without a record. @throws {StorageError} */
  async adopt(digest: Digest, record: ContentRecord): Promise<void> {
    this.#context.inventory.add(digest, record);
    await this.#context.index.write([{ put: 'content', digest, value: record }]);
  }

  /** Keeps `digest` from being evicted until the function that it returns is called; calling that twice is no error. */
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

  /**
   * Removes content with everything that is known of it: tags that mean it, and who may serve it. What the disk
   * refuses to remove is reported, and left for the next scrub.
   *
   * @returns bytes that have become free
   */
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

  /**
   * Removes what is not what it was, and with a blob the image manifests that list it: they could not be completed.
   * An index stays, for its other platforms' sake.
   */
  async discardDamaged({ digest, message }: ContentError): Promise<void> {
    const { inventory, faults, logger } = this.#context;
    const record = inventory.get(digest);
    if (record === undefined) return; // somebody else has seen it, too
    logger.error({ digest, reason: message }, 'stored content is damaged or lost, and forgotten');
    faults.count('check', 'DAMAGED');
    const images = record.mediaType === undefined ? inventory.parentsOf([digest]).get(digest) : [];
    await this.remove([digest, ...(images ?? [])]);
  }

  /**
   * Hashes all of it; what is damaged or lost is forgotten.
   *
   * @param onRead told how many bytes were read, and awaited
   * @returns whether it is whole
   * @throws {StorageError}
   */
  async verify(digest: Digest, onRead: (bytes: number) => Promise<void>): Promise<boolean> {
    const release = this.hold(digest);
    const reader = await this.#openWhole(digest).catch((error: unknown) => {
      release();
      throw error;
    });
    try {
      if (reader === undefined) return false;
      const sums = await sumUp(reader, digest, onRead);
      if ((await this.#context.index.sums(digest)) !== sums) await this.#recordSums(digest, sums);
      return true;
    } catch (error) {
      if (!(error instanceof ContentError)) throw error;
      await this.discardDamaged(error);
      return false;
    } finally {
      await reader?.close();
      release();
    }
  }

  /** Records what was used since the last time, in batches. Never rejects: what the disk refuses is reported. */
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

  /** @returns undefined if there is none, or it is not all there, and then forgotten */
  async #openWhole(digest: Digest): Promise<StoredReader | undefined> {
    const reader = await this.#context.store.open(digest);
    const expected = this.get(digest)?.size;
    if (expected === undefined || reader?.size === expected) return reader;
    await reader?.close();
    await this.discardDamaged(new ContentError('truncated', digest, expected, reader?.size ?? 'no file'));
    return undefined;
  }

  #wasChecked(digest: Digest, version: string): boolean {
    const checked = this.#checked.get(digest);
    if (checked?.version !== version) return false;
    return Math.abs(this.#context.clock.now() - checked.at) < CHECK_LASTS_MS;
  }

  /** Content without sums, as after the loss of the index, is hashed before it is read for the first time. */
  #check(digest: Digest, reader: ContentReader): Promise<string> {
    return this.#checks.run(digest, async () => {
      const value = await sumUp(reader, digest);
      await this.#recordSums(digest, value);
      return value;
    }).result;
  }

  #recordSums(digest: Digest, value: string): Promise<void> {
    return this.#context.faults.tolerate(() => this.#context.index.write([{ put: 'sums', digest, value }]));
  }

  async #drop(records: ReadonlyMap<Digest, ContentRecord>): Promise<void> {
    const { store, index, faults } = this.#context;
    await this.#flushing; // which may be writing just these records
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
      for await (const [key] of index.links(digest)) {
        changes.push({ delete: 'link', key, digest });
        if (mediaType === undefined) continue;
        repositories.set(`${key.upstream}/${key.repository}`, key);
        // Leave for what is here stays: upstream gave it. Leave for what never came goes with what told of it.
        const absent = children.filter((child) => inventory.get(child) === undefined);
        changes.push(...absent.map((child): IndexChange => ({ delete: 'link', key, digest: child })));
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
