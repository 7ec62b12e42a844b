/** Tells a node that sends a blob too slowly from one that is only not read any faster, and takes over from it. */
import type { Clock } from '../../clock.ts';
import type { Digest } from '../../oci/digest.ts';
import { EngineError } from '../engines/errors.ts';
import type { Leases, LeaseUse } from './leases.ts';

/** A node whose own connection to upstream brings less is not worth following. */
const LEAST_BYTES_PER_MS = (256 * 1024) / 1000;
/** What is waited for in all before the speed counts. */
const WINDOW_MS = 5_000;
/** Between looks at how far the slow node is. */
const LOOK_MS = 1_000;

/** @param onSlow called before it throws @throws {EngineError} for a while less came than was worth waiting for */
export async function* fastEnough(
  pieces: AsyncIterable<Buffer>,
  clock: Clock,
  onSlow: () => void,
): AsyncGenerator<Buffer, void, undefined> {
  let [waitedMs, bytes] = [0, 0];
  let askedAt = clock.now();
  for await (const piece of pieces) {
    waitedMs += Math.max(0, clock.now() - askedAt);
    bytes += piece.length;
    if (waitedMs >= WINDOW_MS) {
      if (bytes < waitedMs * LEAST_BYTES_PER_MS) {
        onSlow();
        throw new EngineError('timeout', 'the other node gets the blob too slowly');
      }
      [waitedMs, bytes] = [0, 0];
    }
    yield piece;
    askedAt = clock.now(); // only waiting counts, and not how long the piece was in use
  }
}

export interface OvertakingContext {
  leases: Pick<Leases, 'claim' | 'use'>;
  clock: Clock;
  /** Called when the lease is this node's. */
  onTaken: () => void;
}

/** A second fetch beside that of a slow node. It takes that one's lease when it is further along. */
export class Overtaking implements LeaseUse {
  readonly #what: string;
  readonly #digest: Digest;
  readonly #context: OvertakingContext;
  #lookedAt: number;
  #isOver = false;
  #use: LeaseUse | undefined;

  /** @param what the lease of the slow node */
  constructor(what: string, digest: Digest, context: OvertakingContext) {
    this.#what = what;
    this.#digest = digest;
    this.#context = context;
    this.#lookedAt = context.clock.now();
  }

  reach(byte: number): void {
    this.#use?.reach(byte);
    const now = this.#context.clock.now();
    if (this.#use !== undefined || Math.abs(now - this.#lookedAt) < LOOK_MS) return;
    this.#lookedAt = now;
    void this.#look(byte);
  }

  end(): void {
    this.#isOver = true;
    this.#use?.end();
  }

  async #look(reached: number): Promise<void> {
    const { leases, onTaken } = this.#context;
    let claim = await leases.claim(this.#what, this.#digest, { reached });
    if (claim.kind === 'theirs' && claim.reached < reached)
      claim = await leases.claim(this.#what, this.#digest, { reached, instead: claim.number });
    if (claim.kind !== 'mine' || this.#use !== undefined) return;
    onTaken();
    this.#use = leases.use(this.#what, this.#digest);
    if (this.#isOver) this.#use.end();
  }
}
