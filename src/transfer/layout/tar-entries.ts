/** Reads the entries of a tar, with or without gzip, one after the other and no faster than they are taken. */
import { pipeline } from 'node:stream/promises';
import { createGunzip } from 'node:zlib';
import { extract } from 'tar-stream';
import { LayoutError } from './errors.ts';

export interface TarEntry {
  /** The name in the tar, not checked yet. */
  name: string;
  isFile: boolean;
  isDirectory: boolean;
  /** Bytes of `body`. */
  size: number;
  /** Exactly `size` bytes, or an error. It need not be read, and cannot be read after the next entry has begun. */
  body: AsyncIterable<Buffer>;
}

const BLOCK = 512;

/** @throws {LayoutError} `not-a-tar`, `truncated`. Errors of `input` are thrown unchanged */
export async function* tarEntries(input: AsyncIterable<Uint8Array>): AsyncGenerator<TarEntry, void> {
  const source = new Source(input);
  const tar = extract();
  // A failure destroys the tar with the same error, so the loop below throws it.
  const fed = Promise.allSettled([pipeline(source.tarBytes(), tar)]);
  try {
    for await (const entry of tar) {
      const { name, type } = entry.header;
      const isDirectory = type === 'directory';
      const size = isDirectory ? 0 : entry.header.size;
      source.entryEnd = entry.offset + BLOCK + Math.ceil(size / BLOCK) * BLOCK;
      const bytes = entry[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
      const body = readBody(bytes, size, (error) => source.explain(error));
      yield { name, isFile: type === 'file', isDirectory, size, body };
      while ((await bytes.next()).done !== true);
    }
  } catch (error) {
    throw source.explain(error);
  } finally {
    await fed;
  }
  source.requireEnd();
}

/** Reads an entry through its iterator: leaving a loop over the entry itself would destroy the whole tar. */
async function* readBody(
  bytes: AsyncIterator<Buffer>,
  size: number,
  explain: (error: unknown) => unknown,
): AsyncGenerator<Buffer, void> {
  let length = 0;
  for (;;) {
    const next = await bytes.next().catch((error: unknown) => {
      throw explain(error);
    });
    if (next.done === true) break;
    length += next.value.length;
    yield next.value;
  }
  if (length !== size) throw truncated();
}

/** Passes the bytes of the tar on, and notes what the end is judged by: their number, the last zeros, the error. */
class Source {
  /** Offset of the end of the last entry that has begun; 0 before the first. */
  entryEnd = 0;
  readonly #input: AsyncIterator<Uint8Array>;
  #failure: { error: unknown } | undefined;
  #length = 0;
  #zerosFrom = 0;

  constructor(input: AsyncIterable<Uint8Array>) {
    this.#input = input[Symbol.asyncIterator]();
  }

  async *tarBytes(): AsyncGenerator<Buffer, void> {
    for await (const chunk of gunzipped(this.#inputBytes())) {
      const end = endOfContent(chunk);
      if (end > 0) this.#zerosFrom = this.#length + end;
      this.#length += chunk.length;
      yield chunk;
    }
  }

  async *#inputBytes(): AsyncGenerator<Buffer, void> {
    try {
      for await (const chunk of { [Symbol.asyncIterator]: () => this.#input }) {
        yield Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
      }
    } catch (error) {
      this.#failure = { error };
      throw error;
    }
  }

  /** Turns an error of tar, gunzip or input into the error for the caller. */
  explain(error: unknown): unknown {
    if (this.#failure !== undefined) return this.#failure.error;
    if (error instanceof LayoutError) return error;
    const reason = error instanceof Error ? error.message : String(error);
    if (/unexpected end of/i.test(reason) && this.entryEnd > 0) return truncated(error);
    const message = `not a tar archive, or a damaged one (${reason}): copy it again; if it is compressed, use gzip`;
    return new LayoutError('not-a-tar', message, { cause: error });
  }

  /** Requires the zeros that every tar ends with: only they tell whether it was cut between two entries. */
  requireEnd(): void {
    if (this.entryEnd === 0) throw this.explain('it is empty');
    if (this.#length - Math.max(this.entryEnd, this.#zerosFrom) < BLOCK) throw truncated();
  }
}

function truncated(cause?: unknown): LayoutError {
  return new LayoutError('truncated', 'the archive ends in the middle: copy it again', { cause });
}

/** Unpacks gzip. Its first two bytes tell it from a tar, where no name begins with them. */
async function* gunzipped(input: AsyncGenerator<Buffer, void>): AsyncGenerator<Buffer, void> {
  const { head, rest } = await peek(input);
  if (head.length < 2 || head.readUInt16BE() !== 0x1f8b) {
    yield* rest;
    return;
  }
  const gunzip = createGunzip();
  // A failure destroys gunzip with the same error, so the loop below throws it.
  const fed = Promise.allSettled([pipeline(rest, gunzip)]);
  try {
    for await (const chunk of gunzip) yield chunk as Buffer;
  } finally {
    await fed;
  }
}

async function peek(
  input: AsyncGenerator<Buffer, void>,
): Promise<{ head: Buffer; rest: AsyncGenerator<Buffer, void> }> {
  let head = Buffer.alloc(0);
  while (head.length < 2) {
    const next = await input.next();
    if (next.done === true) break;
    head = Buffer.concat([head, next.value]);
  }
  const rest = async function* (): AsyncGenerator<Buffer, void> {
    yield head;
    yield* input;
  };
  return { head, rest: rest() };
}

/** The index after the last byte that is not zero. */
function endOfContent(chunk: Buffer): number {
  let end = chunk.length;
  while (end > 0 && chunk[end - 1] === 0) end -= 1;
  return end;
}
