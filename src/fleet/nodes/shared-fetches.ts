/**
 * Fetches a cold blob once for the fleet: one node asks upstream, and the others follow it, from the byte that they are at,
 * while it still comes.
 *
 * Whoever loses the node that it follows looks again who fetches, and goes on there, or takes over and goes on from
 * upstream. If the node that fetches is slow, one of its followers fetches, too, and the others follow that one. At worst each
 * node fetches for itself: nobody waits for a fleet that does not answer.
 */
import { pipeline, Readable, Transform } from 'node:stream';
import { LRUCache } from 'lru-cache';
import type { Clock } from '../../clock.ts';
import type { Digest } from '../../oci/digest.ts';
import type { Metrics } from '../../telemetry/metrics.ts';
import type { FetchedBlob } from '../../upstream/upstream.ts';
import type { Leases, LeaseUse } from './leases.ts';
import type { Peers } from './peers.ts';
import { fastEnough, Overtaking } from './slow-holder.ts';

export interface SharedFetchesContext {
  leases: Leases;
  peers: Peers;
  upstreamKeyOf: (upstream: string) => Promise<string | undefined>;
  clock: Clock;
  metrics: Metrics;
}

/** Who is followed: the first that fetches, or the second, because the first is slow, or nobody, because both are. */
type Turn = 'first' | 'second' | 'nobody';

interface Trouble {
  turn: Turn;
  /** Since when; milliseconds since the epoch. */
  since: number;
  /** Replies in a row that ended before they were whole, the last ones without a byte. */
  broken: number;
}

interface Wanted {
  /** The upstream, as all nodes call it. */
  key: string;
  digest: Digest;
  from: number;
  fetch: () => Promise<FetchedBlob>;
}

/**
 * How often a node may say that it still waits for upstream. It does so after a second. The second that fetches gets the time
 * that upstream may take to answer.
 */
const WAITS_MOST = { first: 4, second: 25, nobody: 0 };
/** Nodes that are found dead one after the other. */
const DEAD_MOST = 3;
/** A node has the lease and not the blob: its disk is full. */
const ABSENT_MOST = 2;
const LOOK_AGAIN_MS = 1_000;
const BROKEN_MOST = 2;
/** A node whose bytes were wrong is not followed, and a blob that comes slowly is not followed again, for this long. */
const REMEMBERED_MS = 60_000;
const REMEMBERED = 1_000;

export class SharedFetches {
  readonly #context: SharedFetchesContext;
  /** Ids of nodes whose bytes were wrong, and since when. */
  readonly #distrusted = new LRUCache<string, number>({ max: REMEMBERED });
  /** Blobs that came slowly, or not at all, from the nodes that fetch them. */
  readonly #troubles = new LRUCache<string, Trouble>({ max: REMEMBERED });
  /** What is asked for here, while it is not known where it comes from. */
  readonly #opening = new Map<string, Promise<unknown>>();

  constructor(context: SharedFetchesContext) {
    this.#context = context;
  }

  /**
   * @param upstream its name here
   * @param fetch asks upstream @throws what `fetch` throws
   */
  async open(
    upstream: string,
    digest: Digest,
    range: { from?: number; to?: number },
    signal: AbortSignal | undefined,
    fetch: () => Promise<FetchedBlob>,
  ): Promise<FetchedBlob> {
    const key = await this.#context.upstreamKeyOf(upstream);
    if (key === undefined) return fetch();
    const wanted: Wanted = { key, digest, from: range.from ?? 0, fetch };
    const opening = this.#open(wanted, range, signal);
    const opened = opening.catch(() => undefined);
    this.#opening.set(nameOf(wanted), opened);
    void opened.then(() => {
      if (this.#opening.get(nameOf(wanted)) === opened) this.#opening.delete(nameOf(wanted));
    });
    return opening;
  }

  /** Resolves when it is known where the bytes come from that are asked for here just now. Undefined: none are. */
  opening(key: string, digest: Digest): Promise<unknown> | undefined {
    return this.#opening.get(nameOf({ key, digest }));
  }

  /** Whether this node fetches a blob for all: it is nowhere else. */
  async isFetching(upstream: string, digest: Digest): Promise<boolean> {
    const key = await this.#context.upstreamKeyOf(upstream);
    return key !== undefined && this.#context.leases.has(key, digest);
  }

  async #open(
    wanted: Wanted,
    range: { from?: number; to?: number },
    signal: AbortSignal | undefined,
  ): Promise<FetchedBlob> {
    const { leases, peers, clock } = this.#context;
    const { key, digest, fetch } = wanted;
    const count = { waiting: 0, absent: 0, dead: 0 };
    let instead: number | undefined;
    for (;;) {
      const turn = this.#trouble(wanted).turn;
      if (turn === 'nobody') return this.#alone('slow', fetch);
      const options = { reached: wanted.from, ...(instead === undefined ? {} : { instead }) };
      const claim = await leases.claim(leaseOf(wanted, turn), digest, options);
      if (claim.kind === 'unknown') return this.#alone('coordinator', fetch);
      if (claim.kind === 'mine') {
        if (instead !== undefined) this.#context.metrics.fleetTakeovers.inc({ reason: 'unreachable' });
        return this.#fetch(wanted, turn);
      }
      const { member } = claim;
      if (this.#isRecent(this.#distrusted.get(member.id))) return this.#alone('distrusted', fetch);
      const answer = await peers.open(member, key, digest, range, signal);
      signal?.throwIfAborted();
      if (answer.kind === 'bytes') {
        const rejected = () => void this.#distrusted.set(member.id, clock.now());
        const body = Readable.from(this.#followed(answer.body, wanted, turn), { objectMode: false });
        const source = { name: 'node', rejected } as const;
        return { start: wanted.from, ranged: true, size: answer.size, body, source };
      }
      count[answer.kind] += 1;
      instead = answer.kind === 'dead' ? claim.number : undefined;
      if (count.dead >= DEAD_MOST) return this.#alone('unreachable', fetch);
      if (count.absent >= ABSENT_MOST) return this.#alone('absent', fetch);
      if (answer.kind === 'absent') await clock.sleep(LOOK_AGAIN_MS, signal);
      if (count.waiting >= WAITS_MOST[turn]) {
        this.#giveUp(wanted, turn);
        count.waiting = 0;
      }
    }
  }

  async #alone(reason: string, fetch: () => Promise<FetchedBlob>): Promise<FetchedBlob> {
    this.#context.metrics.fleetFetchesAlone.inc({ reason });
    return fetch();
  }

  #isRecent(since: number | undefined): boolean {
    return since !== undefined && Math.abs(this.#context.clock.now() - since) < REMEMBERED_MS;
  }

  #trouble(wanted: Wanted): Trouble {
    const known = this.#troubles.get(nameOf(wanted));
    if (known !== undefined && this.#isRecent(known.since)) return known;
    const none: Trouble = { turn: 'first', since: this.#context.clock.now(), broken: 0 };
    this.#troubles.set(nameOf(wanted), none);
    return none;
  }

  /** Follows whoever is followed in this turn no more. */
  #giveUp(wanted: Wanted, turn: Turn): void {
    const trouble = this.#trouble(wanted);
    if (trouble.turn !== turn) return; // another request has found that out
    const next = turn === 'first' ? 'second' : 'nobody';
    Object.assign(trouble, { turn: next, since: this.#context.clock.now(), broken: 0 });
  }

  async *#followed(body: Readable, wanted: Wanted, turn: Turn): AsyncGenerator<Buffer, void, undefined> {
    let hasCome = false;
    const giveUp = () => this.#giveUp(wanted, turn);
    try {
      // There is no third fetch, so that the second need not be fast.
      const pieces = turn === 'first' ? fastEnough(body, this.#context.clock, giveUp) : body;
      for await (const piece of pieces as AsyncIterable<Buffer>) {
        hasCome = true;
        yield piece;
      }
    } catch (error) {
      const trouble = this.#trouble(wanted);
      trouble.broken = hasCome ? 1 : trouble.broken + 1;
      if (trouble.broken >= BROKEN_MOST) giveUp();
      throw error;
    }
  }

  /** Fetches from upstream, for the other nodes too. */
  async #fetch(wanted: Wanted, turn: Turn): Promise<FetchedBlob> {
    const { leases } = this.#context;
    const lease = leaseOf(wanted, turn);
    const uses = [leases.use(lease, wanted.digest), ...this.#overtaking(wanted, turn)];
    const onEnd = (isWhole: boolean) => {
      for (const use of uses) use.end();
      // Somebody else may be able to reach upstream.
      if (!isWhole) leases.release(lease, wanted.digest);
    };
    try {
      const blob = await wanted.fetch();
      return { ...blob, body: told(blob, uses, onEnd) };
    } catch (error) {
      onEnd(false);
      throw error;
    }
  }

  #overtaking({ key, digest }: Wanted, turn: Turn): LeaseUse[] {
    if (turn !== 'second') return [];
    const { metrics } = this.#context;
    const onTaken = () => metrics.fleetTakeovers.inc({ reason: 'slow' });
    return [new Overtaking(key, digest, { ...this.#context, onTaken })];
  }
}

/** Passes a blob on, and tells how far it is. @param onEnd called when it has come, or broken off */
function told(blob: FetchedBlob, uses: readonly LeaseUse[], onEnd: (isWhole: boolean) => void): Readable {
  let at = blob.start;
  const passing = new Transform({
    transform: (piece: Buffer, _, done) => {
      at += piece.length;
      for (const use of uses) use.reach(at);
      done(null, piece);
    },
  });
  pipeline(blob.body, passing, (error) => onEnd(error === null || error === undefined));
  return passing;
}

function nameOf({ key, digest }: Pick<Wanted, 'key' | 'digest'>): string {
  return `${key} ${digest}`;
}

function leaseOf({ key }: Wanted, turn: Turn): string {
  return turn === 'second' ? `${key}:again` : key;
}
