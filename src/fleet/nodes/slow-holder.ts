/** Tells a node that sends a blob too slowly from one that is only not read any faster. */
import type { Clock } from '../../clock.ts';
import { EngineError } from '../engines/errors.ts';

/** A node whose own connection to upstream brings less is not worth following. */
const LEAST_BYTES_PER_MS = (256 * 1024) / 1000;
/** What is waited for in all before the speed counts. */
const WINDOW_MS = 5_000;

/** @param onSlow called before it throws @throws {EngineError} for a while less came than was worth waiting for */
export async function* fastEnough(
  pieces: AsyncIterable<Buffer>,
  clock: Clock,
  onSlow: () => void,
): AsyncGenerator<Buffer, void, undefined> {
  let [waitedMs, bytes] = [0, 0];
  let askedAt = clock.now();
  for await (const piece of pieces) {
    waitedMs += Math.max(0, clock.now() - askedAt);
    bytes += piece.length;
    if (waitedMs >= WINDOW_MS) {
      if (bytes < waitedMs * LEAST_BYTES_PER_MS) {
        onSlow();
        throw new EngineError('timeout', 'the other node gets the blob too slowly');
      }
      [waitedMs, bytes] = [0, 0];
    }
    yield piece;
    askedAt = clock.now(); // only waiting counts, and not how long the piece was in use
  }
}
