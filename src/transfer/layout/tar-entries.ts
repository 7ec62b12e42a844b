/** A tar, gzip'ed or not, as its entries, one after the other, read no faster than they are taken. */
import { pipeline } from 'node:stream/promises';
import { createGunzip } from 'node:zlib';
import { extract } from 'tar-stream';
import { LayoutError } from './errors.ts';

export interface TarEntry {
  /** As it stands in the tar: nothing has checked it. */
  name: string;
  isFile: boolean;
  isDirectory: boolean;
  /** Bytes of `body`. */
  size: number;
  /**
   * All of `size` bytes, or an error. It need not be read to its end, nor at all; it ends with the next entry.
   */
  body: AsyncIterable<Buffer>;
}

const BLOCK = 512;

/**
 * @throws {LayoutError} `not-a-tar`, `truncated`. Errors of `input` come out as they are.
 */
export async function* tarEntries(input: AsyncIterable<Uint8Array>): AsyncGenerator<TarEntry, void> {
  const source = new Source(input);
  const tar = extract();
  // Its failure destroys the tar with the same error, which whoever reads the tar then gets.
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

/** Not an iteration of the entry itself: to leave that early would destroy the whole tar. */
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

/** The bytes of the tar: how many they are, where the zeros at their end begin, and what went wrong with them. */
class Source {
  /** Where the last entry ends that was begun; 0 before the first. */
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

  /** What an error of tar, gunzip or input is to the caller. */
  explain(error: unknown): unknown {
    if (this.#failure !== undefined) return this.#failure.error;
    if (error instanceof LayoutError) return error;
    const reason = error instanceof Error ? error.message : String(error);
    if (/unexpected end of/i.test(reason) && this.entryEnd > 0) return truncated(error);
    const message = `not a tar archive, or a damaged one (${reason}): copy it again; only gzip is unpacked`;
    return new LayoutError('not-a-tar', message, { cause: error });
  }

  /** Every tar ends with blocks of zeros. One that was cut off between two entries can be told only by that. */
  requireEnd(): void {
    if (this.entryEnd === 0) throw this.explain('it holds nothing');
    if (this.#length - Math.max(this.entryEnd, this.#zerosFrom) < BLOCK) throw truncated();
  }
}

function truncated(cause?: unknown): LayoutError {
  return new LayoutError('truncated', 'the archive ends in the middle: copy it again', { cause });
}

/** Gzip can be told by its first two bytes, which no name in a tar begins with. */
async function* gunzipped(input: AsyncGenerator<Buffer, void>): AsyncGenerator<Buffer, void> {
  const { head, rest } = await peek(input);
  if (head.length < 2 || head.readUInt16BE() !== 0x1f8b) {
    yield* rest;
    return;
  }
  const gunzip = createGunzip();
  // Its failure destroys gunzip with the same error, which whoever reads gunzip then gets.
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
