/** Reads from the disk until the disk fails, then goes on from the blob's origin. */
import type { ContentReader } from '../../cache/store/content-store.ts';
import { StorageError } from '../../cache/store/errors.ts';

/** Opens a reader that goes on at `position`. */
export type Recover = (error: StorageError, position: number) => Promise<ContentReader>;

export class RecoveringReader implements ContentReader {
  readonly size: number;
  readonly file?: string;
  #reader: ContentReader;
  readonly #recover: Recover;
  #closed = false;

  constructor(reader: ContentReader, recover: Recover) {
    this.size = reader.size;
    if (reader.file !== undefined) this.file = reader.file;
    this.#reader = reader;
    this.#recover = recover;
  }

  async read(target: Buffer, position: number, end: number): Promise<number> {
    try {
      return await this.#reader.read(target, position, end);
    } catch (error) {
      // Not a disk failure if the client left, which closes the file during a read.
      if (!(error instanceof StorageError) || this.#closed) throw error;
      const failed = this.#reader;
      this.#reader = await this.#recover(error, position);
      await failed.close();
      if (this.#closed) await this.#reader.close(); // the client left meanwhile
      return this.#reader.read(target, position, end);
    }
  }

  close(): Promise<void> {
    this.#closed = true;
    return this.#reader.close();
  }
}
