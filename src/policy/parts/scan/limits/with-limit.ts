import type { Clock } from '../../../../clock.ts';
import { PatienceError } from './patience.ts';

/**
 * Does `work` within a time.
 *
 * @param ms after which its signal aborts with a {@link PatienceError}
 * @param outer aborts it earlier
 */
export async function withLimit<T>(
  ms: number,
  clock: Clock,
  outer: AbortSignal,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const late = new AbortController();
  const done = new AbortController();
  clock.sleep(ms, done.signal).then(
    () => late.abort(new PatienceError('it took too long')),
    () => undefined,
  );
  try {
    return await work(AbortSignal.any([outer, late.signal]));
  } finally {
    done.abort();
  }
}
