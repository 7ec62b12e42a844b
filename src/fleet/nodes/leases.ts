/**
 * Who of the fleet does what with a digest. A node that has the lease of a digest renews it for as long as it fetches, and
 * then until the content is in the object store; others get the bytes from it meanwhile.
 */
import type { Clock } from '../../clock.ts';
import { type Digest, digestHex } from '../../oci/digest.ts';
import type { Coordinator } from '../coordinator/coordinator.ts';
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
  | { kind: 'theirs'; member: Member; holder: string }
  /** Nobody knows: each node does it for itself. */
  | { kind: 'unknown' };

interface Held {
  digest: Digest;
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
   * @param instead the holder that was found dead
   */
  async claim(what: string, digest: Digest, instead?: string): Promise<Claim> {
    const { coordinator, engine, members, clock } = this.#context;
    const name = leaseName(what, digest);
    if (this.#held.has(name)) return { kind: 'mine' };
    const own = await members.ownCard();
    // Whoever fetches it uploads it, unless another node has begun to.
    const also = what === UPLOAD || what === REVALIDATE ? undefined : leaseName(UPLOAD, digest);
    const options = {
      forMs: LASTS_MS,
      ...(instead === undefined ? {} : { instead }),
      ...(also === undefined ? {} : { also }),
    };
    try {
      const answer = await engine.ask('claim', COMMAND_MS, () =>
        coordinator.leases.claim(name, own, options),
      );
      const { holder, hasBoth } = answer;
      if (holder === undefined) {
        const held = () => ({ digest, uses: 0, idleSince: clock.now() });
        this.#held.set(name, held());
        if (also !== undefined && hasBoth) this.#held.set(also, held());
        return { kind: 'mine' };
      }
      const member = await members.read(holder);
      // Nobody of this fleet wrote that: it must not lead anywhere.
      return member === undefined ? { kind: 'unknown' } : { kind: 'theirs', member, holder };
    } catch (error) {
      if (error instanceof EngineError) return { kind: 'unknown' };
      throw error;
    }
  }

  /** What this node fetches now, for itself and for others. */
  get fetching(): Digest[] {
    const fetches = [...this.#held].filter(
      ([name, { digest, uses }]) => uses > 0 && name !== leaseName(UPLOAD, digest),
    );
    return [...new Set(fetches.map(([, { digest }]) => digest))];
  }

  /** Says that something under a lease is under way. @returns to be called when it has ended; idempotent */
  use(what: string, digest: Digest): () => void {
    const held = this.#held.get(leaseName(what, digest));
    if (held === undefined) return () => undefined;
    held.uses += 1;
    let isOver = false;
    return () => {
      if (isOver) return;
      isOver = true;
      held.uses -= 1;
      held.idleSince = this.#context.clock.now();
    };
  }

  /** Lets others have it. */
  release(what: string, digest: Digest): void {
    void this.#giveBack([leaseName(what, digest)]);
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

  /** A node that has lost a lease goes on for its own clients, and says no more that it is the one to ask. */
  async #renew(): Promise<void> {
    const { coordinator, engine, members, clock, isWaiting } = this.#context;
    const isDone = ({ digest, uses, idleSince }: Held) =>
      uses === 0 && !isWaiting(digest) && Math.abs(clock.now() - idleSince) >= STORED_WITHIN_MS;
    void this.#giveBack([...this.#held].filter(([, held]) => isDone(held)).map(([name]) => name));
    const names = [...this.#held.keys()];
    if (names.length === 0) return;
    try {
      const own = await members.ownCard();
      const lost = await engine.ask('renew', COMMAND_MS, () =>
        coordinator.leases.renew(names, own, LASTS_MS),
      );
      for (const name of lost) this.#held.delete(name);
    } catch (error) {
      if (!(error instanceof EngineError)) throw error; // tried again in a second
    }
  }

  async #giveBack(names: readonly string[]): Promise<void> {
    const { coordinator, engine, members } = this.#context;
    const own = names.filter((name) => this.#held.delete(name));
    if (own.length === 0) return;
    try {
      const card = await members.ownCard();
      await engine.ask('release', COMMAND_MS, () => coordinator.leases.release(own, card));
    } catch (error) {
      if (!(error instanceof EngineError)) throw error; // they run out by themselves
    }
  }
}

/** Begins with digits of the digest, by which the coordinator spreads leases. */
function leaseName(what: string, digest: Digest): string {
  return `${digestHex(digest)}:${what}`;
}
