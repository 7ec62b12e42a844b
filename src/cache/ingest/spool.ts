/**
 * Keeps content in `ingest/` until it is verified and moved into the content store.
 *
 * Only the followers of the ingest that writes a file are served from it.
 */
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { type Digest, digestAlgorithm, digestHex, parseDigest } from '../../oci/digest.ts';
import { errnoOf, StorageError } from '../store/errors.ts';
import type { FileHandle, FileSystem } from '../store/file-system.ts';
import { HashedFront } from './hashed-front.ts';
import { Ingest } from './ingest.ts';

/** A shorter partial blob is fetched again from the start: that is cheaper than keeping it. */
const RESUME_MIN_BYTES = 1024 * 1024;
/** The name of a partial blob: its digest, and a hash of its origin. */
const PARTIAL = /^(sha256|sha512)-([a-f0-9]+)\.[a-f0-9]{16}$/;
/** The extension of a note; see {@link Spool.noteFront}. */
const NOTE = '.front';
const HASH_BUFFER_BYTES = 1024 * 1024;

export class Spool {
  readonly #directory: string;
  readonly #fs: FileSystem;
  /** Bytes of the partial blobs that can be resumed, by path. */
  readonly #partials = new Map<string, number>();
  #files = 0;

  constructor(directory: string, fs: FileSystem) {
    this.#directory = join(directory, 'ingest');
    this.#fs = fs;
  }

  /**
   * Makes the directory and removes what earlier runs left, except large partial blobs, which can be resumed.
   *
   * @throws {StorageError}
   */
  async sweep(): Promise<void> {
    try {
      await this.#fs.mkdir(this.#directory, { recursive: true, mode: 0o700 });
      for await (const entry of await this.#fs.opendir(this.#directory)) {
        // A note goes with its file, whichever is listed first: without its note, all that is in the file would count.
        const isNote = entry.name.endsWith(NOTE);
        const name = isNote ? entry.name.slice(0, -NOTE.length) : entry.name;
        const path = join(this.#directory, name);
        if (!(await this.#isResumable(name))) await this.discard(path);
        else if (!isNote) this.#partials.set(path, (await this.#fs.stat(path)).size);
      }
    } catch (error) {
      throw new StorageError('sweep', error);
    }
  }

  /** Bytes of the partial blobs for which no ingest is open. */
  get partialBytes(): number {
    return [...this.#partials.values()].reduce((sum, bytes) => sum + bytes, 0);
  }

  /** Removes the partial blobs for which no ingest is open. */
  async discardPartials(): Promise<void> {
    for (const path of this.#partials.keys()) await this.discard(path);
  }

  /**
   * Begins an ingest. Resumes the file that an earlier ingest of this digest and origin left. The caller must not open
   * two of these at a time. The bytes of another origin are not resumed, because they may be wrong.
   *
   * @throws {StorageError}
   */
  async open(digest: Digest, origin: string): Promise<Ingest> {
    const tag = createHash('sha256').update(origin).digest('hex').slice(0, 16);
    const path = join(this.#directory, `${digestAlgorithm(digest)}-${digestHex(digest)}.${tag}`);
    let file: FileHandle | undefined;
    try {
      this.#partials.delete(path);
      file = await this.#openFile(path);
      const noted = await this.#readNote(path);
      if (noted !== undefined) await file.truncate(Math.min(noted, (await file.stat()).size));
      return new Ingest(await hashFile(digest, file), { digest, path, file });
    } catch (error) {
      await file?.close();
      throw new StorageError('open', error);
    }
  }

  /**
   * Begins an ingest in a file of its own, which is never resumed. Any number of them may run for one digest.
   *
   * @throws {StorageError}
   */
  async openApart(digest: Digest): Promise<Ingest> {
    const path = this.#newPath();
    try {
      return new Ingest(new HashedFront(digest), { digest, path, file: await this.#fs.open(path, 'w+') });
    } catch (error) {
      throw new StorageError('open', error);
    }
  }

  /**
   * Keeps the file of an ingest that broke off, if it is worth resuming. Never throws: what cannot be kept is fetched
   * again.
   */
  async retire(ingest: Ingest, options: { resumable: boolean }): Promise<void> {
    const { path } = ingest;
    try {
      if (options.resumable) await ingest.truncate();
      if (!options.resumable || ingest.front < RESUME_MIN_BYTES) return await this.discard(path);
      this.#partials.set(path, ingest.front);
      await this.#fs.unlink(path + NOTE);
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') await this.discard(path);
    }
  }

  /**
   * Writes down the length of the front. If the process is killed while segments are written, there may be holes behind
   * the front. Without a note, the whole file counts.
   *
   * @throws {StorageError}
   */
  async noteFront({ path, front }: Ingest): Promise<void> {
    try {
      await using file = await this.#fs.open(path + NOTE, 'w');
      await file.writeFile(String(front));
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
    const path = this.#newPath();
    let operation = 'open';
    try {
      await using file = await this.#fs.open(path, 'w');
      operation = 'write';
      await file.writeFile(bytes);
      operation = 'sync';
      await file.datasync();
      return path;
    } catch (error) {
      await this.discard(path);
      throw new StorageError(operation, error);
    }
  }

  /** Checks that the disk can be written to. @throws {StorageError} */
  async probe(): Promise<true> {
    await this.discard(await this.put(Buffer.from('probe')));
    return true;
  }

  /** Removes a spooled file. If that fails, the next {@link sweep} removes it. */
  async discard(path: string): Promise<void> {
    this.#partials.delete(path);
    await this.#fs.unlink(path).catch(() => undefined);
    await this.#fs.unlink(path + NOTE).catch(() => undefined);
  }

  #newPath(): string {
    this.#files += 1;
    return join(this.#directory, `new-${this.#files}`);
  }

  async #isResumable(name: string): Promise<boolean> {
    const [, algorithm, hex] = PARTIAL.exec(name) ?? [];
    if (parseDigest(`${algorithm}:${hex}`) === undefined) return false;
    const path = join(this.#directory, name);
    try {
      const { size } = await this.#fs.stat(path);
      return Math.min(size, (await this.#readNote(path)) ?? size) >= RESUME_MIN_BYTES;
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return false;
      throw error;
    }
  }

  async #readNote(path: string): Promise<number | undefined> {
    try {
      await using file = await this.#fs.open(path + NOTE, 'r');
      const length = Number(await file.readFile('utf8'));
      return Number.isSafeInteger(length) ? length : 0; // the note itself was cut off
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

/** Hashes what the file already holds. It becomes the front. */
async function hashFile(digest: Digest, file: FileHandle): Promise<HashedFront> {
  const front = new HashedFront(digest);
  const buffer = Buffer.allocUnsafe((await file.stat()).size === 0 ? 1 : HASH_BUFFER_BYTES);
  for (;;) {
    const { bytesRead } = await file.read(buffer, 0, buffer.length, front.length);
    if (bytesRead === 0) return front;
    front.add(buffer.subarray(0, bytesRead));
  }
}
