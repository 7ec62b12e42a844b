/**
 * Users of the password file. A check costs a tenth of a second of a processor or more, so its outcome is remembered:
 * a right password for 5 minutes, a wrong one for one minute.
 *
 * A remembered password never waits. Any other attempt waits for its turn (`failed-logins.ts`), then in the queue of
 * checks. An unknown user is handled in the same way and in the same time as a wrong password.
 */
import { createHmac, randomBytes } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import type { Clock } from '../../../clock.ts';
import { SingleFlight } from '../../../single-flight.ts';
import type { CredentialIdentity } from '../../identity.ts';
import { addressGroup } from '../../network/addresses.ts';
import type { CheckQueue } from './check-queue.ts';
import type { FailedLogins } from './failed-logins.ts';
import { type Htpasswd, LONGEST_NAME_BYTES, type PasswordLine } from './htpasswd.ts';

/** Bcrypt ignores further bytes, so a longer password would be accepted by its beginning alone. */
const LONGEST_PASSWORD_BYTES = 72;
const REMEMBER_RIGHT_MS = 5 * 60_000;
const REMEMBER_WRONG_MS = 60_000;
const MOST_REMEMBERED = 10_000;

/** `wrong`: the user or the password; nothing tells which. */
export type PasswordRefusal = 'wrong' | 'too-long';

export interface PasswordClient {
  /** IP address. */
  address: string;
  /** Aborts when the client leaves. */
  signal?: AbortSignal | undefined;
}

export interface UsersContext {
  /** The password file as it is now. */
  htpasswd: () => Promise<Htpasswd>;
  /** Whether a password belongs to a bcrypt hash. Does not block the event loop. */
  verify: (password: string, hash: string) => Promise<boolean>;
  queue: CheckQueue;
  failedLogins: FailedLogins;
  clock: Clock;
}

/** What is known of a name and a password without a check. */
interface Recalled {
  /** Made from name, password and the user's line, so that a changed line makes a remembered result useless. */
  key: string;
  line: PasswordLine | undefined;
  dummyHash: string;
  isRight: boolean | undefined;
}

export class Users {
  readonly #context: UsersContext;
  readonly #secret = randomBytes(32);
  /** Kept apart from wrong passwords: a flood of those must not push out the right ones. */
  readonly #right: LRUCache<string, true>;
  readonly #wrong: LRUCache<string, true>;
  readonly #checks = new SingleFlight<boolean>();

  constructor(context: UsersContext) {
    this.#context = context;
    const { clock } = context;
    const bounds = { max: MOST_REMEMBERED, perf: { now: () => clock.now() }, ttlResolution: 0 };
    this.#right = new LRUCache({ ...bounds, ttl: REMEMBER_RIGHT_MS });
    this.#wrong = new LRUCache({ ...bounds, ttl: REMEMBER_WRONG_MS });
  }

  /**
   * @throws {TooManyAttemptsError} too many attempts wait already
   * @throws {Error} an AbortError when `signal` aborts while the attempt waits for its turn
   */
  async identify(
    name: string,
    password: string,
    { address, signal }: PasswordClient,
  ): Promise<CredentialIdentity | PasswordRefusal> {
    if (Buffer.byteLength(password) > LONGEST_PASSWORD_BYTES) return 'too-long';
    if (Buffer.byteLength(name) > LONGEST_NAME_BYTES) return 'wrong'; // no line can hold it
    let known = await this.#recall(name, password);
    if (known.isRight === undefined) {
      const login = { address, user: name };
      await this.#context.failedLogins.turn(login, known.key, signal);
      // While this one waited, the file may have changed, and an equal request may have been answered.
      known = await this.#recall(name, password);
      known.isRight ??= await this.#checks.run(known.key, () => this.#check(login, password, known)).result;
    }
    if (!known.isRight || known.line === undefined) return 'wrong';
    return { kind: 'user', name, fingerprint: known.line.fingerprint };
  }

  /** Whether the user is still there, with the password that `fingerprint` came from. */
  async isCurrent(name: string, fingerprint: string): Promise<boolean> {
    const { lineByName } = await this.#context.htpasswd();
    return lineByName.get(name)?.fingerprint === fingerprint;
  }

  async #recall(name: string, password: string): Promise<Recalled> {
    const { lineByName, dummyHash } = await this.#context.htpasswd();
    const line = lineByName.get(name);
    const key = createHmac('sha256', this.#secret)
      .update(JSON.stringify([name, password, line?.hash]))
      .digest('base64');
    const isRight = this.#right.has(key) ? true : this.#wrong.has(key) ? false : undefined;
    return { key, line, dummyHash, isRight };
  }

  async #check(
    login: { address: string; user: string },
    password: string,
    { key, line, dummyHash }: Recalled,
  ): Promise<boolean> {
    const { queue, verify, failedLogins } = this.#context;
    const matches = await queue.run(addressGroup(login.address), () =>
      verify(password, line?.hash ?? dummyHash),
    );
    const isRight = matches && line !== undefined;
    if (isRight) failedLogins.succeeded(login);
    else failedLogins.failed(login);
    (isRight ? this.#right : this.#wrong).set(key, true);
    return isRight;
  }
}
