/** Asks other nodes to ask an upstream that cannot be reached from here. */
import { randomUUID } from 'node:crypto';
import type { Readable } from 'node:stream';
import { LRUCache } from 'lru-cache';
import { Agent, request } from 'undici';
import type { Clock } from '../../clock.ts';
import { type Digest, digestAlgorithm, digestOf } from '../../oci/digest.ts';
import type { Metrics } from '../../telemetry/metrics.ts';
import type { Member, Members } from '../nodes/members.ts';
import { HEADERS, headersOf } from '../nodes/peer-requests.ts';
import type { PeerSignatures } from '../nodes/peer-signatures.ts';
import type { FleetSecret } from '../records/fleet-secret.ts';
import {
  ANSWER_HEADER,
  ANSWER_SIGNED_AS,
  decode,
  RELAYED_MAX_BYTES,
  type RelayAnswer,
  type RelayRequest,
  relayAnswer,
  relayPath,
} from './relay-messages.ts';
import { inTurn } from './rendezvous.ts';

export interface RelaysContext {
  members: Pick<Members, 'own' | 'all' | 'now'>;
  signatures: PeerSignatures;
  secret: FleetSecret;
  upstreamKeyOf: (upstream: string) => Promise<string | undefined>;
  clock: Clock;
  metrics: Metrics;
}

/** What upstream has answered another node. */
export type Relayed =
  | Exclude<RelayAnswer, { kind: 'none' | 'blob' | 'whole' }>
  | (Extract<RelayAnswer, { kind: 'whole' }> & { bytes: Buffer })
  | (Extract<RelayAnswer, { kind: 'blob' }> & {
      body: Readable;
      /** To be called if the bytes were wrong. */
      rejected: () => void;
    });

const CONNECT_MS = 500;
/** Until an answer begins. The other node may find out only now that it is cut off, too. */
const ANSWER_MS = 5_000;
const NEXT_BYTE_MS = 10_000;
const CONNECTIONS = 64;
/** How many nodes are asked for one request. */
const ASKED_MOST = 3;
/** A node that could not help is not asked again for this long. */
const REMEMBERED_MS = 30_000;
const REMEMBERED = 1_000;

export class Relays {
  readonly #context: RelaysContext;
  readonly #agent = new Agent({
    ...{ connect: { timeout: CONNECT_MS }, connections: CONNECTIONS },
    bodyTimeout: NEXT_BYTE_MS,
  });
  /** Nodes that could not reach an upstream, or sent wrong bytes of it, and since when. */
  readonly #unable = new LRUCache<string, number>({ max: REMEMBERED });

  constructor(context: RelaysContext) {
    this.#context = context;
  }

  /**
   * @param upstream its name here
   * @returns undefined if no node can reach it. Never rejects
   */
  async ask(
    upstream: string,
    asked: RelayRequest,
    signal: AbortSignal | undefined,
  ): Promise<Relayed | undefined> {
    const { members, upstreamKeyOf, metrics, clock } = this.#context;
    const key = await upstreamKeyOf(upstream);
    if (key === undefined) return undefined;
    const isAble = ({ id }: Member) => {
      const since = this.#unable.get(`${id} ${key}`);
      return since === undefined || Math.abs(clock.now() - since) >= REMEMBERED_MS;
    };
    const others = members.all.filter((member) => member.id !== members.own.id && isAble(member));
    for (const member of inTurn(others, `${key} ${asked.repository}`).slice(0, ASKED_MOST)) {
      const relayed = await this.#askOne(member, key, asked, signal);
      if (relayed !== undefined) {
        metrics.fleetRelays.inc({ upstream, outcome: 'brought' });
        return relayed;
      }
      if (signal?.aborted === true) return undefined;
      this.#unable.set(`${member.id} ${key}`, clock.now());
    }
    metrics.fleetRelays.inc({ upstream, outcome: 'failed' });
    return undefined;
  }

  async close(): Promise<void> {
    await this.#agent.destroy();
  }

  async #askOne(
    { id, address }: Member,
    key: string,
    asked: RelayRequest,
    signal: AbortSignal | undefined,
  ): Promise<Relayed | undefined> {
    const { members, signatures, secret, clock } = this.#context;
    const path = relayPath(key, asked);
    const nonce = randomUUID();
    const { own } = members;
    const signed = { path, from: 0, to: undefined, node: own.id, time: Math.round(members.now()), nonce };
    const deadline = new AbortController();
    const answered = new AbortController();
    void clock.sleep(ANSWER_MS, answered.signal).then(
      () => deadline.abort(new Error('the node did not answer in time')),
      () => undefined, // it answered
    );
    try {
      const { headers, body } = await request(new URL(path, address), {
        dispatcher: this.#agent,
        headers: headersOf(signed, await signatures.signRequest(signed)),
        signal: signal === undefined ? deadline.signal : AbortSignal.any([deadline.signal, signal]),
      });
      answered.abort();
      const encoded = String(headers[ANSWER_HEADER] ?? '');
      const signature = String(headers[HEADERS.signature] ?? '');
      const isSigned = await secret.isSigned(ANSWER_SIGNED_AS, `${nonce} ${encoded}`, signature);
      const answer = isSigned ? decode(relayAnswer, encoded) : undefined;
      if (answer?.kind === 'blob')
        return { ...answer, body, rejected: () => this.#unable.set(`${id} ${key}`, clock.now()) };
      if (answer?.kind === 'whole') {
        const bytes = await readWhole(body, answer.digest);
        return bytes && { ...answer, bytes };
      }
      body.on('error', () => undefined).destroy();
      return answer === undefined || answer.kind === 'none' ? undefined : answer;
    } catch {
      return undefined; // it cannot be reached, or is no node of this fleet
    } finally {
      answered.abort();
    }
  }
}

/** @returns undefined if it is not what `digest` says. Ends early when it is too long */
async function readWhole(body: AsyncIterable<Buffer>, digest: Digest): Promise<Buffer | undefined> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of body) {
    length += chunk.length;
    if (length > RELAYED_MAX_BYTES) return undefined;
    chunks.push(chunk);
  }
  const bytes = Buffer.concat(chunks, length);
  return digestOf(bytes, digestAlgorithm(digest)) === digest ? bytes : undefined;
}
