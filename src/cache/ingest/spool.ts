/**
 * `ingest/`: where content lies until it is verified and handed to the content store.
 *
 * Files here are never served to anyone but the followers of the ingest that writes them.
 */
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { type Digest, digestAlgorithm, digestHex, parseDigest } from '../../oci/digest.ts';
import { BlockSums } from '../store/block-sums.ts';
import { errnoOf, StorageError } from '../store/errors.ts';
import type { FileHandle, FileSystem } from '../store/file-system.ts';
import { type HashedPrefix, Ingest } from './ingest.ts';

/** A shorter partial blob is fetched anew sooner than it is worth keeping. */
const RESUME_MIN_BYTES = 1024 * 1024;
/** What the name of a note of {@link Spool.noteFrontier} ends with. */
const FRONTIER = '.frontier';
const HASH_BUFFER_BYTES = 1024 * 1024;

export class Spool {
  readonly #directory: string;
  readonly #fs: FileSystem;
  /** Bytes of what earlier ingests left to be resumed, by path. */
  readonly #partials = new Map<string, number>();
  #puts = 0;

  constructor(directory: string, fs: FileSystem) {
    this.#directory = join(directory, 'ingest');
    this.#fs = fs;
  }

  /**
   * Makes the directory and removes what earlier runs left, but for large partial blobs, which are resumed.
   *
   * @throws {StorageError}
   */
  async sweep(): Promise<void> {
    try {
      await this.#fs.mkdir(this.#directory, { recursive: true });
      for await (const entry of await this.#fs.opendir(this.#directory)) {
        const path = join(this.#directory, entry.name);
        if (!(await this.#isResumable(entry.name))) await this.discard(path);
        else if (!entry.name.endsWith(FRONTIER)) this.#partials.set(path, (await this.#fs.stat(path)).size);
      }
    } catch (error) {
      throw new StorageError('sweep', error);
    }
  }

  /** Bytes that partial blobs take for which no ingest is open. */
  get partialBytes(): number {
    return [...this.#partials.values()].reduce((sum, bytes) => sum + bytes, 0);
  }

  /** Removes the partial blobs for which no ingest is open. */
  async discardPartials(): Promise<void> {
    for (const path of this.#partials.keys()) await this.discard(path);
  }

  /** Where the ingest of `digest` writes. The caller sees to it that there is only one at a time. */
  path(digest: Digest): string {
    return join(this.#directory, `${digestAlgorithm(digest)}-${digestHex(digest)}`);
  }

  /**
   * Begins an ingest, behind whatever an earlier one of this digest left in its file.
   *
   * @throws {StorageError}
   */
  async open(digest: Digest): Promise<Ingest> {
    let file: FileHandle | undefined;
    try {
      const path = this.path(digest);
      this.#partials.delete(path);
      file = await this.#openFile(path);
      const frontier = await this.#readFrontier(path);
      if (frontier !== undefined) await file.truncate(Math.min(frontier, (await file.stat()).size));
      return new Ingest(digest, file, await hashPrefix(digest, file));
    } catch (error) {
      await file?.close();
      throw new StorageError('open', error);
    }
  }

  /**
   * Begins an ingest in a file of its own, which is never resumed: for what may be fetched at the same time.
   *
   * @returns where it writes, too: the caller commits or discards that
   * @throws {StorageError}
   */
  async openApart(digest: Digest): Promise<{ ingest: Ingest; path: string }> {
    this.#puts += 1;
    const path = join(this.#directory, `apart-${this.#puts}`);
    try {
      return { ingest: new Ingest(digest, await this.#fs.open(path, 'w+')), path };
    } catch (error) {
      throw new StorageError('open', error);
    }
  }

  /** Keeps the file of an ingest that broke off if it is worth resuming. Never throws: it is a service, no duty. */
  async retire(ingest: Ingest, options: { resumable: boolean }): Promise<void> {
    const path = this.path(ingest.digest);
    try {
      if (options.resumable) await ingest.truncate();
      if (!options.resumable || ingest.written < RESUME_MIN_BYTES) return await this.discard(path);
      this.#partials.set(path, ingest.written);
      await this.#fs.unlink(path + FRONTIER);
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') await this.discard(path);
    }
  }

  /**
   * Notes that bytes up to `length` are there, and those behind need not be: a process that is killed while segments
   * are written leaves holes. Without a note, all that is in the file counts.
   *
   * @throws {StorageError}
   */
  async noteFrontier(digest: Digest, length: number): Promise<void> {
    try {
      const file = await this.#fs.open(this.path(digest) + FRONTIER, 'w');
      try {
        await file.writeFile(String(length));
      } finally {
        await file.close();
      }
    } catch (error) {
      throw new StorageError('write', error);
    }
  }

  /**
   * Writes small content, such as a manifest, whose digest the caller has verified.
   *
   * @returns the path to commit
   * @throws {StorageError}
   */
  async put(bytes: Uint8Array): Promise<string> {
    this.#puts += 1;
    const path = join(this.#directory, `put-${this.#puts}`);
    let operation = 'open';
    try {
      const file = await this.#fs.open(path, 'w');
      try {
        operation = 'write';
        await file.writeFile(bytes);
        operation = 'sync';
        await file.datasync();
      } finally {
        await file.close();
      }
      return path;
    } catch (error) {
      await this.discard(path);
      throw new StorageError(operation, error);
    }
  }

  /** Tries whether anything can be written at all. @throws {StorageError} */
  async probe(): Promise<true> {
    await this.discard(await this.put(Buffer.from('probe')));
    return true;
  }

  /** Removes a spooled file; that it is gone already, or cannot go now, is left to the next {@link sweep}. */
  async discard(path: string): Promise<void> {
    this.#partials.delete(path);
    await this.#fs.unlink(path).catch(() => undefined);
    await this.#fs.unlink(path + FRONTIER).catch(() => undefined);
  }

  async #isResumable(name: string): Promise<boolean> {
    const content = name.endsWith(FRONTIER) ? name.slice(0, -FRONTIER.length) : name;
    if (digestOfName(content) === undefined) return false;
    const path = join(this.#directory, content);
    try {
      const { size } = await this.#fs.stat(path);
      return Math.min(size, (await this.#readFrontier(path)) ?? size) >= RESUME_MIN_BYTES;
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return false;
      throw error;
    }
  }

  async #readFrontier(path: string): Promise<number | undefined> {
    try {
      const file = await this.#fs.open(path + FRONTIER, 'r');
      try {
        const length = Number(await file.readFile('utf8'));
        return Number.isSafeInteger(length) ? length : 0; // the note itself was cut off
      } finally {
        await file.close();
      }
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return undefined;
      throw error;
    }
  }

  async #openFile(path: string): Promise<FileHandle> {
    try {
      return await this.#fs.open(path, 'r+');
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error;
      return this.#fs.open(path, 'w+');
    }
  }
}

function digestOfName(name: string): Digest | undefined {
  return parseDigest(name.replace('-', ':'));
}

async function hashPrefix(digest: Digest, file: FileHandle): Promise<HashedPrefix & { sums: BlockSums }> {
  const hash = createHash(digestAlgorithm(digest));
  const sums = new BlockSums();
  const buffer = Buffer.allocUnsafe((await file.stat()).size === 0 ? 1 : HASH_BUFFER_BYTES);
  let length = 0;
  for (;;) {
    const { bytesRead } = await file.read(buffer, 0, buffer.length, length);
    if (bytesRead === 0) return { length, hash, sums };
    const bytes = buffer.subarray(0, bytesRead);
    hash.update(bytes);
    sums.update(bytes);
    length += bytesRead;
  }
}
