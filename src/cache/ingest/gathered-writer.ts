/**
 * Writes what arrives to its place in a file, in few large pieces: everything that came while one write ran goes into
 * the next. One write for every chunk of 64 KiB costs twice the CPU.
 */
import { StorageError } from '../store/errors.ts';
import type { FileHandle } from '../store/file-system.ts';

/** Bytes that wait in memory while a write is under way; above this the writer's caller waits too. */
const GATHER_BYTES = 1024 * 1024;
/** A smaller batch is held back while more comes in at once: a hop to the thread pool costs as much as copying 100 KB. */
const BATCH_BYTES = 512 * 1024;

export interface WriteObserver {
  /** A write has begun; this is the time to use the bytes while the thread pool copies them. */
  writing(batch: readonly Buffer[], position: number): void;
  /** It has ended: the file now holds the batch, `length` bytes at `position`. */
  written(batch: readonly Buffer[], position: number, length: number): void;
}

export class GatheredWriter {
  readonly #file: FileHandle;
  readonly #observer: WriteObserver;
  #position: number;
  #gathered: Buffer[] = [];
  #gatheredBytes = 0;
  #writingBytes = 0;
  #waitingForRoom: PromiseWithResolvers<void> | undefined;
  #draining: Promise<void> | undefined;
  #failure: StorageError | undefined;

  /** @param position of the first byte in the file */
  constructor(file: FileHandle, position: number, observer: WriteObserver) {
    this.#file = file;
    this.#position = position;
    this.#observer = observer;
  }

  /** Where the next byte that is appended will lie. */
  get end(): number {
    return this.#position + this.#writingBytes + this.#gatheredBytes;
  }

  /** Await the result: it is the back-pressure of the disk. @throws {StorageError} */
  async append(chunk: Buffer): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure;
    this.#gathered.push(chunk);
    this.#gatheredBytes += chunk.length;
    this.#draining ??= this.#drain();
    if (this.#gatheredBytes < GATHER_BYTES) return;
    this.#waitingForRoom ??= Promise.withResolvers();
    await this.#waitingForRoom.promise;
  }

  /** Resolves when all that was appended is in the file. @throws {StorageError} */
  async flush(): Promise<void> {
    await this.#draining;
    if (this.#failure !== undefined) throw this.#failure;
  }

  async #drain(): Promise<void> {
    await this.#gathering();
    while (this.#gathered.length > 0) {
      const batch = this.#gathered;
      const length = this.#gatheredBytes;
      this.#gathered = [];
      this.#gatheredBytes = 0;
      this.#writingBytes = length;
      this.#makeRoom();
      const written = this.#write(batch, this.#position);
      this.#observer.writing(batch, this.#position);
      try {
        await written;
      } catch (error) {
        this.#failure = new StorageError('write', error);
        break;
      }
      this.#position += length;
      this.#writingBytes = 0;
      this.#observer.written(batch, this.#position - length, length);
      await this.#gathering();
    }
    this.#draining = undefined;
    this.#makeRoom();
  }

  /** Lets a batch grow for as long as every turn of the event loop brings more. */
  async #gathering(): Promise<void> {
    for (let before = -1; before < this.#gatheredBytes && this.#gatheredBytes < BATCH_BYTES; ) {
      before = this.#gatheredBytes;
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  #makeRoom(): void {
    this.#waitingForRoom?.resolve();
    this.#waitingForRoom = undefined;
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
