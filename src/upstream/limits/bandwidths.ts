/** The bandwidth of all upstreams: a limit for each, and one for all of them together. */
import type { Clock } from '../../clock.ts';
import type { Metrics } from '../../telemetry/metrics.ts';
import { BandwidthLimit } from './bandwidth.ts';
import { BandwidthShare } from './bandwidth-share.ts';

/** Bytes a second. Undefined: no limit. */
export interface BandwidthLimits {
  /** Of all upstreams together. */
  server: number | undefined;
  /** By the name of the upstream. One that is not named has no limit of its own. */
  upstreams: ReadonlyMap<string, number | undefined>;
}

/** The bandwidth of one upstream. */
export interface Bandwidth {
  /** Opens a share for one fetch, as background work. The caller must close it. */
  openShare(): BandwidthShare;
  /** Counts the bytes of a small reply, which does not wait. */
  spendAhead(bytes: number): void;
}

export class Bandwidths {
  readonly #server: BandwidthLimit;
  readonly #byUpstream = new Map<string, BandwidthLimit>();
  readonly #clock: Clock;
  readonly #metrics: Metrics;

  constructor({ clock, metrics }: { clock: Clock; metrics: Metrics }) {
    this.#clock = clock;
    this.#metrics = metrics;
    this.#server = new BandwidthLimit(clock);
  }

  /** Sets all limits. They hold for running fetches, too. */
  setLimits({ server, upstreams }: BandwidthLimits): void {
    this.#server.setLimit(server);
    for (const name of upstreams.keys()) this.#limitOf(name);
    for (const [upstream, limit] of this.#byUpstream) {
      limit.setLimit(upstreams.get(upstream));
      // Shows that there is a limit that nobody has waited for yet.
      if (!limit.isNone || !this.#server.isNone) this.#metrics.upstreamBandwidthWait.inc({ upstream }, 0);
    }
  }

  of(upstream: string): Bandwidth {
    const limits = [this.#limitOf(upstream), this.#server];
    const onWaited = (ms: number) => this.#metrics.upstreamBandwidthWait.inc({ upstream }, ms / 1000);
    return {
      openShare: () => new BandwidthShare(limits, this.#clock, onWaited),
      spendAhead: (bytes) => limits.forEach((limit) => limit.spendAhead(bytes)),
    };
  }

  #limitOf(upstream: string): BandwidthLimit {
    const known = this.#byUpstream.get(upstream);
    if (known !== undefined) return known;
    const made = new BandwidthLimit(this.#clock);
    this.#byUpstream.set(upstream, made);
    return made;
  }
}
