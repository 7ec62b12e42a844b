/**
 * The port to what lasts longer than any node: named objects, each written whole or not at all.
 *
 * Names are relative to the fleet's own prefix. All methods throw {EngineError}.
 */
import type { Readable } from 'node:stream';

export interface ObjectStore {
  /** @returns undefined if there is no such object */
  get(name: string, options: GetOptions): Promise<ObjectBytes | undefined>;
  /**
   * @returns `present` if the condition does not hold, and nothing was written
   * @throws the error of the stream that `content` opens, as it is
   */
  put(name: string, content: ObjectContent, options: PutOptions): Promise<WrittenObject | 'present'>;
  /** Deletes an object. What is not there is gone already: that is no error. */
  delete(name: string, signal: AbortSignal): Promise<void>;
  /** All objects whose names begin with `prefix`, page by page, each page one request. */
  list(prefix: string, signal: AbortSignal): AsyncIterable<ListedObject[]>;
  /** Makes a URL that gives the object to everybody who knows it, for `forMs`. It must get into no log. */
  presign(name: string, options: { forMs: number; signal: AbortSignal }): Promise<string>;
  /** Whether it keeps what is replaced or deleted. Undefined: it does not say. */
  isVersioned(signal: AbortSignal): Promise<boolean | undefined>;
  /** Closes all connections. Idempotent. */
  close(): void;
}

export interface GetOptions {
  /** Position of the first byte. */
  from?: number;
  /** Position of the end, exclusive. */
  to?: number;
  signal: AbortSignal;
}

export interface ObjectBytes {
  /** Bytes of the whole object. */
  size: number;
  /** Names this version of the object. */
  etag: string;
  /** When it was written, by the store's clock; milliseconds since the epoch. */
  writtenAt: number;
  /** From `from` on. Not verified. */
  body: Readable;
}

export interface ListedObject {
  name: string;
  /** Bytes. */
  size: number;
  etag: string;
  /** When it was written, by the store's clock; milliseconds since the epoch. */
  writtenAt: number;
}

export interface ObjectContent {
  /** Bytes. */
  size: number;
  /** SHA-256 of all bytes in hexadecimal digits, if it is known. The store then checks what it gets. */
  sha256?: string;
  /** Opens the bytes, each time from the start. */
  open: () => Readable;
}

export interface WrittenObject {
  /** Names this version of the object. Empty: the store does not say. */
  etag: string;
}

export interface PutOptions {
  /** Absent: it is written whatever is there. */
  onlyIf?: 'absent';
  signal: AbortSignal;
}
