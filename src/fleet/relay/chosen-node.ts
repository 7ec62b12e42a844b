/**
 * Fetches a cold blob while the coordinator does not answer: all nodes ask the same one for it, so that it is mostly still
 * fetched once. Those that were there at the last look count.
 *
 * The chosen node asks upstream itself and never a third, so that there is no circle.
 */
import { LRUCache } from 'lru-cache';
import type { Clock } from '../../clock.ts';
import type { Digest } from '../../oci/digest.ts';
import type { Repository } from '../../oci/reference.ts';
import type { FetchedBlob } from '../../upstream/upstream.ts';
import type { Member, Members } from '../nodes/members.ts';
import type { Peers } from '../nodes/peers.ts';
import { inTurn } from './rendezvous.ts';

export interface ChosenNodeContext {
  members: Pick<Members, 'own' | 'all'>;
  peers: Pick<Peers, 'open'>;
  upstreamKeyOf: (upstream: string) => Promise<string | undefined>;
  clock: Clock;
}

export interface WantedBlob {
  /** Its name here. */
  upstream: string;
  repository: Repository;
  digest: Digest;
  range: { from?: number; to?: number };
  signal: AbortSignal | undefined;
}

/** How many nodes are tried. Those that are dead cost time. */
const TRIED_MOST = 2;
const WAITS_MOST = 4;
const WAIT_MS = 250;
/** A node whose bytes were wrong is not asked for this long. */
const DISTRUST_MS = 60_000;
const DISTRUSTED = 1_000;

export class ChosenNode {
  readonly #context: ChosenNodeContext;
  /** Nodes whose bytes were wrong, and since when. */
  readonly #distrusted = new LRUCache<string, number>({ max: DISTRUSTED });

  constructor(context: ChosenNodeContext) {
    this.#context = context;
  }

  /** @param fetch asks upstream from here @throws what `fetch` throws */
  async open(wanted: WantedBlob, fetch: () => Promise<FetchedBlob>): Promise<FetchedBlob> {
    const { members, upstreamKeyOf, clock } = this.#context;
    const { upstream, digest } = wanted;
    const key = await upstreamKeyOf(upstream);
    if (key === undefined) return fetch();
    for (const member of inTurn(members.all, `${key} ${digest}`).slice(0, TRIED_MOST)) {
      const since = this.#distrusted.get(member.id);
      const isDistrusted = since !== undefined && Math.abs(clock.now() - since) < DISTRUST_MS;
      if (member.id === members.own.id || isDistrusted) break;
      const found = await this.#ask(member, key, wanted);
      if (found === 'dead') continue; // the next one is chosen by all that find this one dead
      if (found === undefined) break;
      return found;
    }
    return fetch();
  }

  /** @returns undefined if it lives and does not get it */
  async #ask(
    member: Member,
    key: string,
    { repository, digest, range, signal }: WantedBlob,
  ): Promise<FetchedBlob | 'dead' | undefined> {
    const { peers, clock } = this.#context;
    for (let waits = 0; waits < WAITS_MOST; waits += 1) {
      const answer = await peers.open(member, key, digest, { ...range, fetchFrom: repository }, signal);
      if (answer.kind === 'bytes') {
        const { size, body } = answer;
        const rejected = () => this.#distrusted.set(member.id, clock.now());
        return { start: range.from ?? 0, ranged: true, size, body, source: { name: 'node', rejected } };
      }
      if (answer.kind !== 'waiting') return answer.kind === 'dead' ? 'dead' : undefined;
      await clock.sleep(WAIT_MS, signal);
    }
    return undefined;
  }
}
