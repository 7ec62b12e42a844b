/** The content store in files: `blobs/<algorithm>/<first 2 hex>/<hex>`, read-only once committed. */
import type { Stats } from 'node:fs';
import { dirname, join } from 'node:path';
import { type Digest, digestAlgorithm, digestHex, parseDigest } from '../../oci/digest.ts';
import type { ContentStore, StoredContent, StoredReader } from './content-store.ts';
import { errnoOf, StorageError } from './errors.ts';
import { type Group, isShared, makeBlobFolder, protectFile } from './file-modes.ts';
import type { FileHandle, FileSystem } from './file-system.ts';

/** The unit of `st_blocks`. POSIX leaves it open; every system that Node runs on uses this one. */
const STAT_BLOCK_BYTES = 512;

export class FsStore implements ContentStore {
  readonly #blobs: string;
  readonly #fs: FileSystem;
  readonly #group: Group;

  /** @param group may read the files, too: that of a front server */
  constructor(directory: string, fs: FileSystem, group?: Group) {
    this.#blobs = join(directory, 'blobs');
    this.#fs = fs;
    this.#group = group;
  }

  async open(digest: Digest): Promise<StoredReader | undefined> {
    let file: FileHandle;
    try {
      file = await this.#fs.open(this.#path(digest), 'r');
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return undefined;
      throw new StorageError('open', error);
    }
    try {
      let stats = await file.stat();
      if (!isShared(stats, this.#group)) {
        await this.#share(digest);
        stats = await file.stat();
      }
      return new FileReader(file, isShared(stats, this.#group) ? relativePath(digest) : undefined, stats);
    } catch (error) {
      await file.close();
      throw new StorageError('open', error);
    }
  }

  async stat(digest: Digest): Promise<StoredContent | undefined> {
    try {
      return await this.#stat(digest);
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return undefined;
      throw new StorageError('stat', error);
    }
  }

  async commit(digest: Digest, path: string): Promise<StoredContent> {
    const target = this.#path(digest);
    try {
      await makeBlobFolder(dirname(target), this.#fs, this.#group);
      await protectFile(path, this.#fs, this.#group);
      await this.#fs.rename(path, target);
      return await this.#stat(digest);
    } catch (error) {
      throw new StorageError('rename', error);
    }
  }

  async delete(digest: Digest): Promise<void> {
    try {
      await this.#fs.unlink(this.#path(digest));
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw new StorageError('unlink', error);
    }
  }

  async *list(): AsyncIterable<Digest> {
    for await (const algorithm of this.#entries(this.#blobs)) {
      for await (const prefix of this.#entries(join(this.#blobs, algorithm))) {
        for await (const hex of this.#entries(join(this.#blobs, algorithm, prefix))) {
          const digest = parseDigest(`${algorithm}:${hex}`);
          if (digest !== undefined) yield digest;
        }
      }
    }
  }

  /**
   * Lets the group read a file that was stored without one. Leaves a file of another user as it is: Millpond sends that
   * one itself.
   */
  async #share(digest: Digest): Promise<void> {
    try {
      await protectFile(this.#path(digest), this.#fs, this.#group);
    } catch (error) {
      if (errnoOf(error) !== 'EPERM') throw error;
    }
  }

  async #stat(digest: Digest): Promise<StoredContent> {
    const { size, blocks, mtimeMs } = await this.#fs.stat(this.#path(digest));
    return { size, allocated: blocks * STAT_BLOCK_BYTES, storedAt: mtimeMs };
  }

  async *#entries(folder: string): AsyncIterable<string> {
    try {
      for await (const entry of await this.#fs.opendir(folder)) yield entry.name;
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT' && errnoOf(error) !== 'ENOTDIR') throw new StorageError('list', error);
    }
  }

  #path(digest: Digest): string {
    return join(this.#blobs, relativePath(digest));
  }
}

function relativePath(digest: Digest): string {
  const hex = digestHex(digest);
  return join(digestAlgorithm(digest), hex.slice(0, 2), hex);
}

class FileReader implements StoredReader {
  readonly size: number;
  readonly version: string;
  readonly file?: string;
  readonly #file: FileHandle;

  /** @param path undefined if a front server cannot read it */
  constructor(file: FileHandle, path: string | undefined, { size, ctimeMs, ino }: Stats) {
    this.#file = file;
    if (path !== undefined) this.file = path;
    this.size = size;
    // ctime: only the system sets it, so a write cannot hide.
    this.version = `${ino} ${ctimeMs}`;
  }

  async read(target: Buffer, position: number, end: number): Promise<number> {
    const length = Math.min(target.length, end - position);
    try {
      const { bytesRead } = await this.#file.read(target, 0, length, position);
      if (bytesRead === 0 && length > 0) throw new Error('the file is shorter than it was');
      return bytesRead;
    } catch (error) {
      throw new StorageError('read', error);
    }
  }

  // FileHandle.close() waits for a running read and is idempotent.
  close(): Promise<void> {
    return this.#file.close();
  }
}
