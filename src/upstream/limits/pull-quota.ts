/** Tracks how many pulls an upstream still allows, and reserves the last of them for content that is not cached. */
import type { Clock } from '../../clock.ts';
import type { RateLimit } from './rate-limit.ts';
import type { LearnedLimits, SharedLimits } from './shared-limits.ts';

/** Used if upstream names no window: the shortest that Docker Hub has been seen to use. */
const DEFAULT_WINDOW_MS = 3600 * 1000;

export interface PullWindow {
  /** Pulls in the window; undefined: not told. */
  limit: number | undefined;
  /** Pulls left. */
  remaining: number;
  /** When upstream allows more pulls, at the latest: milliseconds since the epoch. */
  endsAt: number;
}

export class PullQuota {
  readonly #reserve: number;
  readonly #clock: Clock;
  readonly #shared: SharedLimits | undefined;
  #source: string | undefined;
  #last: { limit: number | undefined; remaining: number; at: number; windowMs: number } | undefined;

  /**
   * @param reserve pulls to keep
   * @param shared other mirrors that count as one with this one; undefined: none
   */
  constructor(reserve: number, clock: Clock, shared?: SharedLimits) {
    this.#reserve = reserve;
    this.#clock = clock;
    this.#shared = shared;
  }

  /** Whom upstream counts our requests to, as it last said; undefined: it has not said. */
  get source(): string | undefined {
    return this.#source;
  }

  /** Records what a reply said. If it said nothing, keeps the last count: Docker Hub says nothing for some images. */
  record({ limit, remaining, windowMs = DEFAULT_WINDOW_MS, source = this.#source }: RateLimit): void {
    this.#source = source;
    if (remaining === undefined) return;
    this.#last = { limit: limit ?? this.#last?.limit, remaining, at: this.#clock.now(), windowMs };
    this.#shared?.tellCount({ remaining, windowMs }, source);
  }

  /** Records what a reply to another mirror said, unless one to this mirror came later. */
  learn(count: NonNullable<LearnedLimits['count']>): void {
    if (this.#last === undefined || count.at > this.#last.at)
      this.#last = { limit: this.#last?.limit, ...count };
  }

  /** What upstream last said of its limit. Undefined: it has not said it, or that window is over. */
  get window(): PullWindow | undefined {
    if (this.#last === undefined) return undefined;
    const { limit, remaining, at, windowMs } = this.#last;
    const endsAt = at + windowMs;
    return endsAt > this.#clock.now() ? { limit, remaining, endsAt } : undefined;
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
