/** The port to other mirrors that an upstream counts as one with this one: a fleet tells each of them what all were told. */
import type { RequestKind } from '../../telemetry/metrics.ts';
import type { RateLimit } from './rate-limit.ts';

/** What the others were told. Times are milliseconds since the epoch, by this mirror's clock. */
export interface LearnedLimits {
  /** Until when upstream wants no requests of a kind. */
  pauses: ReadonlyMap<RequestKind, number>;
  /** Absent: they were told of no limit. */
  count?: { remaining: number; windowMs: number; at: number };
}

/** No method rejects. */
export interface SharedLimits {
  /**
   * To be called before a request is sent. Takes no longer than a short deadline.
   *
   * @param kind of the request
   * @param source whom upstream counts the requests of this mirror to, as it says; undefined: it does not say
   */
  learn(kind: RequestKind, source: string | undefined): Promise<LearnedLimits>;
  /** Tells that upstream wants no requests of a kind for a while. Resolves when the others can know, or soon after. */
  tellPause(kind: RequestKind, forMs: number, source: string | undefined): Promise<void>;
  /** Tells how many pulls are left, in the background. */
  tellCount(rateLimit: Required<Pick<RateLimit, 'remaining' | 'windowMs'>>, source: string | undefined): void;
}
