/** Time as a dependency, so that tests move it instead of waiting for it. */
import { setTimeout as delay } from 'node:timers/promises';

export interface Clock {
  /** Milliseconds since the Unix epoch. May jump, as the machine's clock does. */
  now(): number;
  /** Waits `ms` milliseconds; rejects with an AbortError when `signal` aborts. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
  /** Calls `step` every `ms` milliseconds until disposed of. Does not keep the process alive. */
  every(ms: number, step: () => void): Disposable;
}

export const systemClock: Clock = {
  now: () => Date.now(),
  sleep: (ms, signal) => delay(ms, undefined, signal === undefined ? {} : { signal }),
  every: (ms, step) => setInterval(step, ms).unref(),
};
