/**
 * Slows logins down after failures: the next attempts must wait.
 *
 * Attempts of one user from one client are spaced further and further apart: after 3 failures by 250 ms, then by twice
 * as much each time, at most by 10 s. All attempts of one client, for any user, are spaced in the same way after 20
 * failures, at most by 1 s. Attempts take turns. A delay of each request would not help: a thousand requests that all
 * wait 10 s at the same time are still a hundred guesses a second.
 *
 * An attempt that would wait for more than 10 s is refused at once. Failures are forgotten one by one, with time.
 */
import { hash } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import type { Clock } from '../../../clock.ts';
import { TooManyAttemptsError } from '../../errors.ts';
import { addressGroup } from '../../network/addresses.ts';

const FIRST_SPACING_MS = 250;
const LONGEST_WAIT_MS = 10_000;
/** Attempts that wait. Each holds a connection. */
const MOST_HELD = 1_000;
const MOST_REMEMBERED = 10_000;

interface PaceRule {
  /** Failures that cost nothing: people mistype. */
  free: number;
  longestMs: number;
  /** One failure is forgotten each time this long has passed. */
  forgetMs: number;
}

const OF_USER: PaceRule = { free: 3, longestMs: LONGEST_WAIT_MS, forgetMs: 60_000 };
/** Milder: behind one address there may be a whole office. */
const OF_CLIENT: PaceRule = { free: 20, longestMs: 1_000, forgetMs: 3_000 };

export interface Login {
  /** IP address of the client. IPv6 addresses of one /64 are one client. */
  address: string;
  user: string;
}

export class FailedLogins {
  readonly #clock: Clock;
  readonly #paceByUser = new LRUCache<string, Pace>({ max: MOST_REMEMBERED });
  readonly #paceByClient = new LRUCache<string, Pace>({ max: MOST_REMEMBERED });
  /** When each attempt may be made. */
  readonly #turnByAttempt = new LRUCache<string, number>({ max: MOST_REMEMBERED });
  #held = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /**
   * Waits until the login may be tried: at most 10 s, and not at all without failures before.
   *
   * @param attempt stands for user and password; equal attempts share one turn, so a hundred pods that start at the same
   *   time count as one
   * @throws {TooManyAttemptsError} it would wait for longer, or 1 000 requests wait already
   * @throws {Error} an AbortError when `signal` aborts
   */
  async turn(login: Login, attempt: string, signal?: AbortSignal): Promise<void> {
    const waitMs = this.#reserve(login, attempt);
    if (waitMs === 0) return;
    this.#held += 1;
    try {
      await this.#clock.sleep(waitMs, signal);
    } finally {
      this.#held -= 1;
    }
  }

  failed(login: Login): void {
    const now = this.#clock.now();
    const [user, client] = keysOf(login);
    paceOf(this.#paceByUser, user, OF_USER).failed(now);
    paceOf(this.#paceByClient, client, OF_CLIENT).failed(now);
  }

  /** Forgets the failures of this user from this client. Those of the client stay: it may know one password of many. */
  succeeded(login: Login): void {
    const [user] = keysOf(login);
    this.#paceByUser.delete(user);
  }

  /** @returns how long to wait for the turn */
  #reserve(login: Login, attempt: string): number {
    const now = this.#clock.now();
    const [user, client] = keysOf(login);
    const paces = [this.#paceByUser.get(user), this.#paceByClient.get(client)].filter((pace) => !!pace);
    const known = this.#turnByAttempt.get(attempt);
    const isKnown = known !== undefined && Math.abs(known - now) <= LONGEST_WAIT_MS;
    const turn = isKnown ? known : Math.max(now, ...paces.map((pace) => pace.next(now)));
    const waitMs = Math.max(0, turn - now);
    if (waitMs > LONGEST_WAIT_MS || (waitMs > 0 && this.#held >= MOST_HELD)) {
      throw new TooManyAttemptsError(waitMs);
    }
    if (!isKnown) {
      for (const pace of paces) pace.take(turn, now);
      this.#turnByAttempt.set(attempt, turn);
    }
    return waitMs;
  }
}

/** The attempts of one user or client. Times are milliseconds since the epoch. */
class Pace {
  readonly #rule: PaceRule;
  #failures = 0;
  /** Failures were forgotten up to this time. */
  #countedAt = 0;
  #next = 0;

  constructor(rule: PaceRule) {
    this.#rule = rule;
  }

  /** The earliest free turn. */
  next(now: number): number {
    // The clock may have been turned back: the last turn is 10 s ahead at most, and the next one 10 s after it.
    return this.#next - now > 2 * LONGEST_WAIT_MS ? now : this.#next;
  }

  take(turn: number, now: number): void {
    this.#next = turn + this.#spacing(now);
  }

  failed(now: number): void {
    this.#forget(now);
    this.#failures = Math.min(this.#failures + 1, this.#mostFailures);
    this.#next = Math.max(this.next(now), now + this.#spacing(now));
  }

  #spacing(now: number): number {
    this.#forget(now);
    const { free, longestMs } = this.#rule;
    const counted = Math.ceil(this.#failures) - free;
    return counted < 1 ? 0 : Math.min(FIRST_SPACING_MS * 2 ** (counted - 1), longestMs);
  }

  #forget(now: number): void {
    const forgotten = Math.max(0, now - this.#countedAt) / this.#rule.forgetMs;
    this.#failures = Math.max(0, this.#failures - forgotten);
    this.#countedAt = now;
  }

  /** Limits the count: more failures would not slow an attack down further, but would be remembered for long after. */
  get #mostFailures(): number {
    return this.#rule.free + 1 + Math.ceil(Math.log2(this.#rule.longestMs / FIRST_SPACING_MS));
  }
}

function paceOf(paces: LRUCache<string, Pace>, key: string, rule: PaceRule): Pace {
  const pace = paces.get(key) ?? new Pace(rule);
  paces.set(key, pace);
  return pace;
}

/** Hashed, because a key that is a piece of a header would keep the whole header in memory. */
function keysOf({ address, user }: Login): [user: string, client: string] {
  const client = addressGroup(address);
  return [hash('sha256', `${client} ${user}`, 'base64'), hash('sha256', client, 'base64')];
}
