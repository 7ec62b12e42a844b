/** Fetches the keys that an issuer publishes, often enough to follow its rotations, and no more often. */
import type { CryptoKey } from 'jose';
import type { Clock } from '../../clock.ts';
import { SingleFlight } from '../../single-flight.ts';
import type { Logger } from '../../telemetry/log.ts';
import { IssuerError, JwtError } from './errors.ts';
import { type JwtHeader, type KeySet, type KeySource, readKeySet } from './key-set.ts';

/** A key that the issuer has removed is refused after this time. */
const ASK_AGAIN_AFTER_MS = 10 * 60_000;
/** Limits requests to the issuer: anyone can send JWTs with unknown keys, and each would cause one. */
const ASK_AT_MOST_EVERY_MS = 30_000;
/** Applies to all requests of one round together. */
const TIMEOUT_MS = 5_000;

export interface PublishedKeysSettings {
  /** The issuer's name in the configuration. */
  issuer: string;
  /** How long the last keys are used while the issuer sends no others, in milliseconds. */
  staleKeysMs: number;
}

export interface PublishedKeysContext {
  /** Gets the JWK set. @throws {Error} it cannot be fetched */
  fetch: (signal: AbortSignal) => Promise<unknown>;
  /** Whether the mirror is sealed, so that no issuer may be asked. */
  sealed: () => boolean;
  clock: Clock;
  logger: Logger;
}

export class PublishedKeys implements KeySource {
  readonly #settings: PublishedKeysSettings;
  readonly #context: PublishedKeysContext;
  readonly #flight = new SingleFlight<void>();
  #last: { keys: KeySet; at: number } | undefined;
  #askedAt = Number.NEGATIVE_INFINITY;
  /** The last round brought no keys. */
  #failed = false;

  constructor(settings: PublishedKeysSettings, context: PublishedKeysContext) {
    this.#settings = settings;
    this.#context = context;
  }

  async find(header: JwtHeader): Promise<CryptoKey> {
    if (this.#age() >= ASK_AGAIN_AFTER_MS) await this.#ask();
    const known = await this.#current()(header);
    if (known !== undefined) return known;
    await this.#ask(); // the key may be new
    const found = await this.#current()(header);
    if (found !== undefined) return found;
    // Not the fault of the JWT: the key may be a new one, and the issuer cannot be asked.
    if (this.#failed || this.#context.sealed()) throw this.#outage();
    throw new JwtError('unknown-key', 'the JWT is signed with a key that its issuer does not publish');
  }

  #current(): KeySet {
    const age = this.#age();
    const isGood = age < ASK_AGAIN_AFTER_MS || age < this.#settings.staleKeysMs;
    if (this.#last !== undefined && isGood) return this.#last.keys;
    throw this.#outage();
  }

  #outage(): IssuerError {
    return new IssuerError(this.#context.sealed() ? 'sealed' : 'unavailable', this.#settings.issuer);
  }

  /** Milliseconds since the keys were fetched. A clock that was turned back makes them old, not new for ever. */
  #age(): number {
    return this.#last === undefined
      ? Number.POSITIVE_INFINITY
      : Math.abs(this.#context.clock.now() - this.#last.at);
  }

  /** Runs one round of requests for all callers at the same time. Skips it if the last round was too recent. */
  #ask(): Promise<void> {
    return this.#flight.run('keys', () => this.#round()).result;
  }

  async #round(): Promise<void> {
    const { clock, fetch, logger, sealed } = this.#context;
    if (sealed()) return;
    const now = clock.now();
    if (Math.abs(now - this.#askedAt) < ASK_AT_MOST_EVERY_MS) return;
    this.#askedAt = now;
    try {
      const keys = readKeySet(await fetch(AbortSignal.timeout(TIMEOUT_MS)));
      this.#last = { keys, at: now };
      this.#failed = false;
    } catch (error) {
      this.#failed = true;
      const line = { issuer: this.#settings.issuer, reason: (error as Error).message };
      logger.warn(line, 'the keys of an issuer cannot be fetched');
    }
  }
}
