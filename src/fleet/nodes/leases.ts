/**
 * Who of the fleet does what with a digest. A node that has the lease of a digest renews it for as long as it fetches, and
 * then until the content is in the object store; others get the bytes from it meanwhile.
 */
import type { Clock } from '../../clock.ts';
import { type Digest, digestHex } from '../../oci/digest.ts';
import type { ClaimAnswer, Coordinator, Lease } from '../coordinator/coordinator.ts';
import type { Engine } from '../engines/engine.ts';
import { EngineError } from '../engines/errors.ts';
import type { Member, Members } from './members.ts';

export interface LeasesContext {
  coordinator: Coordinator;
  engine: Engine;
  members: Members;
  /** Whether a digest waits to be brought to the object store. */
  isWaiting: (digest: Digest) => boolean;
  clock: Clock;
}

export type Claim =
  /** It is this node's to do. */
  | { kind: 'mine' }
  /** Another node does it. */
  | ({ kind: 'theirs'; member: Member } & Pick<Lease, 'number' | 'reached'>)
  /** Nobody knows: each node does it for itself. */
  | { kind: 'unknown' };

/** Something that is under way under a lease. */
export interface LeaseUse {
  /** The byte that has been reached: others are told. */
  reach(byte: number): void;
  /** It has ended. Idempotent. */
  end(): void;
}

interface Held {
  digest: Digest;
  number: number;
  reached: number;
  /** What is under way. */
  uses: number;
  /** When the last of it ended; milliseconds since the epoch. */
  idleSince: number;
}

/** What is done with a digest that is brought to the object store. */
export const UPLOAD = 'upload';
/** What is done with a tag that upstream is asked of; its lease is that of the digest of its name. */
export const REVALIDATE = 'revalidate';

const COMMAND_MS = 250;
const LASTS_MS = 3_000;
const RENEW_MS = 1_000;
/** What was fetched is stored, and then waits to be uploaded, within this time. */
const STORED_WITHIN_MS = 10_000;
/** Those who find a holder dead do so at the same time. Who is further along than the first has this long to say so. */
const CONTEST_MS = 100;

export class Leases {
  readonly #context: LeasesContext;
  readonly #held = new Map<string, Held>();
  readonly #timer: Disposable;

  constructor(context: LeasesContext) {
    this.#context = context;
    this.#timer = context.clock.every(RENEW_MS, () => void this.#renew());
  }

  /**
   * Asks who does `what` with a digest, and takes it on if nobody does.
   *
   * @param what {@link UPLOAD}, or the upstream that it is fetched from, as all nodes call it: an honest upstream's pull never
   *   waits for another one's bytes
   * @param options.reached the byte that this node has reached
   * @param options.instead number of the lease whose holder is to be replaced. Of those who want that, the one that has
   *   reached most gets it
   */
  async claim(
    what: string,
    digest: Digest,
    options: { reached?: number; instead?: number } = {},
  ): Promise<Claim> {
    const { members, clock } = this.#context;
    const name = leaseName(what, digest);
    if (this.#held.has(name)) return { kind: 'mine' };
    const own = await members.ownCard();
    let answer = await this.#ask(name, own, what, digest, options);
    if (answer?.lease.holder === own && options.instead !== undefined) {
      await clock.sleep(CONTEST_MS);
      answer = await this.#ask(name, own, what, digest, options);
    }
    if (answer === undefined) return { kind: 'unknown' };
    const { holder, number, reached } = answer.lease;
    if (holder === own) {
      this.#hold(name, { digest, number, reached });
      if (answer.hasBoth) this.#hold(leaseName(UPLOAD, digest), { digest, number, reached });
      return { kind: 'mine' };
    }
    const member = await members.read(holder);
    // Nobody of this fleet wrote that: it must not lead anywhere.
    return member === undefined ? { kind: 'unknown' } : { kind: 'theirs', member, number, reached };
  }

  /** Whether it is this node's to do. */
  has(what: string, digest: Digest): boolean {
    return this.#held.has(leaseName(what, digest));
  }

  /** Says that something under a lease is under way. */
  use(what: string, digest: Digest): LeaseUse {
    const held = this.#held.get(leaseName(what, digest));
    if (held === undefined) return { reach: () => undefined, end: () => undefined };
    held.uses += 1;
    let isOver = false;
    return {
      reach: (byte) => {
        held.reached = Math.max(held.reached, byte);
      },
      end: () => {
        if (isOver) return;
        isOver = true;
        held.uses -= 1;
        held.idleSince = this.#context.clock.now();
      },
    };
  }

  /** Lets others have it, unless something else is under way under the same lease. */
  release(what: string, digest: Digest): void {
    const name = leaseName(what, digest);
    if (this.#held.get(name)?.uses === 0) void this.#giveBack([name]);
  }

  /** Lets others have all that this node does with a digest, because it is in the object store. */
  releaseAll(digest: Digest): void {
    void this.#giveBack([...this.#held].filter(([, held]) => held.digest === digest).map(([name]) => name));
  }

  /** Lets others have everything. */
  async close(): Promise<void> {
    this.#timer[Symbol.dispose]();
    await this.#giveBack([...this.#held.keys()]);
  }

  /** @returns undefined if the coordinator does not answer */
  async #ask(
    name: string,
    own: string,
    what: string,
    digest: Digest,
    { reached = 0, instead }: { reached?: number; instead?: number },
  ): Promise<ClaimAnswer | undefined> {
    const { coordinator, engine } = this.#context;
    const options = {
      ...{ forMs: LASTS_MS, reached },
      ...(instead === undefined ? {} : { instead }),
      // Whoever fetches it uploads it, unless another node has begun to.
      ...(what === UPLOAD || what === REVALIDATE ? {} : { also: leaseName(UPLOAD, digest) }),
    };
    try {
      return await engine.ask('claim', COMMAND_MS, () => coordinator.leases.claim(name, own, options));
    } catch (error) {
      if (error instanceof EngineError) return undefined;
      throw error;
    }
  }

  /** What is under way under the same number stays so. */
  #hold(name: string, lease: Pick<Held, 'digest' | 'number' | 'reached'>): void {
    if (this.#held.get(name)?.number === lease.number) return;
    this.#held.set(name, { ...lease, uses: 0, idleSince: this.#context.clock.now() });
  }

  /** A node that has lost a lease goes on for its own clients, and says no more that it is the one to ask. */
  async #renew(): Promise<void> {
    const { coordinator, engine, clock, isWaiting } = this.#context;
    const isDone = ({ digest, uses, idleSince }: Held) =>
      uses === 0 && !isWaiting(digest) && Math.abs(clock.now() - idleSince) >= STORED_WITHIN_MS;
    void this.#giveBack([...this.#held].filter(([, held]) => isDone(held)).map(([name]) => name));
    const leases = new Map(this.#held);
    if (leases.size === 0) return;
    try {
      const lost = await engine.ask('renew', COMMAND_MS, () => coordinator.leases.renew(leases, LASTS_MS));
      for (const name of lost) if (this.#held.get(name) === leases.get(name)) this.#held.delete(name);
    } catch (error) {
      if (!(error instanceof EngineError)) throw error; // tried again in a second
    }
  }

  async #giveBack(names: readonly string[]): Promise<void> {
    const { coordinator, engine } = this.#context;
    const numbers = new Map<string, number>();
    for (const name of names) {
      const held = this.#held.get(name);
      if (this.#held.delete(name) && held !== undefined) numbers.set(name, held.number);
    }
    if (numbers.size === 0) return;
    try {
      await engine.ask('release', COMMAND_MS, () => coordinator.leases.release(numbers));
    } catch (error) {
      if (!(error instanceof EngineError)) throw error; // they run out by themselves
    }
  }
}

/** Begins with digits of the digest, by which the coordinator spreads leases. */
function leaseName(what: string, digest: Digest): string {
  return `${digestHex(digest)}:${what}`;
}
