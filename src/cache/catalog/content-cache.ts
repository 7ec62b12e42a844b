/**
 * The content that is held, as bytes: opened, read, committed and checked here.
 *
 * Content comes file first, record second, and goes record first, file second. A crash in between leaves a file that no
 * record knows, which the next start takes up again, and never a record that promises what is not there.
 */
import { LRUCache } from 'lru-cache';
import type { Clock } from '../../clock.ts';
import { type Digest, digestAlgorithm, digestOf } from '../../oci/digest.ts';
import { SingleFlight } from '../../single-flight.ts';
import type { Logger } from '../../telemetry/log.ts';
import type { ContentOrigin, ContentRecord, IndexChange, IndexStore } from '../index/index-store.ts';
import { CheckedReader } from '../store/checked-reader.ts';
import type { ContentReader, ContentStore, StoredReader } from '../store/content-store.ts';
import { sumUp } from '../store/content-sums.ts';
import { ContentError } from '../store/errors.ts';
import type { StorageFaults } from '../store/storage-faults.ts';
import type { LocalCatalog } from './local-catalog.ts';

export interface NewContent {
  digest: Digest;
  /** A verified file, which is taken over. */
  path: string;
  /** The block sums. A manifest has none: it is always read whole, and checked by its digest. */
  sums?: string;
  mediaType?: string;
  children?: readonly Digest[];
  origin?: Exclude<ContentOrigin, 'mirrored'>;
}

export interface ContentCacheContext {
  store: ContentStore;
  index: IndexStore;
  catalog: LocalCatalog;
  faults: StorageFaults;
  logger: Logger;
  clock: Clock;
}

/**
 * For this long a blob that was read whole is not checked again, unless its file was written to: its bytes come from the
 * system's memory then, not from the disk that could have lost them. A check costs a third of a hit.
 */
const CHECK_LASTS_MS = 10 * 60_000;
const REMEMBERED_CHECKS = 10_000;

export class ContentCache {
  readonly #context: ContentCacheContext;
  readonly #checks = new SingleFlight<string>();
  /** When all of a blob was last seen to be right. */
  readonly #checked = new LRUCache<Digest, { version: string; at: number }>({ max: REMEMBERED_CHECKS });

  constructor(context: ContentCacheContext) {
    this.#context = context;
  }

  /**
   * Opens content for reading. Content that is damaged or lost is forgotten, and so not found. What is open is not
   * evicted.
   *
   * @throws {StorageError}
   */
  async open(digest: Digest): Promise<ContentReader | undefined> {
    const { catalog, index, clock } = this.#context;
    if ((await catalog.get(digest)) === undefined) return undefined;
    const release = catalog.hold(digest);
    let reader: StoredReader | undefined;
    try {
      reader = await this.#openWhole(digest);
      if (reader === undefined) {
        release();
        return undefined;
      }
      catalog.touch(digest);
      const { version } = reader;
      const sums = this.#wasChecked(digest, version)
        ? undefined
        : ((await index.sums(digest)) ?? (await this.#check(digest, reader)));
      return new CheckedReader(reader, digest, sums, {
        whole: () => this.#checked.set(digest, { version, at: clock.now() }),
        damaged: (error) => this.#discardDamaged(error),
        closed: release,
      });
    } catch (error) {
      await reader?.close();
      release();
      if (!(error instanceof ContentError)) throw error;
      await this.#discardDamaged(error);
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
    await this.#discardDamaged(new ContentError('digest-mismatch', digest, digest, actual));
    return undefined;
  }

  /**
   * Takes verified content in, and writes `changes` with its records.
   *
   * @throws {StorageError}
   */
  async commit(content: NewContent, changes: readonly IndexChange[]): Promise<void> {
    const { store, catalog, clock } = this.#context;
    const { digest, path, sums, ...kind } = content;
    const release = catalog.hold(digest);
    try {
      await catalog.settled(digest);
      // What somebody imported or pushed stays that, though a pull has brought it once more.
      const origin = kind.origin ?? (await catalog.get(digest))?.origin;
      const { size, allocated } = await store.commit(digest, path);
      const sumsChange: IndexChange[] = sums === undefined ? [] : [{ put: 'sums', digest, value: sums }];
      const record = {
        size,
        allocated,
        usedAt: clock.now(),
        ...kind,
        ...(origin === undefined ? {} : { origin }),
      };
      await catalog.add(digest, record, [...sumsChange, ...changes]);
    } finally {
      release();
    }
  }

  /** Takes up a file that is in the store without a record. @throws {StorageError} */
  adopt(digest: Digest, record: ContentRecord): Promise<void> {
    return this.#context.catalog.add(digest, record, []);
  }

  /**
   * Hashes all of it. Content that is damaged or lost is forgotten.
   *
   * @param onRead told how many bytes were read, and awaited
   * @returns whether it is whole
   * @throws {StorageError}
   */
  async verify(digest: Digest, onRead: (bytes: number) => Promise<void>): Promise<boolean> {
    const release = this.#context.catalog.hold(digest);
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
      await this.#discardDamaged(error);
      return false;
    } finally {
      await reader?.close();
      release();
    }
  }

  /** @returns undefined if there is none, or not all of it is there, and then it is forgotten */
  async #openWhole(digest: Digest): Promise<StoredReader | undefined> {
    const reader = await this.#context.store.open(digest);
    const expected = (await this.#context.catalog.get(digest))?.size;
    if (expected === undefined || reader?.size === expected) return reader;
    await reader?.close();
    await this.#discardDamaged(new ContentError('truncated', digest, expected, reader?.size ?? 'no file'));
    return undefined;
  }

  /**
   * Removes content that is not what it was, and with a blob the image manifests that list it: they could not be
   * completed. An index stays, for the sake of its other platforms.
   */
  async #discardDamaged({ digest, message }: ContentError): Promise<void> {
    const { catalog, faults, logger } = this.#context;
    const record = await catalog.get(digest);
    if (record === undefined) return; // somebody else has seen it too
    logger.error({ digest, reason: message }, 'stored content is damaged or lost, and was removed');
    faults.count('check', 'DAMAGED');
    const images = record.mediaType === undefined ? (await catalog.parentsOf([digest])).get(digest) : [];
    await catalog.remove([digest, ...(images ?? [])]);
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
}
