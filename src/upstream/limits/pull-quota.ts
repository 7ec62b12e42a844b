/** How many pulls an upstream still allows, as it last said, and which of them are kept for what is not cached. */
import type { Clock } from '../../clock.ts';
import type { RateLimit } from './rate-limit.ts';

/** Where upstream names none: the shortest that has been seen of Docker Hub. */
const DEFAULT_WINDOW_MS = 3600 * 1000;

export class PullQuota {
  readonly #reserve: number;
  readonly #clock: Clock;
  #last: { remaining: number; at: number; windowMs: number } | undefined;

  /** @param reserve pulls that are kept */
  constructor(reserve: number, clock: Clock) {
    this.#reserve = reserve;
    this.#clock = clock;
  }

  /** What a reply said; one that says nothing changes nothing, for Docker Hub is silent about some images. */
  note({ remaining, windowMs = DEFAULT_WINDOW_MS }: RateLimit): void {
    if (remaining !== undefined) this.#last = { remaining, at: this.#clock.now(), windowMs };
  }

  /** The pulls left, and for how many milliseconds at most, while they are no more than those kept. */
  shortage(): { remaining: number; leftMs: number } | undefined {
    if (this.#last === undefined || this.#last.remaining > this.#reserve) return undefined;
    const { remaining, at, windowMs } = this.#last;
    const age = this.#clock.now() - at;
    // The clock may have been turned back: then nobody knows how old this is.
    return age < 0 || age >= windowMs ? undefined : { remaining, leftMs: windowMs - age };
  }
}
