/**
 * Limits body bytes a second, and gives equal parts of them to those who share the limit.
 *
 * Deals out what time has made available, in equal parts, to one account for each fetch. A fetch spends what is in its
 * own account, so it makes no difference how many connections it has or who asks first. What an account cannot hold goes
 * to the others, and first to those that wait.
 */
import type { Clock } from '../../clock.ts';

/** `client`: somebody waits for the fetch. `background`: nobody does. */
export type BandwidthKind = 'client' | 'background';

/** What the background may have while a client waits. */
const BACKGROUND_PART = 0.1;
/** Dealing more often would cost more than it brings. */
const DEAL_MS = 5;
/** What accounts hold together, and so the length of a pause of the event loop that costs no bandwidth. */
const HELD_MS = 125;
/** How long an account saves for a piece. Shorter pieces cost CPU, longer ones keep a client without a byte. */
const PIECE_MS = 50;
const MIN_PIECE_BYTES = 16;
/** The most that replies which do not wait may take in advance, so that one large list is no outage for blobs. */
const MAX_DEBT_MS = 10_000;
const LONGEST_DELAY_MS = 50;

export interface BandwidthAccount {
  /** Bytes. */
  balance: number;
  kind: BandwidthKind;
  /** How many connections of the fetch wait now. */
  waiting: number;
}

export class BandwidthLimit {
  readonly #clock: Clock;
  readonly #accounts = {
    client: new Set<BandwidthAccount>(),
    background: new Set<BandwidthAccount>(),
  };
  /** Bytes in a millisecond. */
  #rate: number | undefined;
  #dealtAt = 0;
  /** Bytes that are in no account. Negative: to be paid back before any are dealt. */
  #rest = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get isNone(): boolean {
    return this.#rate === undefined;
  }

  /** Takes effect for running fetches, within {@link LONGEST_DELAY_MS}. @param bytesPerSecond undefined: no limit */
  setLimit(bytesPerSecond: number | undefined): void {
    const rate = bytesPerSecond === undefined ? undefined : bytesPerSecond / 1000;
    if (rate === this.#rate) return;
    this.#deal();
    this.#rate = rate;
    this.#dealtAt = this.#clock.now();
    this.#rest = 0;
    for (const account of [...this.#accounts.client, ...this.#accounts.background]) account.balance = 0;
  }

  open(kind: BandwidthKind): BandwidthAccount {
    this.#deal();
    const account = { balance: 0, kind, waiting: 0 };
    this.#enter(account);
    return account;
  }

  setKind(account: BandwidthAccount, kind: BandwidthKind): void {
    this.#deal();
    this.#accounts[account.kind].delete(account);
    account.kind = kind;
    this.#enter(account);
  }

  close(account: BandwidthAccount): void {
    this.#deal();
    this.#accounts[account.kind].delete(account);
    this.#empty(account);
  }

  /** How many of `wanted` bytes may pass now. 0 until they are enough for a piece. */
  available(account: BandwidthAccount, wanted: number): number {
    if (this.#rate === undefined) return wanted;
    this.#deal();
    return account.balance < this.#piece(account, wanted) ? 0 : Math.min(wanted, Math.floor(account.balance));
  }

  /** @param bytes no more than {@link available} */
  spend(account: BandwidthAccount, bytes: number): void {
    if (this.#rate !== undefined) account.balance -= bytes;
  }

  /** Counts bytes that do not wait. The others make room for them. */
  spendAhead(bytes: number): void {
    if (this.#rate === undefined) return;
    this.#deal();
    this.#rest = Math.max(this.#rest - bytes, -MAX_DEBT_MS * this.#rate);
  }

  /** Milliseconds after which it is worth asking {@link available} again. */
  delayMs(account: BandwidthAccount, wanted: number): number {
    if (this.#rate === undefined) return 0;
    const missing = this.#piece(account, wanted) - account.balance;
    return Math.min(Math.max(missing / this.#fairRate(account), DEAL_MS), LONGEST_DELAY_MS);
  }

  #piece(account: BandwidthAccount, wanted: number): number {
    return Math.min(wanted, Math.max(this.#fairRate(account) * PIECE_MS, MIN_PIECE_BYTES));
  }

  #fairRate({ kind }: BandwidthAccount): number {
    const { client, background } = this.#accounts;
    const rate = this.#rate ?? Number.POSITIVE_INFINITY;
    if (kind === 'client') return rate / client.size;
    return (client.size === 0 ? rate : rate * BACKGROUND_PART) / background.size;
  }

  #enter(account: BandwidthAccount): void {
    const { client, background } = this.#accounts;
    // Takes back what the background has saved: it may be more than its part of the time that begins now.
    if (account.kind === 'background') this.#empty(account);
    else if (client.size === 0) for (const each of background) this.#empty(each);
    this.#accounts[account.kind].add(account);
  }

  #empty(account: BandwidthAccount): void {
    this.#rest += account.balance;
    account.balance = 0;
  }

  #deal(): void {
    const rate = this.#rate;
    if (rate === undefined) return;
    const now = this.#clock.now();
    const elapsed = now - this.#dealtAt;
    if (elapsed >= 0 && elapsed < DEAL_MS) return;
    this.#dealtAt = now; // also when the clock was turned back: what has passed is not known then
    this.#rest += Math.max(0, elapsed) * rate;
    if (this.#rest <= 0) return;
    const { client, background } = this.#accounts;
    let left = this.#rest;
    if (client.size === 0) left = dealTo(background, left, rate);
    else {
      const part = Math.min(left, BACKGROUND_PART * rate * Math.min(Math.max(0, elapsed), HELD_MS));
      left = left - part + dealTo(background, part, rate * BACKGROUND_PART);
      left = dealTo(client, left, rate);
    }
    this.#rest = Math.min(left, HELD_MS * rate);
  }
}

/** @returns what is left */
function dealTo(accounts: ReadonlySet<BandwidthAccount>, bytes: number, rate: number): number {
  const held = HELD_MS * rate;
  const left = pour([...accounts], bytes, Math.max(held / accounts.size, 2 * MIN_PIECE_BYTES));
  const waiting = [...accounts].filter((account) => account.waiting > 0);
  return pour(waiting, left, held / waiting.length);
}

/** Fills accounts evenly, up to `brim` each. @returns what is left */
function pour(accounts: readonly BandwidthAccount[], bytes: number, brim: number): number {
  let left = bytes;
  let open = accounts.filter(({ balance }) => balance < brim);
  while (open.length > 0 && left > 0) {
    const part = left / open.length;
    left = 0;
    for (const account of open) {
      const room = brim - account.balance;
      account.balance = part < room ? account.balance + part : brim;
      left += Math.max(0, part - room);
    }
    open = open.filter(({ balance }) => balance < brim);
  }
  return left;
}
