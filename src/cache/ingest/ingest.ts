/**
 * Takes in one blob: writes it to a file and hashes it. Any number of followers read that file.
 *
 * Invariants: a follower sees only bytes of the front, which are in the file and hashed. No follower gets the last bytes
 * of what it asked for before the digest of the whole has matched. Nothing is buffered per follower, so a slow one
 * cannot hold back another.
 */
import type { Digest } from '../../oci/digest.ts';
import { ContentError, StorageError } from '../store/errors.ts';
import type { FileHandle } from '../store/file-system.ts';
import { FollowingReader } from './following-reader.ts';
import { GatheredWriter } from './gathered-writer.ts';
import type { FrontState, HashedFront } from './hashed-front.ts';
import { free, RecentBytes } from './recent-bytes.ts';

/** Bytes to read back at a time. They were written before it was their turn to be hashed. */
const READ_BACK_BYTES = 1024 * 1024;

/** Writes one part of a blob, front to back. */
export interface IngestWriter {
  /**
   * Adds the next bytes. Await the result: it is the back-pressure of the disk. Do not use the chunk afterwards: its
   * memory is freed when it is in the file.
   *
   * @throws {ContentError} they are beyond the end of the blob
   * @throws {StorageError} they cannot be written; followers go on elsewhere from {@link Ingest.frontState}
   */
  append(chunk: Buffer): Promise<void>;
}

export class Ingest {
  readonly digest: Digest;
  /** The file that it writes. */
  readonly path: string;
  readonly #file: FileHandle;
  readonly #front: HashedFront;
  readonly #recent = new RecentBytes();
  readonly #writers: GatheredWriter[] = [];
  #readingBack: Promise<void> | undefined;
  #size: number | undefined;
  #verified = false;
  #failure: Error | undefined;
  readonly #sized = Promise.withResolvers<void>();
  readonly #followers = new Set<FollowingReader>();
  #ended = false;

  /** @param front the bytes of this blob that `file` already holds */
  constructor(
    front: HashedFront,
    { digest, path, file }: { digest: Digest; path: string; file: FileHandle },
  ) {
    this.digest = digest;
    this.path = path;
    this.#file = file;
    this.#front = front;
    this.#sized.promise.catch(() => undefined); // it may fail before anybody waits for the size
  }

  /** Bytes of the whole blob, once known. */
  get size(): number | undefined {
    return this.#size;
  }

  /** Bytes of the front. A resumed fetch begins here. */
  get front(): number {
    return this.#front.length;
  }

  /** All bytes have come, and the digest matches. */
  get verified(): boolean {
    return this.#verified;
  }

  /** It cannot be followed any more: its file is closed, or soon will be. */
  get ended(): boolean {
    return this.#ended;
  }

  /** Why no more bytes come. */
  get failure(): Error | undefined {
    return this.#failure;
  }

  /** Whether an earlier attempt left the whole blob: then nothing needs to be fetched. */
  get isWhole(): boolean {
    return this.#front.isWhole;
  }

  /**
   * Sets the size of the blob.
   *
   * @throws {ContentError} another size was set before, or more bytes have come already
   */
  setSize(size: number): void {
    if (this.#size !== undefined && this.#size !== size)
      throw new ContentError('size-mismatch', this.digest, this.#size, size);
    if (this.front > size) throw new ContentError('size-mismatch', this.digest, size, this.front);
    this.#size = size;
    this.#sized.resolve();
    this.#wake();
  }

  /** Resolves when the size is known. @throws the cause that {@link abort} was given */
  sized(): Promise<void> {
    return this.#sized.promise;
  }

  /**
   * Begins to write at `position`. Several writers may run, each on its own part. Parts are hashed in order: a part
   * that comes early is read back when it is its turn.
   */
  writer(position: number): IngestWriter {
    const writer = new GatheredWriter(this.#file, position, (batch, at) => this.#written(batch, at));
    this.#writers.push(writer);
    return { append: (chunk) => this.#append(writer, chunk) };
  }

  /**
   * Ends the writing and compares the digest. On success followers get the bytes that were held back.
   *
   * @throws {ContentError} the bytes are wrong or too few
   * @throws {StorageError} the last ones could not be written
   */
  async verify(): Promise<void> {
    for (const writer of this.#writers) await this.#orAbort(writer.flush());
    await this.#readingBack;
    if (this.#failure !== undefined) throw this.#failure;
    const size = this.#size ?? this.front;
    if (this.front < size) throw new ContentError('truncated', this.digest, size, this.front);
    this.#front.assertWhole();
    this.#verified = true;
    this.setSize(size);
  }

  /** The block sums of the whole blob. Call it once, when the blob is verified. */
  sums(): string {
    return this.#front.sums();
  }

  /** Flushes to the disk, so that a committed blob survives a power cut. @throws {StorageError} */
  async sync(): Promise<void> {
    try {
      await this.#file.datasync();
    } catch (error) {
      throw new StorageError('sync', error);
    }
  }

  /** Gives up. Followers get `cause`, unless {@link verify} has succeeded. */
  abort(cause: Error): void {
    this.#failure ??= cause;
    this.#sized.reject(this.#failure);
    this.#wake();
  }

  /** Cuts off what is behind the front, so that a later attempt finds no holes. @throws the system's error */
  async truncate(): Promise<void> {
    await this.#settled();
    await this.#file.truncate(this.front);
  }

  /** Ends the writing, after success or abort. Followers keep the file open as long as they need it. Idempotent. */
  async end(): Promise<void> {
    await this.#settled();
    this.#recent.clear();
    this.#ended = true;
    await this.#closeUnused();
  }

  /** The front, for a reader that must go on elsewhere. */
  frontState(): FrontState {
    return this.#front.state();
  }

  /**
   * Begins to follow. The caller must close the reader.
   *
   * @param size bytes that this client expects; needed while the size is unknown
   * @param onClose called once, when the reader is closed
   * @throws {ContentError} the blob has another size
   */
  follow(size = this.#size, onClose: () => void = () => undefined): FollowingReader {
    if (size === undefined) throw new Error('an ingest cannot be followed before its size is known');
    if (this.#size !== undefined && this.#size !== size)
      throw new ContentError('size-mismatch', this.digest, size, this.#size);
    const follower = new FollowingReader(this, size, onClose);
    this.#followers.add(follower);
    return follower;
  }

  /** Removes a follower that is closed. */
  async leave(follower: FollowingReader): Promise<void> {
    this.#followers.delete(follower);
    await this.#closeUnused();
  }

  /** Copies bytes of the front, for a follower. @returns how many, at least one. @throws {StorageError} */
  async copy(target: Buffer, position: number, end: number): Promise<number> {
    return this.#recent.copy(target, position, end) || this.#read(target, position, end);
  }

  async #append(writer: GatheredWriter, chunk: Buffer): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure;
    const end = writer.end + chunk.length;
    if (this.#size !== undefined && end > this.#size)
      throw new ContentError('size-mismatch', this.digest, this.#size, end);
    await this.#orAbort(writer.append(chunk));
  }

  async #orAbort(write: Promise<void>): Promise<void> {
    try {
      await write;
    } catch (error) {
      if (error instanceof Error) this.abort(error);
      throw error;
    }
  }

  /** Hashes a batch that is in the file now, if it is its turn. */
  #written(batch: readonly Buffer[], position: number): void {
    if (position === this.front && this.#readingBack === undefined) {
      for (const chunk of batch) this.#front.add(chunk);
      this.#recent.replace(batch, position);
      this.#wake();
    } else free(batch);
    if (this.#writtenEnd() !== undefined) this.#readingBack ??= this.#readBack();
  }

  /** The end of the written part that continues the front; undefined if nothing was written there yet. */
  #writtenEnd(): number | undefined {
    const isNext = ({ start, written }: GatheredWriter) => start <= this.front && this.front < written;
    return this.#writers.find(isNext)?.written;
  }

  /** Hashes bytes that were written before it was their turn. */
  async #readBack(): Promise<void> {
    const buffer = Buffer.allocUnsafe(READ_BACK_BYTES);
    this.#recent.clear(); // the front moves on past these bytes
    try {
      for (let end = this.#writtenEnd(); end !== undefined; end = this.#writtenEnd()) {
        this.#front.add(buffer.subarray(0, await this.#read(buffer, this.front, end)));
        this.#wake();
      }
    } catch (error) {
      this.abort(error instanceof Error ? error : new Error(String(error)));
    } finally {
      this.#readingBack = undefined;
    }
  }

  async #read(target: Buffer, position: number, end: number): Promise<number> {
    try {
      const length = Math.min(target.length, end - position);
      return (await this.#file.read(target, 0, length, position)).bytesRead;
    } catch (error) {
      throw new StorageError('read', error);
    }
  }

  async #settled(): Promise<void> {
    await Promise.allSettled(this.#writers.map((writer) => writer.flush()));
    await this.#readingBack;
  }

  async #closeUnused(): Promise<void> {
    if (this.#ended && this.#followers.size === 0) await this.#file.close();
  }

  #wake(): void {
    for (const follower of this.#followers) follower.wake();
  }
}
