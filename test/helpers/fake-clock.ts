/** Time that stands still until a test moves it. */
import { setImmediate } from 'node:timers/promises';
import type { Clock } from '../../src/clock.ts';

export class FakeClock implements Clock {
  static readonly START = Date.UTC(2026, 0, 1);
  #now = FakeClock.START;
  readonly #sleepers = new Set<{ until: number; wake: () => void }>();
  readonly #repeated = new Set<{ ms: number; next: number; step: () => void }>();
  /** Sleeping takes no time: the clock jumps ahead instead. */
  impatient = true;

  now(): number {
    return this.#now;
  }

  /** Negative turns the clock back. */
  advance(ms: number): void {
    this.#now += ms;
    for (const sleeper of this.#sleepers) {
      if (sleeper.until > this.#now) continue;
      this.#sleepers.delete(sleeper);
      sleeper.wake();
    }
    for (const entry of this.#repeated) {
      if (entry.next > this.#now) continue;
      entry.next = this.#now + entry.ms;
      entry.step();
    }
  }

  every(ms: number, step: () => void): Disposable {
    const entry = { ms, next: this.#now + ms, step };
    this.#repeated.add(entry);
    return { [Symbol.dispose]: () => void this.#repeated.delete(entry) };
  }

  /** Whether somebody sleeps. */
  get isAwaited(): boolean {
    return this.#sleepers.size > 0;
  }

  /** Milliseconds until the first of those who sleep wakes up; infinite if nobody sleeps. */
  get nextWakeMs(): number {
    return Math.min(...[...this.#sleepers].map(({ until }) => until - this.#now));
  }

  /** Resolves when somebody sleeps. */
  async waited(): Promise<void> {
    while (!this.isAwaited) await setImmediate();
  }

  async sleep(ms: number, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    if (this.impatient || ms <= 0) {
      this.advance(ms);
      return;
    }
    await new Promise<void>((resolve, reject) => {
      const onAbort = () => {
        this.#sleepers.delete(sleeper);
        // As node:timers/promises does it.
        const aborted = new Error('The operation was aborted', { cause: signal?.reason });
        reject(Object.assign(aborted, { name: 'AbortError', code: 'ABORT_ERR' }));
      };
      const wake = () => {
        signal?.removeEventListener('abort', onAbort);
        resolve();
      };
      const sleeper = { until: this.#now + ms, wake };
      this.#sleepers.add(sleeper);
      signal?.addEventListener('abort', onAbort);
    });
  }
}
