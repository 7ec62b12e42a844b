/**
 * Writes a part of a file in few large pieces: everything that arrives while one write runs goes into the next. One
 * write for every chunk of 64 KiB costs twice the CPU.
 */
import { StorageError } from '../store/errors.ts';
import type { FileHandle } from '../store/file-system.ts';

/** Bytes that wait in memory while a write runs. Above this the caller waits too. */
const GATHER_BYTES = 1024 * 1024;
/**
 * A smaller batch is held back while more comes in at once: a trip to the thread pool costs as much as copying 100 KB.
 */
const BATCH_BYTES = 512 * 1024;

export class GatheredWriter {
  /** Position in the file of the first byte. */
  readonly start: number;
  readonly #file: FileHandle;
  readonly #onWritten: (batch: readonly Buffer[], position: number) => void;
  #written: number;
  #gathered: Buffer[] = [];
  #gatheredBytes = 0;
  #writingBytes = 0;
  #waitingForRoom: PromiseWithResolvers<void> | undefined;
  #draining: Promise<void> | undefined;
  #failure: StorageError | undefined;

  /** @param onWritten called for each batch, in order, when it is in the file and the next one is being written */
  constructor(
    file: FileHandle,
    start: number,
    onWritten: (batch: readonly Buffer[], position: number) => void,
  ) {
    this.#file = file;
    this.start = start;
    this.#written = start;
    this.#onWritten = onWritten;
  }

  /** The file holds the bytes from {@link start} to this position. */
  get written(): number {
    return this.#written;
  }

  /** The position of the next byte to append. */
  get end(): number {
    return this.#written + this.#writingBytes + this.#gatheredBytes;
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
    let tellWritten = (): void => undefined;
    await this.#gathering();
    while (this.#gathered.length > 0) {
      const [batch, position, length] = [this.#gathered, this.#written, this.#gatheredBytes];
      this.#gathered = [];
      this.#gatheredBytes = 0;
      this.#writingBytes = length;
      this.#makeRoom();
      const writing = this.#write(batch, position);
      tellWritten(); // of the batch before: it is hashed while the thread pool writes this one
      tellWritten = () => undefined;
      try {
        await writing;
      } catch (error) {
        this.#failure = new StorageError('write', error);
        break;
      }
      this.#written += length;
      this.#writingBytes = 0;
      tellWritten = () => this.#onWritten(batch, position);
      await this.#gathering();
    }
    tellWritten();
    this.#draining = undefined;
    this.#makeRoom();
  }

  /** Lets a batch grow while every turn of the event loop brings more. */
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

/** Removes the first `bytes` of `buffers`. A write may be short: on a full disk, or over 2 GiB. */
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
