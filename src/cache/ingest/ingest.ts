/**
 * One blob on its way in: it is written to a file and hashed, any number of followers read that file.
 *
 * Invariants: a follower sees only bytes that are in the file and hashed; nobody is given the last bytes of what he asked for
 * before the digest of the whole has matched; nothing is buffered per follower, so none can slow another.
 */
import { createHash, type Hash } from 'node:crypto';
import { type Digest, digestAlgorithm, digestFrom } from '../../oci/digest.ts';
import { BlockSums } from '../store/block-sums.ts';
import type { ContentReader } from '../store/content-store.ts';
import { ContentError, StorageError } from '../store/errors.ts';
import type { FileHandle } from '../store/file-system.ts';
import { GatheredWriter } from './gathered-writer.ts';

/** Bytes kept from every follower until the digest has matched; a shorter request gets nothing before that. */
const HOLD_BACK_BYTES = 64 * 1024;
/** Read back at a time, of what came before it was its turn to be hashed. */
const READ_BACK_BYTES = 1024 * 1024;

/** Writes one part of a blob, front to back. */
export interface IngestWriter {
  /**
   * Adds the next bytes. Await the result: it is the back-pressure of the disk. The chunk is given away: its memory is
   * freed when it is in the file.
   *
   * @throws {ContentError} they are beyond the end of the blob
   * @throws {StorageError} they cannot be written; followers go on elsewhere from {@link Ingest.hashedPrefix}
   */
  append(chunk: Buffer): Promise<void>;
}

/** The front part of the blob that is in the file, and the state of the hash at its end. */
export interface HashedPrefix {
  /** Bytes. */
  length: number;
  hash: Hash;
}

/**
 * How far a client who reads `position` to `end` may be served when `arrived` bytes are here: all of them once the
 * whole blob is `verified`, else all but the last, so that no reply with wrong bytes is ever complete.
 */
export function releasableEnd(position: number, end: number, arrived: number, verified: boolean): number {
  return verified ? end : Math.min(arrived, Math.max(position, end - HOLD_BACK_BYTES));
}

/** Ends `hash`. @throws {ContentError} its value is not `digest` */
export function assertDigest(hash: Hash, digest: Digest): void {
  const actual = digestFrom(hash, digestAlgorithm(digest));
  if (actual !== digest) throw new ContentError('digest-mismatch', digest, digest, actual);
}

export class Ingest {
  readonly digest: Digest;
  readonly #file: FileHandle;
  readonly #hash: Hash;
  readonly #sums: BlockSums;
  /** The front part is in the file up to here, and hashed. */
  #written: number;
  /** The hash stands here: ahead of {@link #written} by what is being written just now. */
  #hashed: number;
  /** The hash as it stood before it ran ahead. */
  #checkpoint: HashedPrefix;
  /** What lies in the file, by where it begins: behind the front part, too, when segments are fetched. */
  readonly #endByStart = new Map<number, number>();
  #catchingUp: Promise<void> | undefined;
  /** What was hashed last, still in memory: who reads at the front need not wait for the disk. */
  #recent: { start: number; batch: readonly Buffer[]; inFile: boolean } | undefined;
  readonly #writers: GatheredWriter[] = [];
  #size: number | undefined;
  #verified = false;
  #failure: Error | undefined;
  readonly #waiting = new Set<() => void>();
  /** The writer and every follower hold the file open. */
  #holders = 1;

  /** @param prefix what `file` already holds of this blob from an earlier attempt */
  constructor(digest: Digest, file: FileHandle, prefix?: HashedPrefix & { sums: BlockSums }) {
    this.digest = digest;
    this.#file = file;
    this.#hash = prefix?.hash ?? createHash(digestAlgorithm(digest));
    this.#sums = prefix?.sums ?? new BlockSums();
    this.#written = prefix?.length ?? 0;
    this.#hashed = this.#written;
    this.#checkpoint = { length: this.#written, hash: this.#hash.copy() };
  }

  /** Bytes of the whole blob, once known. */
  get size(): number | undefined {
    return this.#size;
  }

  /** Bytes of the front part: where a fetch begins that goes on. */
  get written(): number {
    return this.#written;
  }

  /** All bytes are here, and they are the right ones. */
  get verified(): boolean {
    return this.#verified;
  }

  /**
   * Says how long the blob is, which lets followers begin.
   *
   * @throws {ContentError} it was said to be of another length before, or more has come already
   */
  setSize(size: number): void {
    if (this.#size !== undefined && this.#size !== size) {
      throw new ContentError('size-mismatch', this.digest, this.#size, size);
    }
    if (this.#written > size) throw new ContentError('size-mismatch', this.digest, size, this.#written);
    this.#size = size;
    this.#wake();
  }

  /**
   * Begins to write at `position`. Several writers may be at work, each on a part of its own; the hash runs over the
   * parts in their order, and takes up later ones from the file.
   */
  writer(position: number): IngestWriter {
    const writer = new GatheredWriter(this.#file, position, {
      writing: (batch, at) => this.#hashAhead(batch, at),
      written: (batch, at, length) => {
        if (batch === this.#recent?.batch) this.#recent.inFile = true;
        else free(batch);
        this.#endByStart.set(position, at + length);
        this.#advance();
      },
    });
    this.#writers.push(writer);
    return {
      append: (chunk) => this.#append(writer, chunk),
    };
  }

  /**
   * Ends the writing and compares the digest; on success followers get the bytes that were held back.
   *
   * @throws {ContentError} the bytes are wrong or too few
   * @throws {StorageError} the last ones could not be written
   */
  async verify(): Promise<void> {
    for (const writer of this.#writers) await this.#orAbort(writer.flush());
    await this.#catchingUp;
    if (this.#failure !== undefined) throw this.#failure;
    const size = this.#size ?? this.#written;
    if (this.#written < size) throw new ContentError('truncated', this.digest, size, this.#written);
    assertDigest(this.#hash.copy(), this.digest);
    this.#verified = true;
    this.setSize(size);
  }

  /** The {@link BlockSums} of the whole blob. Call only when it is verified, and once. */
  sums(): string {
    return this.#sums.value();
  }

  /** Flushes to the disk, so that a committed blob survives a power cut. @throws {StorageError} */
  async sync(): Promise<void> {
    try {
      await this.#file.datasync();
    } catch (error) {
      throw new StorageError('sync', error);
    }
  }

  /** Gives up; followers get `cause`. After {@link verify} has succeeded they no longer care. */
  abort(cause: Error): void {
    this.#failure ??= cause;
    this.#wake();
  }

  /** Cuts off what lies behind the front part, so that a later attempt finds no holes. @throws the system's error */
  async truncate(): Promise<void> {
    await this.#settled();
    await this.#file.truncate(this.#written);
  }

  /** The writers' end, after success or abort; followers keep the file open as long as they need it. */
  async end(): Promise<void> {
    await this.#settled();
    this.#forgetRecent();
    await this.#release();
  }

  /** What can be trusted to lie in the file, for someone who must go on from there without us. */
  hashedPrefix(): HashedPrefix {
    if (this.#hashed === this.#written) return { length: this.#written, hash: this.#hash.copy() };
    return { length: this.#checkpoint.length, hash: this.#checkpoint.hash.copy() };
  }

  /** Resolves when the size is known. @throws whatever {@link abort} was given */
  async sized(): Promise<number> {
    while (this.#size === undefined) {
      if (this.#failure !== undefined) throw this.#failure;
      await new Promise<void>((resolve) => this.#waiting.add(resolve));
    }
    return this.#size;
  }

  /** Begins to read along. Call only when the size is known; the caller must close the reader. */
  follow(): ContentReader {
    const size = this.#size;
    if (size === undefined) throw new Error('an ingest cannot be followed before its size is known');
    this.#holders += 1;
    let closed = false;
    let wake: (() => void) | undefined;
    return {
      size,
      read: async (target, position, end) => {
        for (;;) {
          if (closed) throw new Error('the reader is closed');
          const limit = releasableEnd(position, end, this.#written, this.#verified);
          if (limit > position || position >= end) {
            return this.#copyRecent(target, position, limit) || this.#read(target, position, limit);
          }
          if (this.#failure !== undefined) throw this.#failure;
          await new Promise<void>((resolve) => {
            wake = resolve;
            this.#waiting.add(resolve);
          });
        }
      },
      close: async () => {
        if (closed) return;
        closed = true;
        if (wake !== undefined && this.#waiting.delete(wake)) wake();
        await this.#release();
      },
    };
  }

  async #append(writer: GatheredWriter, chunk: Buffer): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure;
    const end = writer.end + chunk.length;
    if (this.#size !== undefined && end > this.#size) {
      throw new ContentError('size-mismatch', this.digest, this.#size, end);
    }
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

  /** Hashes what is about to be in the file, if it is the turn of these bytes; else they are read back later. */
  #hashAhead(batch: readonly Buffer[], position: number): void {
    if (position !== this.#hashed || this.#catchingUp !== undefined) return;
    if (this.#hashed === this.#written) this.#checkpoint = { length: this.#hashed, hash: this.#hash.copy() };
    this.#forgetRecent();
    this.#recent = { start: position, batch, inFile: false };
    for (const chunk of batch) {
      this.#sumUp(chunk);
    }
  }

  /** One that is not in the file yet, because the next segment's has come before, is freed when it is. */
  #forgetRecent(): void {
    if (this.#recent?.inFile === true) free(this.#recent.batch);
    this.#recent = undefined;
  }

  /** @returns bytes copied; 0 if they have to be read from the file */
  #copyRecent(target: Buffer, position: number, limit: number): number {
    if (this.#recent === undefined) return 0;
    let copied = 0;
    let at = this.#recent.start;
    for (const chunk of this.#recent.batch) {
      const from = position + copied - at;
      at += chunk.length;
      if (from < 0 || from >= chunk.length) continue;
      const length = Math.min(chunk.length - from, limit - position - copied, target.length - copied);
      chunk.copy(target, copied, from, from + length);
      copied += length;
    }
    return copied;
  }

  #advance(): void {
    for (let end = this.#endBehind(this.#written); end !== undefined; end = this.#endBehind(this.#written)) {
      if (this.#hashed === this.#written) {
        this.#catchingUp ??= this.#catchUp();
        break;
      }
      this.#written = Math.min(end, this.#hashed);
    }
    this.#wake();
  }

  /** How far the part of the file reaches that goes on at `position`. */
  #endBehind(position: number): number | undefined {
    for (const [start, end] of this.#endByStart) if (start <= position && position < end) return end;
    return undefined;
  }

  /** Hashes what was written before it was its turn. */
  async #catchUp(): Promise<void> {
    const buffer = Buffer.allocUnsafe(READ_BACK_BYTES);
    try {
      for (
        let end = this.#endBehind(this.#written);
        end !== undefined;
        end = this.#endBehind(this.#written)
      ) {
        const bytes = await this.#read(buffer, this.#written, end);
        this.#sumUp(buffer.subarray(0, bytes));
        this.#written += bytes;
        this.#wake();
      }
    } catch (error) {
      this.abort(error instanceof Error ? error : new Error(String(error)));
    } finally {
      this.#catchingUp = undefined;
    }
  }

  #sumUp(bytes: Buffer): void {
    this.#hash.update(bytes);
    this.#sums.update(bytes);
    this.#hashed += bytes.length;
  }

  async #read(target: Buffer, position: number, limit: number): Promise<number> {
    try {
      const length = Math.min(target.length, limit - position);
      return (await this.#file.read(target, 0, length, position)).bytesRead;
    } catch (error) {
      throw new StorageError('read', error);
    }
  }

  async #settled(): Promise<void> {
    await Promise.allSettled(this.#writers.map((writer) => writer.flush()));
    await this.#catchingUp;
  }

  async #release(): Promise<void> {
    this.#holders -= 1;
    if (this.#holders === 0) await this.#file.close();
  }

  #wake(): void {
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const resolve of waiting) resolve();
  }
}

/**
 * Frees the memory of chunks at once. Left to the garbage collector they pile up outside its heap faster than it looks
 * for them, and then it marks the whole heap every 20 MiB: a third of the CPU of a cold blob (bench/README.md). A chunk
 * that shares its memory with others is left to it all the same.
 */
function free(batch: readonly Buffer[]): void {
  for (const { buffer, length } of batch) {
    if (buffer instanceof ArrayBuffer && length === buffer.byteLength) buffer.transfer(0);
  }
}
