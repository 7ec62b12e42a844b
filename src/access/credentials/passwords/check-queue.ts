/**
 * Runs password checks, a few at a time: each takes a processor for a tenth of a second or more, and a thread that file
 * reads need as well.
 *
 * The queue is fair between clients, not between requests. Each client has its own line and they take turns, so the
 * first login of one client waits for one check of each other client and not for a flood of one.
 */
import { TooManyAttemptsError } from '../../errors.ts';

/** The share of the places in the queue that one client may take. */
const LARGEST_SHARE = 1 / 4;
const RETRY_AFTER_MS = 2_000;

export interface CheckQueueSettings {
  atATime: number;
  /** Checks that may wait. */
  places: number;
}

export class CheckQueue {
  readonly #settings: CheckQueueSettings;
  /** The first client in this map has the next turn. */
  readonly #waitingByClient = new Map<string, (() => void)[]>();
  #waiting = 0;
  #running = 0;

  constructor(settings: CheckQueueSettings) {
    this.#settings = settings;
  }

  /** @param client an `addressGroup` @throws {TooManyAttemptsError} the queue, or the client's share of it, is full */
  async run<T>(client: string, check: () => Promise<T>): Promise<T> {
    if (this.#running < this.#settings.atATime) this.#running += 1;
    else await this.#turn(client);
    try {
      return await check();
    } finally {
      this.#passOn();
    }
  }

  #turn(client: string): Promise<void> {
    const { places } = this.#settings;
    const line = this.#waitingByClient.get(client) ?? [];
    if (this.#waiting >= places || line.length >= places * LARGEST_SHARE) {
      throw new TooManyAttemptsError(RETRY_AFTER_MS);
    }
    const { promise, resolve } = Promise.withResolvers<void>();
    line.push(resolve);
    this.#waitingByClient.set(client, line);
    this.#waiting += 1;
    return promise;
  }

  /** Begins the next check after one has ended. */
  #passOn(): void {
    for (const [client, [next, ...rest]] of this.#waitingByClient) {
      this.#waitingByClient.delete(client);
      if (rest.length > 0) this.#waitingByClient.set(client, rest); // at the end: others come first now
      this.#waiting -= 1;
      next?.();
      return;
    }
    this.#running -= 1;
  }
}
