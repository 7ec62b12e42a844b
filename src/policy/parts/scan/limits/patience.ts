/**
 * How long a scan may take.
 *
 * The limit counts the time in which the scanner has what it asked for: while it waits for bytes that are still on their
 * way from upstream, it stands still, and it begins anew when the scanner has got the last of them. So a slow upstream
 * fails no scan, and a scanner that never asks for anything still ends. All waiting for upstream together has a limit of
 * its own. In the worst case a scan ends after twice the limit and the longest wait.
 */
import type { Clock } from '../../../../clock.ts';

/** A download has limits of its own, which end it long before. This one ends what neither ends nor fails. */
const LONGEST_WAIT_MS = 3_600_000;

export class Patience implements Disposable {
  readonly #ended = new AbortController();
  readonly #scanner: Countdown;
  readonly #upstream: Countdown;
  #holds = 0;
  #isOver = false;

  /** @param limit milliseconds for the scanner */
  constructor(limit: number, clock: Clock, longestWait = LONGEST_WAIT_MS) {
    const end = (reason: string) => () => this.#ended.abort(new PatienceError(reason));
    this.#scanner = new Countdown(limit, clock, end('it took too long'));
    this.#upstream = new Countdown(longestWait, clock, end('its bytes took too long to come'));
    this.#scanner.run();
  }

  /** Aborts with a {@link PatienceError} when the time is over. */
  get signal(): AbortSignal {
    return this.#ended.signal;
  }

  /** Says that the scanner waits for us; dispose of it when it does no longer. */
  hold(): Disposable {
    this.#holds += 1;
    if (this.#holds === 1 && !this.#isOver) {
      this.#scanner.stop();
      this.#upstream.run();
    }
    let isReleased = false;
    return {
      [Symbol.dispose]: () => {
        if (isReleased) return;
        isReleased = true;
        this.#holds -= 1;
        if (this.#holds > 0 || this.#isOver) return;
        this.#upstream.stop();
        this.#scanner.run();
      },
    };
  }

  /** Says that the scanner has all bytes. */
  delivered(): void {
    this.#scanner.reset();
  }

  [Symbol.dispose](): void {
    this.#isOver = true;
    this.#scanner.stop();
    this.#upstream.stop();
  }
}

export class PatienceError extends Error {
  override readonly name = 'PatienceError';
}

/** Time that is used up only while it runs. */
class Countdown {
  readonly #limit: number;
  readonly #clock: Clock;
  readonly #onEnd: () => void;
  #left: number;
  #running: { since: number; stop: AbortController } | undefined;

  constructor(limit: number, clock: Clock, onEnd: () => void) {
    this.#limit = limit;
    this.#clock = clock;
    this.#onEnd = onEnd;
    this.#left = limit;
  }

  run(): void {
    const stop = new AbortController();
    this.#running = { since: this.#clock.now(), stop };
    this.#clock.sleep(this.#left, stop.signal).then(this.#onEnd, () => undefined);
  }

  stop(): void {
    if (this.#running === undefined) return;
    const used = this.#clock.now() - this.#running.since;
    // A clock that was set back gives no time.
    this.#left = Math.max(0, this.#left - Math.max(0, used));
    this.#running.stop.abort();
    this.#running = undefined;
  }

  reset(): void {
    const wasRunning = this.#running !== undefined;
    this.stop();
    this.#left = this.#limit;
    if (wasRunning) this.run();
  }
}
