/**
 * The nodes that follow a blob here. So that no node has to send a blob to a whole fleet, one that comes when enough follow is
 * sent on to one of them.
 *
 * `bench/simulation` shows what the limits are for: with ten followers a node and three nodes one behind the other, a
 * thousand nodes pull an image a hundred times as quickly as if one served all, and no node sends it more than ten times.
 */
import type { Member, Members } from './members.ts';
import type { PeerRequest } from './peer-signatures.ts';

/** Nodes that follow one blob here before others are sent on. */
export const FOLLOWERS = 10;
/** Nodes that bytes pass on their way from upstream to the node that asks. */
export const CHAIN_LONGEST = 3;

/** One reply that is being sent. */
export interface Follower {
  node: string;
  /** Position up to which it has been sent. */
  at: number;
}

export class Followers {
  readonly #members: Members;
  /** By the path of the blob. Who has come first is first. */
  readonly #followers = new Map<string, Set<Follower>>();

  constructor(members: Members) {
    this.#members = members;
  }

  /** Notes one more. @returns it, and what is to be called when it is gone; idempotent */
  add({ path, node, from }: PeerRequest): { follower: Follower; leave: () => void } {
    const follower = { node, at: from };
    const all = this.#followers.get(path) ?? new Set();
    this.#followers.set(path, all.add(follower));
    const leave = () => {
      all.delete(follower);
      if (all.size === 0 && this.#followers.get(path) === all) this.#followers.delete(path);
    };
    return { follower, leave };
  }

  /** Whether another node has sent this one here: it may then get what itself comes from that node. No circle comes of it. */
  isSentHere({ chain }: PeerRequest): boolean {
    return chain.length > 0 && !chain.includes(this.#members.own.id);
  }

  /**
   * Finds the follower that a node is sent on to: one that is at least as far along, each in turn.
   *
   * @returns undefined if the node is to be served here: there is room, or nobody to send it to. Its request names this node
   *   if it was sent on already and came back
   */
  next({ path, node, from, chain }: PeerRequest): Member | undefined {
    const all = this.#followers.get(path) ?? new Set();
    const ids = new Set([...all].map((follower) => follower.node));
    if (ids.size < FOLLOWERS || ids.has(node)) return undefined;
    if (chain.length >= CHAIN_LONGEST - 1 || chain.includes(this.#members.own.id)) return undefined;
    for (const follower of all) {
      const member = this.#members.all.find(({ id }) => id === follower.node);
      if (member === undefined || follower.at < from || chain.includes(member.id)) continue;
      all.delete(follower);
      all.add(follower); // the next one goes to another
      return member;
    }
    return undefined;
  }
}
