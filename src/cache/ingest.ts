/**
 * One blob on its way in: one writer appends to a file and hashes, any number of followers read that file.
 *
 * Invariants: a follower sees only bytes that are in the file; nobody is given the last bytes of what he asked for
 * before the digest of the whole has matched; nothing is buffered per follower, so none can slow another.
 */
import { createHash, type Hash } from 'node:crypto';
import { type Digest, digestAlgorithm, digestFrom } from '../oci/digest.ts';
import type { ContentReader } from './content-store.ts';
import { ContentError, StorageError } from './errors.ts';
import type { FileHandle } from './file-system.ts';

/** Bytes kept from every follower until the digest has matched; a shorter request gets nothing before that. */
const HOLD_BACK_BYTES = 64 * 1024;
/** Bytes that wait in memory while a write is under way; above this the writer waits too. */
const GATHER_BYTES = 1024 * 1024;

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
  #hash: Hash;
  #written: number;
  #gathered: Buffer[] = [];
  #gatheredBytes = 0;
  #draining: Promise<void> | undefined;
  #size: number | undefined;
  #verified = false;
  #failure: Error | undefined;
  readonly #waiting = new Set<() => void>();
  /** The writer and every follower hold the file open. */
  #holders = 1;

  /** @param prefix what `file` already holds of this blob from an earlier attempt */
  constructor(digest: Digest, file: FileHandle, prefix?: HashedPrefix) {
    this.digest = digest;
    this.#file = file;
    this.#hash = prefix?.hash ?? createHash(digestAlgorithm(digest));
    this.#written = prefix?.length ?? 0;
  }

  /** Bytes of the whole blob, once known. */
  get size(): number | undefined {
    return this.#size;
  }

  /** All bytes are here, and they are the right ones. */
  get verified(): boolean {
    return this.#verified;
  }

  /** Bytes received so far: where a broken fetch goes on. */
  get received(): number {
    return this.#written + this.#gatheredBytes;
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
    if (this.received > size) throw new ContentError('size-mismatch', this.digest, size, this.received);
    this.#size = size;
    this.#wake();
  }

  /**
   * Adds the next bytes. Await the result: it is the back-pressure of the disk.
   *
   * @throws {ContentError} more bytes than the blob has
   * @throws {StorageError} they cannot be written; followers go on elsewhere from {@link hashedPrefix}
   */
  async append(chunk: Buffer): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#size !== undefined && this.received + chunk.length > this.#size) {
      throw new ContentError('size-mismatch', this.digest, this.#size, this.received + chunk.length);
    }
    this.#gathered.push(chunk);
    this.#gatheredBytes += chunk.length;
    this.#draining ??= this.#drain();
    if (this.#gatheredBytes >= GATHER_BYTES) await this.#drained();
  }

  /**
   * Ends the writing and compares the digest; on success followers get the bytes that were held back.
   *
   * @throws {ContentError} the bytes are wrong or too few
   * @throws {StorageError} the last ones could not be written
   */
  async verify(): Promise<void> {
    await this.#drained();
    const size = this.#size ?? this.#written;
    if (this.#written < size) throw new ContentError('truncated', this.digest, size, this.#written);
    assertDigest(this.#hash.copy(), this.digest);
    this.#verified = true;
    this.setSize(size);
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

  /** The writer's end, after success or abort; followers keep the file open as long as they need it. */
  async end(): Promise<void> {
    await this.#draining?.catch(() => undefined); // the failure is kept in #failure
    await this.#release();
  }

  /** What can be trusted to lie in the file, for someone who must go on from there without us. */
  hashedPrefix(): HashedPrefix {
    return { length: this.#written, hash: this.#hash.copy() };
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
          if (limit > position || position >= end) return this.#read(target, position, limit);
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

  async #read(target: Buffer, position: number, limit: number): Promise<number> {
    try {
      const length = Math.min(target.length, limit - position);
      return (await this.#file.read(target, 0, length, position)).bytesRead;
    } catch (error) {
      throw new StorageError('read', error);
    }
  }

  async #drained(): Promise<void> {
    await this.#draining;
    if (this.#failure !== undefined) throw this.#failure;
  }

  // One write per chunk of 64 KiB costs twice the CPU, so all that came while one write ran goes into the next.
  async #drain(): Promise<void> {
    // What arrives in this turn of the event loop goes into the first write.
    await new Promise((resolve) => setImmediate(resolve));
    while (this.#gathered.length > 0 && this.#failure === undefined) {
      const batch = this.#gathered;
      const bytes = this.#gatheredBytes;
      this.#gathered = [];
      const before = this.#hash.copy();
      const written = this.#write(batch, this.#written);
      for (const chunk of batch) this.#hash.update(chunk); // while the thread pool writes
      try {
        await written;
      } catch (error) {
        this.#hash = before; // it must stand where the file ends
        this.abort(new StorageError('write', error));
        break;
      }
      this.#written += bytes;
      this.#gatheredBytes -= bytes;
      this.#wake();
    }
    this.#draining = undefined;
  }

  async #write(batch: Buffer[], position: number): Promise<void> {
    let rest = batch;
    let at = position;
    while (rest.length > 0) {
      const { bytesWritten } = await this.#file.writev(rest, at);
      at += bytesWritten;
      rest = dropFront(rest, bytesWritten);
    }
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

/** What is left of `buffers` after the first `bytes`. A write may be short: on a full disk, or over 2 GiB. */
function dropFront(buffers: Buffer[], bytes: number): Buffer[] {
  let skip = bytes;
  const rest: Buffer[] = [];
  for (const buffer of buffers) {
    if (skip >= buffer.length) {
      skip -= buffer.length;
    } else {
      rest.push(skip === 0 ? buffer : buffer.subarray(skip));
      skip = 0;
    }
  }
  return rest;
}
