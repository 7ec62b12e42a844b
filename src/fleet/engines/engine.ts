/**
 * Asks an engine that the fleet shares. A pull never waits for it longer than its deadline, and not at all while it does
 * not answer.
 *
 * Each request is sent once: there is another way to every byte, and it is quicker than a second try.
 */
import type { Clock } from '../../clock.ts';
import type { Logger } from '../../telemetry/log.ts';
import type { Metrics } from '../../telemetry/metrics.ts';
import { EngineError } from './errors.ts';

/** Failures in a row that open the breaker. */
const THRESHOLD = 3;
const FIRST_COOLDOWN_MS = 1_000;
const LONGEST_COOLDOWN_MS = 10_000;
const COMPLAIN_AGAIN_MS = 60_000;

export interface EngineContext {
  clock: Clock;
  /** At least 0, below 1. Spreads the nodes' next tries. */
  random: () => number;
  logger: Logger;
  metrics: Metrics;
}

export class Engine {
  readonly name: string;
  readonly #context: EngineContext;
  #failures = 0;
  #cooldownMs = FIRST_COOLDOWN_MS;
  /** Milliseconds since the epoch; undefined while it answers. */
  #openUntil: number | undefined;
  #complainedAt = Number.NEGATIVE_INFINITY;
  /** Why nothing is asked of it, however well it answers. */
  #shutBecause: string | undefined;

  constructor(name: string, context: EngineContext) {
    this.name = name;
    this.#context = context;
    this.#publish();
  }

  /** Why it is not asked now; undefined while it is. */
  get trouble(): string | undefined {
    if (this.#shutBecause !== undefined) return this.#shutBecause;
    return this.#openUntil === undefined ? undefined : 'it did not answer the last requests';
  }

  /**
   * Sends one request.
   *
   * @param deadlineMs until its answer begins
   * @param send must end soon after the signal aborts
   * @throws {EngineError} it was not asked, did not answer in time, or refused
   */
  async ask<T>(operation: string, deadlineMs: number, send: (signal: AbortSignal) => Promise<T>): Promise<T> {
    this.#requireUp();
    try {
      return await this.#send(operation, deadlineMs, send);
    } catch (error) {
      if (error instanceof EngineError && (error.code === 'denied' || error.code === 'misconfigured'))
        this.#complain(error, 'an engine of the fleet refuses what it is asked');
      throw error;
    }
  }

  /**
   * Finds out whether it may be used at all, also after {@link shut}: it may if `look` succeeds, and else may not.
   *
   * @throws {EngineError} it may not
   */
  async check<T>(deadlineMs: number, look: (signal: AbortSignal) => Promise<T>): Promise<T> {
    try {
      const seen = await this.#send('join', deadlineMs, look);
      this.#shutBecause = undefined;
      this.#publish();
      return seen;
    } catch (error) {
      if (error instanceof EngineError) this.shut(error.message);
      throw error;
    }
  }

  async #send<T>(
    operation: string,
    deadlineMs: number,
    send: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const { clock, metrics } = this.#context;
    const abort = new AbortController();
    const began = clock.now();
    const over = new AbortController();
    const deadline = clock.sleep(deadlineMs, over.signal).then(
      () => {
        const error = new EngineError('timeout', `${this.name} did not answer within ${deadlineMs} ms`);
        abort.abort(error);
        throw error;
      },
      () => new Promise<never>(() => undefined), // the answer came first
    );
    try {
      const answer = await Promise.race([send(abort.signal), deadline]);
      this.#answered();
      return answer;
    } catch (error) {
      if (error instanceof EngineError && (error.code === 'unavailable' || error.code === 'timeout'))
        this.#failed(error);
      else this.#answered();
      throw error;
    } finally {
      over.abort();
      metrics.fleetRequestDuration.observe({ engine: this.name, operation }, (clock.now() - began) / 1000);
    }
  }

  /** Counts bytes that stopped coming, or came to a wrong end, as a failure to answer. */
  brokeOff(error: EngineError): void {
    this.#failed(error);
  }

  /** Asks it nothing from now on: what it holds is not for this node. */
  shut(reason: string): void {
    this.#shutBecause = reason;
    this.#publish();
  }

  #requireUp(): void {
    if (this.#shutBecause !== undefined) throw new EngineError('misconfigured', this.#shutBecause);
    if (this.#openUntil === undefined) return;
    const now = this.#context.clock.now();
    const left = this.#openUntil - now;
    // A wait longer than the longest means that the clock was turned back.
    if (left > 0 && left <= LONGEST_COOLDOWN_MS)
      throw new EngineError('unavailable', `${this.name} did not answer the last requests`);
    this.#openUntil = now + this.#cooldownMs; // stays shut for all but this caller
  }

  #answered(): void {
    if (this.#openUntil !== undefined)
      this.#context.logger.info({ engine: this.name }, 'the engine of the fleet answers again');
    this.#failures = 0;
    this.#cooldownMs = FIRST_COOLDOWN_MS;
    this.#openUntil = undefined;
    this.#publish();
  }

  #failed(error: EngineError): void {
    const { clock, random } = this.#context;
    const now = clock.now();
    this.#failures += 1;
    if (this.#failures >= THRESHOLD) {
      if (this.#openUntil !== undefined)
        this.#cooldownMs = Math.min(this.#cooldownMs * 2, LONGEST_COOLDOWN_MS);
      this.#openUntil = now + this.#cooldownMs * (0.75 + random() / 4);
    }
    this.#publish();
    this.#complain(error, 'an engine of the fleet fails: this node goes on without it');
  }

  #complain(error: EngineError, message: string): void {
    const { clock, logger } = this.#context;
    const now = clock.now();
    if (Math.abs(now - this.#complainedAt) < COMPLAIN_AGAIN_MS) return;
    this.#complainedAt = now;
    logger.warn({ err: error, engine: this.name }, message);
  }

  #publish(): void {
    this.#context.metrics.fleetUp.set({ engine: this.name }, this.trouble === undefined ? 1 : 0);
  }
}
