/**
 * Tells a URL of verdicts that have changed: what is refused for the first time, what is refused that came in before, and
 * what comes in again. Nobody waits for it, and no secret is in it.
 */
import { LRUCache } from 'lru-cache';
import { request } from 'undici';
import type { Clock } from '../../clock.ts';
import type { Logger } from '../../telemetry/log.ts';

export interface Judgement {
  policy: string;
  mode: string;
  /** `upstream/repository@digest`. */
  image: string;
  decision: 'allow' | 'deny';
  reason?: string;
}

export interface NotifierContext {
  isSealed: () => boolean;
  clock: Clock;
  logger: Logger;
}

const REMEMBERED = 50_000;
/** More than this wait only while the other side is away for long. */
const MOST_WAITING = 1_000;
const RETRY_AFTER_MS = [1_000, 10_000, 60_000];
const TIMEOUT_MS = 10_000;

export class Notifier implements AsyncDisposable {
  readonly #url: string;
  /** What the log names: the path of such a URL is often a secret. */
  readonly #host: string;
  readonly #context: NotifierContext;
  readonly #closing = new AbortController();
  readonly #last = new LRUCache<string, Judgement['decision']>({ max: REMEMBERED });
  readonly #waiting: string[] = [];
  #sending: Promise<void> | undefined;

  constructor(url: string, context: NotifierContext) {
    this.#url = url;
    this.#host = new URL(url).host;
    this.#context = context;
  }

  judged(judgement: Judgement): void {
    const key = `${judgement.policy} ${judgement.image}`;
    const before = this.#last.get(key) ?? 'allow';
    this.#last.set(key, judgement.decision);
    if (before === judgement.decision || this.#context.isSealed()) return;
    const { clock, logger } = this.#context;
    if (this.#waiting.length === MOST_WAITING) {
      logger.warn({ host: this.#host }, 'too many changed verdicts wait to be told: the oldest is dropped');
      this.#waiting.shift();
    }
    this.#waiting.push(JSON.stringify({ at: new Date(clock.now()).toISOString(), ...judgement }));
    this.#sending ??= this.#send();
  }

  /** Drops what has not been told. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#waiting.length = 0;
    this.#closing.abort();
    await this.#sending;
  }

  /** Never rejects. */
  async #send(): Promise<void> {
    for (let body = this.#waiting.shift(); body !== undefined; body = this.#waiting.shift())
      await this.#tell(body);
    // At once, and not a moment later: what came in between would wait for the next one.
    this.#sending = undefined;
  }

  async #tell(body: string): Promise<void> {
    const { clock, logger } = this.#context;
    const { signal } = this.#closing;
    for (const retryAfterMs of [...RETRY_AFTER_MS, undefined]) {
      try {
        const reply = await request(this.#url, {
          ...{ method: 'POST', body, signal, headersTimeout: TIMEOUT_MS, bodyTimeout: TIMEOUT_MS },
          headers: { 'content-type': 'application/json' },
        });
        await reply.body.dump();
        if (reply.statusCode < 300) return;
        throw new Error(`status ${reply.statusCode}`);
      } catch (error) {
        if (signal.aborted) return;
        if (retryAfterMs === undefined)
          logger.warn({ err: error, host: this.#host }, 'a changed verdict could not be told');
        else await clock.sleep(retryAfterMs, signal).catch(() => undefined); // it is being closed
      }
    }
  }
}
