/** What one fetch may take of the limits that apply to its upstream. */
import type { Clock } from '../../clock.ts';
import type { BandwidthAccount, BandwidthKind, BandwidthLimit } from './bandwidth.ts';

export class BandwidthShare {
  readonly #accounts: readonly { limit: BandwidthLimit; account: BandwidthAccount }[];
  readonly #clock: Clock;
  readonly #onWaited: (ms: number) => void;
  #closed = false;
  #clients = 0;
  #waiting = 0;
  #waitingSince = 0;
  #waitedMs = 0;

  /** @param onWaited called with the milliseconds that the fetch has waited since the last call */
  constructor(limits: readonly BandwidthLimit[], clock: Clock, onWaited: (ms: number) => void) {
    this.#accounts = limits.map((limit) => ({ limit, account: limit.open('background') }));
    this.#clock = clock;
    this.#onWaited = onWaited;
  }

  /** There is no limit now: {@link take} need not be asked. */
  get isFree(): boolean {
    return this.#accounts.every(({ limit }) => limit.isNone);
  }

  /** How long the fetch has waited for a limit, on however many connections at a time. */
  get waitedMs(): number {
    this.#note();
    return this.#waitedMs;
  }

  /** A client waits for the fetch now, until {@link removeClient}. Without any, it is background work. */
  addClient(): void {
    this.#clients += 1;
    if (this.#clients === 1) this.#setKind('client');
  }

  removeClient(): void {
    this.#clients -= 1;
    if (this.#clients === 0) this.#setKind('background');
  }

  /**
   * Waits until some bytes may pass, and counts them.
   *
   * @param wanted bytes, at least 1
   * @returns how many may pass
   * @throws when `signal` aborts
   */
  async take(wanted: number, signal: AbortSignal | undefined): Promise<number> {
    const now = this.#tryTake(wanted);
    if (now > 0) return now;
    this.#change(1);
    try {
      for (;;) {
        const delays = this.#accounts.map(({ limit, account }) => limit.delayMs(account, wanted));
        await this.#clock.sleep(Math.max(...delays), signal);
        this.#note();
        const taken = this.#tryTake(wanted);
        if (taken > 0) return taken;
      }
    } finally {
      this.#change(-1);
    }
  }

  /** Readers may still leave after this. */
  close(): void {
    this.#closed = true;
    for (const { limit, account } of this.#accounts) limit.close(account);
  }

  #setKind(kind: BandwidthKind): void {
    if (this.#closed) return;
    for (const { limit, account } of this.#accounts) limit.setKind(account, kind);
  }

  #tryTake(wanted: number): number {
    let bytes = wanted;
    for (const { limit, account } of this.#accounts)
      bytes = Math.min(bytes, limit.available(account, wanted));
    if (bytes > 0) for (const { limit, account } of this.#accounts) limit.spend(account, bytes);
    return bytes;
  }

  #change(by: 1 | -1): void {
    this.#note();
    this.#waiting += by;
    for (const { account } of this.#accounts) account.waiting = this.#waiting;
  }

  #note(): void {
    const now = this.#clock.now();
    const ms = this.#waiting === 0 ? 0 : Math.max(0, now - this.#waitingSince);
    this.#waitingSince = now;
    if (ms === 0) return;
    this.#waitedMs += ms;
    this.#onWaited(ms);
  }
}
