/** The circuit breaker of one upstream URL: without it, every pull would wait for an upstream that does not answer. */
import type { Clock } from '../../clock.ts';
import type { RequestContext } from '../../request-context.ts';
import type { Logger } from '../../telemetry/log.ts';
import { UpstreamError } from '../errors.ts';

/** Failures in a row, without any answer, that open the breaker. */
const THRESHOLD = 3;
const FIRST_COOLDOWN_MS = 5_000;
const LONGEST_COOLDOWN_MS = 60_000;

export interface BreakerContext {
  logger: Logger;
  clock: Clock;
  /** From 0 up to 1. Spreads the retries of many mirrors, which would otherwise come all at once. */
  random: () => number;
}

/** Times are milliseconds since the epoch. */
export interface Outage {
  /** What the last request met. */
  reason: string;
  since: number;
  /** When the next request is sent, at the earliest. */
  retryAt: number;
}

export class Breaker {
  readonly #upstream: string;
  readonly #context: BreakerContext;
  #failures = 0;
  #cooldownMs = FIRST_COOLDOWN_MS;
  /** Milliseconds since the epoch; undefined while the breaker is closed. */
  #openUntil: number | undefined;
  #opened: { reason: string; since: number } | undefined;

  /** @param upstream its name, for errors and log lines */
  constructor(upstream: string, context: BreakerContext) {
    this.#upstream = upstream;
    this.#context = context;
  }

  get isOpen(): boolean {
    return this.#openUntil !== undefined;
  }

  /** Undefined while the breaker is closed. */
  get outage(): Outage | undefined {
    if (this.#openUntil === undefined || this.#opened === undefined) return undefined;
    return { ...this.#opened, retryAt: this.#openUntil };
  }

  /**
   * Asks for permission to send a request. After the cooldown exactly one caller gets it; the others wait for one more.
   *
   * @returns why the request must not be sent; undefined if it may
   */
  refusal(): UpstreamError | undefined {
    if (this.#openUntil === undefined) return undefined;
    const now = this.#context.clock.now();
    const leftMs = this.#openUntil - now;
    // A wait longer than the longest cooldown means that the clock was turned back: treat it as over.
    if (leftMs > 0 && leftMs <= LONGEST_COOLDOWN_MS) {
      const message = `did not answer the last requests; the mirror tries again in ${Math.ceil(leftMs / 1000)} s`;
      return new UpstreamError('unavailable', this.#upstream, message);
    }
    this.#openUntil = now + this.#cooldownMs; // stays open for all but this caller
    return undefined;
  }

  /** Closes the breaker, because the upstream answered. */
  answered({ id: requestId }: RequestContext): void {
    if (this.isOpen)
      this.#context.logger.info({ requestId, upstream: this.#upstream }, 'upstream answers again');
    this.#failures = 0;
    this.#cooldownMs = FIRST_COOLDOWN_MS;
    this.#openUntil = undefined;
    this.#opened = undefined;
  }

  /** Counts an outage. The third in a row opens the breaker. So does one timeout, because a client waited for it. */
  failed({ id: requestId }: RequestContext, error: UpstreamError): void {
    if (error.status !== undefined) return; // a 5xx costs no time
    this.#failures = error.code === 'timeout' ? THRESHOLD : this.#failures + 1;
    if (this.#failures < THRESHOLD) return;
    const { clock, logger, random } = this.#context;
    if (this.isOpen) this.#cooldownMs = Math.min(this.#cooldownMs * 2, LONGEST_COOLDOWN_MS);
    else
      logger.warn(
        { requestId, err: error, upstream: this.#upstream },
        'upstream does not answer: requests to it stop for some seconds',
      );
    this.#opened = { reason: error.message, since: this.#opened?.since ?? clock.now() };
    this.#openUntil = clock.now() + this.#cooldownMs * (0.75 + random() / 4);
  }
}
