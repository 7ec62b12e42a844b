/**
 * Opens, reads, commits and checks stored content.
 *
 * Adding content writes its file first and its record second. Removing does the reverse. A crash in between leaves a
 * file without a record, which the next start adopts. It never leaves a record without its file.
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
  /** A verified file, which is moved into the store. */
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
 * A blob that was read whole is not checked again for this long, unless its file was written to. Its bytes then come
 * from the system's memory and not from the disk, which may have lost them. A check takes a third of the cost of a hit.
 */
const CHECK_LASTS_MS = 10 * 60_000;
const REMEMBERED_CHECKS = 10_000;

export class ContentCache {
  readonly #context: ContentCacheContext;
  readonly #checks = new SingleFlight<string>();
  /** When a whole blob was last checked. */
  readonly #checked = new LRUCache<Digest, { version: string; at: number }>({ max: REMEMBERED_CHECKS });

  constructor(context: ContentCacheContext) {
    this.#context = context;
  }

  /**
   * Opens content for reading. Removes content that is damaged or lost, and then does not find it. Open content is not
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
   * Reads a whole manifest and checks its digest.
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
   * Stores verified content, and writes `changes` together with its records.
   *
   * @throws {StorageError}
   */
  async commit(content: NewContent, changes: readonly IndexChange[]): Promise<void> {
    const { store, catalog, clock } = this.#context;
    const { digest, path, sums, ...kind } = content;
    const release = catalog.hold(digest);
    try {
      await catalog.settled(digest);
      // Keeps the origin of imported or pushed content when a pull brings it again.
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

  /** Adds the record of a file that is in the store without one. @throws {StorageError} */
  adopt(digest: Digest, record: ContentRecord): Promise<void> {
    return this.#context.catalog.add(digest, record, []);
  }

  /**
   * Hashes all of it. Removes content that is damaged or lost.
   *
   * @param onRead called with the number of bytes that were read, and awaited
   * @returns whether it is complete and undamaged
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

  /** @returns undefined if the file is missing or too short. Its record is then removed */
  async #openWhole(digest: Digest): Promise<StoredReader | undefined> {
    const reader = await this.#context.store.open(digest);
    const expected = (await this.#context.catalog.get(digest))?.size;
    if (expected === undefined || reader?.size === expected) return reader;
    await reader?.close();
    await this.#discardDamaged(new ContentError('truncated', digest, expected, reader?.size ?? 'no file'));
    return undefined;
  }

  /**
   * Removes damaged content. With a blob it also removes the image manifests that list it, because they are incomplete
   * now. An index stays for its other platforms.
   */
  async #discardDamaged({ digest, message }: ContentError): Promise<void> {
    const { catalog, faults, logger } = this.#context;
    const record = await catalog.get(digest);
    if (record === undefined) return; // another reader has found it and removed it
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

  /** Hashes content without block sums before its first read. That is the case after the index was lost. */
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
