/** Tracks how many pulls an upstream still allows, and reserves the last of them for content that is not cached. */
import type { Clock } from '../../clock.ts';
import type { RateLimit } from './rate-limit.ts';

/** Used if upstream names no window: the shortest that Docker Hub has been seen to use. */
const DEFAULT_WINDOW_MS = 3600 * 1000;

export class PullQuota {
  readonly #reserve: number;
  readonly #clock: Clock;
  #last: { remaining: number; at: number; windowMs: number } | undefined;

  /** @param reserve pulls to keep */
  constructor(reserve: number, clock: Clock) {
    this.#reserve = reserve;
    this.#clock = clock;
  }

  /** Records what a reply said. If it said nothing, keeps the last count: Docker Hub says nothing for some images. */
  record({ remaining, windowMs = DEFAULT_WINDOW_MS }: RateLimit): void {
    if (remaining !== undefined) this.#last = { remaining, at: this.#clock.now(), windowMs };
  }

  /** When upstream allows more pulls, at the latest: milliseconds since the epoch. Undefined: not told, or over. */
  get windowEnd(): number | undefined {
    if (this.#last === undefined) return undefined;
    const end = this.#last.at + this.#last.windowMs;
    return end > this.#clock.now() ? end : undefined;
  }

  /** @returns the pulls left and the longest time until there are more; undefined while more are left than reserved */
  shortage(): { remaining: number; leftMs: number } | undefined {
    if (this.#last === undefined || this.#last.remaining > this.#reserve) return undefined;
    const { remaining, at, windowMs } = this.#last;
    const age = this.#clock.now() - at;
    // A negative age means that the clock was turned back: the age is unknown, so do not rely on the count.
    return age < 0 || age >= windowMs ? undefined : { remaining, leftMs: windowMs - age };
  }
}
