/** Ends what takes too long. */
import type { Clock } from '../../../clock.ts';

export class DeadlineError extends Error {
  override readonly name = 'DeadlineError';

  constructor(ms: number) {
    super(`no answer within ${ms / 1000} s`);
  }
}

/**
 * Runs `step` for `ms` milliseconds at most. What cannot be aborted, such as a call of the file system, goes on unheard.
 *
 * @param step gets a signal that aborts when its time is over, and not when it has ended in time
 * @throws {DeadlineError}
 */
export async function within<T>(
  { clock, signal }: { clock: Clock; signal: AbortSignal },
  ms: number,
  step: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  signal.throwIfAborted();
  const late = new AbortController();
  const ended = new AbortController();
  const { promise: stopped, reject } = Promise.withResolvers<never>();
  const stop = () => reject(signal.reason as Error);
  signal.addEventListener('abort', stop, { once: true });
  clock.sleep(ms, ended.signal).then(
    () => {
      reject(new DeadlineError(ms));
      late.abort();
    },
    () => undefined, // the step has ended first
  );
  try {
    return await Promise.race([stopped, step(AbortSignal.any([signal, late.signal]))]);
  } finally {
    signal.removeEventListener('abort', stop);
    ended.abort();
  }
}
