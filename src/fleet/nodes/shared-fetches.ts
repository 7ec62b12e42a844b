/**
 * Fetches a cold blob once for the fleet: one node asks upstream, and the others follow it, from the byte that they are at,
 * while it still comes.
 *
 * Whoever loses the node that it follows looks again who fetches, and goes on there, or takes over and goes on from
 * upstream. At worst each node fetches for itself: nobody waits for a fleet that does not answer.
 */
import type { Readable } from 'node:stream';
import { LRUCache } from 'lru-cache';
import type { Clock } from '../../clock.ts';
import type { Digest } from '../../oci/digest.ts';
import type { FetchedBlob } from '../../upstream/upstream.ts';
import { streamOf } from '../engines/whole-body.ts';
import type { Leases } from './leases.ts';
import type { Peers } from './peers.ts';
import { fastEnough } from './slow-holder.ts';

export interface SharedFetchesContext {
  leases: Leases;
  peers: Peers;
  upstreamKeyOf: (upstream: string) => Promise<string | undefined>;
  clock: Clock;
}

/** The holder of a lease has no byte to give yet: it waits for upstream. */
const WAITS_MOST = 20;
/** It has not got the blob: it takes over from another node just now, or its disk is full. */
const ABSENT_MOST = 4;
const WAIT_MS = 250;
/** A node whose bytes were wrong, or came too slowly, is not followed for this long. */
const REMEMBERED_MS = 60_000;
const REMEMBERED = 1_000;

export class SharedFetches {
  readonly #context: SharedFetchesContext;
  /** Ids of nodes whose bytes were wrong, or that passed them on too slowly, and since when. */
  readonly #distrusted = new LRUCache<string, number>({ max: REMEMBERED });
  /** Blobs that came too slowly from the node that fetches them, and since when. */
  readonly #slow = new LRUCache<string, number>({ max: REMEMBERED });

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
    const { leases, peers, upstreamKeyOf, clock } = this.#context;
    const key = await upstreamKeyOf(upstream);
    if (key === undefined) return fetch();
    // Of those who find the node slow that fetches, one fetches again, and the others follow that one.
    const what = this.#isRecent(this.#slow, `${key} ${digest}`) ? `${key}:again` : key;
    let instead: string | undefined;
    const left = { waiting: WAITS_MOST, absent: ABSENT_MOST };
    for (;;) {
      const claim = await leases.claim(what, digest, instead);
      if (claim.kind === 'unknown') return fetch();
      if (claim.kind === 'mine') return this.#fetch(what, digest, fetch);
      const isTrusted = (id: string) => !this.#isRecent(this.#distrusted, id);
      if (!isTrusted(claim.member.id)) return fetch();
      const answer = await peers.open(claim.member, key, digest, range, signal, isTrusted);
      if (answer.kind === 'bytes') {
        const { size, passed } = answer;
        // Any of those that they came by may have made them wrong.
        const rejected = () => passed.forEach((id) => void this.#distrusted.set(id, clock.now()));
        // A node that only passes on is left out. It may be slow because the one that fetches is: that is found out there.
        const [last, before] = passed.toReversed();
        const onSlow = () =>
          last === undefined || before === undefined
            ? this.#slow.set(`${key} ${digest}`, clock.now())
            : this.#distrusted.set(last, clock.now());
        const body = streamOf(fastEnough(answer.body, clock, onSlow), answer.body);
        return {
          start: range.from ?? 0,
          ranged: true,
          size,
          body,
          source: { name: 'node', rejected },
        };
      }
      instead = answer.kind === 'dead' ? claim.holder : undefined;
      if (answer.kind === 'dead') continue;
      left[answer.kind] -= 1;
      if (left[answer.kind] === 0) return fetch();
      await clock.sleep(WAIT_MS, signal);
    }
  }

  #isRecent(moments: LRUCache<string, number>, name: string): boolean {
    const since = moments.get(name);
    return since !== undefined && Math.abs(this.#context.clock.now() - since) < REMEMBERED_MS;
  }

  async #fetch(what: string, digest: Digest, fetch: () => Promise<FetchedBlob>): Promise<FetchedBlob> {
    const { leases } = this.#context;
    const over = leases.use(what, digest);
    try {
      const blob = await fetch();
      onClose(blob.body, (isWhole) => {
        over();
        // Somebody else may be able to reach upstream.
        if (!isWhole) leases.release(what, digest);
      });
      return blob;
    } catch (error) {
      over();
      leases.release(what, digest);
      throw error;
    }
  }
}

function onClose(body: Readable, step: (isWhole: boolean) => void): void {
  body.once('close', () => step(body.readableEnded && body.errored === null));
}
