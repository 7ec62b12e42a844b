/** Reads a body to its end, which must be the right one, and does not wait for ever for the next piece. */
import { Readable } from 'node:stream';
import type { Clock } from '../../clock.ts';
import { EngineError } from './errors.ts';

const NEXT_PIECE_MS = 2_000;

/**
 * @param from who sends it, for messages
 * @param length bytes that must come
 * @throws {EngineError} they broke off, or stopped coming
 */
export async function* wholeBody(
  from: string,
  body: Readable,
  length: number,
  clock: Clock,
): AsyncGenerator<Buffer, void, undefined> {
  const pieces = body[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  let left = length;
  try {
    while (left > 0) {
      const piece = await nextPiece(from, pieces, clock);
      if (piece === undefined) throw new EngineError('unavailable', `${from} sent too little`);
      left -= piece.length;
      yield piece;
    }
  } catch (error) {
    if (error instanceof EngineError) throw error;
    throw new EngineError('unavailable', `the connection to ${from} broke`, { cause: error });
  } finally {
    body.on('error', () => undefined).destroy();
  }
}

/**
 * As a stream. When it is closed, so is the body, also if nothing of it was read: else its connection would stay open.
 *
 * @param pieces those of the body
 */
export function streamOf(pieces: AsyncIterable<Buffer>, body: Readable): Readable {
  const stream = Readable.from(pieces, { objectMode: false });
  return stream.once('close', () => body.on('error', () => undefined).destroy());
}

async function nextPiece(
  from: string,
  pieces: AsyncIterator<Buffer>,
  clock: Clock,
): Promise<Buffer | undefined> {
  const came = new AbortController();
  const late = clock.sleep(NEXT_PIECE_MS, came.signal).then(
    () => {
      throw new EngineError('timeout', `${from} sent nothing for ${NEXT_PIECE_MS} ms`);
    },
    () => undefined, // a piece came first
  );
  try {
    const next = await Promise.race([pieces.next(), late]);
    return next === undefined || next.done === true ? undefined : next.value;
  } finally {
    came.abort();
  }
}
