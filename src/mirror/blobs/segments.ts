/**
 * Splits a large blob into parts, and decides how many are fetched at a time.
 *
 * Parts are fetched in order, so that followers make progress. One lane fetches alone until a part was slow, because
 * parallel parts arrive out of order and must be read back from the file to be hashed. That pays off only if one
 * connection is slower than the line, as with content delivery networks.
 */
import type { Clock } from '../../clock.ts';

/** A part of a blob; `to` is exclusive. */
export interface Segment {
  from: number;
  to: number;
}

/** A smaller blob is fetched in one piece. */
const SEGMENTED_MIN_BYTES = 64 * 1024 * 1024;
const SEGMENT_MIN_BYTES = 16 * 1024 * 1024;
/** The longest part, if nothing else is said. */
export const SEGMENT_MAX_BYTES = 256 * 1024 * 1024;
/** Other lanes begin when a connection is slower than this. */
const FAST_BYTES_PER_MS = (200 * 1024 * 1024) / 1000;

/**
 * The parts of a blob from `from` on. Empty if it is fetched in one piece.
 *
 * @param size bytes of the whole blob
 * @param lanes parts that may be fetched at one time
 * @param longest bytes of the longest part
 */
export function segmentsOf(
  from: number,
  size: number | undefined,
  lanes: number,
  longest: number,
): Segment[] {
  const isWhole = size === undefined || lanes < 2 || size - from < SEGMENTED_MIN_BYTES;
  return isWhole ? [] : split(from, size, lanes, longest);
}

/**
 * Splits what is left of a blob, however little; for one lane it stays whole. Makes several parts for each lane, so that the front grows steadily, but
 * few enough not to flood upstream with requests.
 */
export function split(from: number, size: number, lanes: number, longest: number): Segment[] {
  if (lanes === 1) return [{ from, to: size }];
  const share = Math.ceil((size - from) / (lanes * 4));
  const length = Math.min(Math.max(share, SEGMENT_MIN_BYTES), longest);
  const count = Math.ceil((size - from) / length);
  return Array.from({ length: count }, (_, at) => ({
    from: from + at * length,
    to: Math.min(from + (at + 1) * length, size),
  }));
}

/**
 * Fetches `first`, which has begun, and then the `rest`.
 *
 * @param fetch fetches one part to its end
 * @param abort stops all running fetches; called when one has failed
 * @throws the first error of `fetch`
 */
export async function fetchInLanes(
  first: { segment: Segment; fetched: Promise<void> },
  rest: readonly Segment[],
  options: {
    lanes: number;
    clock: Clock;
    /** Milliseconds that the fetches have waited for the bandwidth limit so far. */
    waitedMs: () => number;
    fetch: (segment: Segment) => Promise<void>;
    abort: (error: unknown) => void;
  },
): Promise<void> {
  const { lanes, fetch, abort } = options;
  const slow = Promise.withResolvers<void>();
  const left = rest.values();
  const watched = async ({ from, to }: Segment, fetched: Promise<void>) => {
    const timer = new AbortController();
    slept((to - from) / FAST_BYTES_PER_MS, timer.signal, options).then(slow.resolve, () => undefined); // it was fast
    await fetched.finally(() => timer.abort());
  };
  const lane = async (begun?: { segment: Segment; fetched: Promise<void> }) => {
    if (begun !== undefined) await watched(begun.segment, begun.fetched);
    for (const segment of left) await watched(segment, fetch(segment));
  };
  const alone = lane(first);
  alone.then(slow.resolve, slow.reject);
  const others = Array.from({ length: lanes - 1 }, () => slow.promise.then(() => lane()));
  try {
    await Promise.all([alone, ...others]);
  } catch (error) {
    abort(error);
    await Promise.allSettled([alone, ...others]);
    throw error;
  }
}

/**
 * Waits until `ms` have passed in which our own limit never held the fetches. A connection that fills the limit is fast
 * enough, although the pauses make it slower than it is: others beside it would bring nothing.
 */
async function slept(
  ms: number,
  signal: AbortSignal,
  { clock, waitedMs }: { clock: Clock; waitedMs: () => number },
): Promise<void> {
  for (let before = Number.NaN; before !== waitedMs(); ) {
    before = waitedMs();
    await clock.sleep(ms, signal);
  }
}
