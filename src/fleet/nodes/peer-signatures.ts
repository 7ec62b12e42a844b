/**
 * Signs what nodes say to each other: a request over method, path, range, node, time and nonce, and its answer over the
 * nonce. Whoever does not know the secret gets no byte, and can pretend to be no node.
 */
import { LRUCache } from 'lru-cache';
import type { FleetSecret } from '../records/fleet-secret.ts';

/** Nodes correct their time by the coordinator's, so that they differ by less than this. */
const OLDEST_MS = 60_000;
const NONCES = 100_000;

export interface PeerRequest {
  path: string;
  /** Position of the first byte, and of the end, exclusive. */
  from: number;
  to: number | undefined;
  /** The id of the node that asks. */
  node: string;
  /** Milliseconds since the epoch, by the coordinator's clock. */
  time: number;
  nonce: string;
  /** Ids of the nodes that have sent the asking node on, in turn. */
  chain: readonly string[];
}

export class PeerSignatures {
  readonly #secret: FleetSecret;
  readonly #now: () => number;
  readonly #seen = new LRUCache<string, true>({ max: NONCES });

  /** @param now the coordinator's time */
  constructor(secret: FleetSecret, now: () => number) {
    this.#secret = secret;
    this.#now = now;
  }

  signRequest(request: PeerRequest): Promise<string> {
    return this.#secret.sign('peer request', textOf(request));
  }

  /** Each request counts once, so that one that was overheard cannot be sent again. */
  async isFromMember(request: PeerRequest, signature: string): Promise<boolean> {
    if (!(await this.#secret.isSigned('peer request', textOf(request), signature))) return false;
    if (Math.abs(this.#now() - request.time) > OLDEST_MS || this.#seen.has(request.nonce)) return false;
    this.#seen.set(request.nonce, true);
    return true;
  }

  /** @param answer the size of the blob, or where else to ask */
  signAnswer(nonce: string, answer: string): Promise<string> {
    return this.#secret.sign('peer answer', `${nonce} ${answer}`);
  }

  isAnswer(nonce: string, answer: string, signature: string): Promise<boolean> {
    return this.#secret.isSigned('peer answer', `${nonce} ${answer}`, signature);
  }
}

function textOf({ path, from, to, node, time, nonce, chain }: PeerRequest): string {
  return JSON.stringify(['GET', path, from, to ?? null, node, time, nonce, ...chain]);
}
