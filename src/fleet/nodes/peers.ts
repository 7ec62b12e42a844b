/** Reads blobs from other nodes of the fleet, while they still come in there. */
import { randomUUID } from 'node:crypto';
import type { Readable } from 'node:stream';
import { Agent, request } from 'undici';
import type { Clock } from '../../clock.ts';
import type { Digest } from '../../oci/digest.ts';
import { EngineError } from '../engines/errors.ts';
import { streamOf, wholeBody } from '../engines/whole-body.ts';
import { CHAIN_LONGEST } from './followers.ts';
import { type Member, type Members, memberRecord } from './members.ts';
import { HEADERS, headersOf, peerPath } from './peer-requests.ts';
import type { PeerSignatures } from './peer-signatures.ts';

export interface PeersContext {
  members: Members;
  signatures: PeerSignatures;
  clock: Clock;
}

const CONNECT_MS = 500;
/** Until an answer begins. The other node may still wait for its upstream. */
const ANSWER_MS = 1_500;
const CONNECTIONS = 64;

/** How a node answers. */
export type PeerAnswer =
  /** @property passed ids of the nodes that the bytes come from, by way of each other */
  | { kind: 'bytes'; size: number; body: Readable; passed: readonly string[] }
  /** It may live, and has no byte yet. */
  | { kind: 'waiting' }
  /** It lives, and has not got this digest, nor gets it from upstream. */
  | { kind: 'absent' }
  /** It cannot be reached, or is no node of this fleet. */
  | { kind: 'dead' };

/** Another node has what is asked for, and more room. */
interface SentOn {
  kind: 'next';
  member: Member;
}

const NOT_THERE: PeerAnswer = { kind: 'absent' };

export class Peers {
  readonly #context: PeersContext;
  readonly #agent = new Agent({ connect: { timeout: CONNECT_MS }, connections: CONNECTIONS, bodyTimeout: 0 });

  constructor(context: PeersContext) {
    this.#context = context;
  }

  /**
   * Asks the node that has a blob, and then those that it is sent on to. If that leads nowhere, the first one serves it.
   *
   * @param upstream as all nodes call it
   * @param isTrusted whether bytes of the node with this id are wanted
   * @returns what the last one has answered. Never rejects
   */
  async open(
    holder: Member,
    upstream: string,
    digest: Digest,
    range: { from?: number; to?: number },
    signal: AbortSignal | undefined,
    isTrusted: (id: string) => boolean = () => true,
  ): Promise<PeerAnswer> {
    const path = peerPath(upstream, digest);
    const chain: string[] = [];
    for (let member = holder; ; ) {
      const isUsable = member === holder || isTrusted(member.id);
      const answer = isUsable ? await this.#ask(member, path, range, chain, signal) : NOT_THERE;
      const isAstray = member !== holder && (answer.kind === 'absent' || answer.kind === 'dead');
      if (answer.kind !== 'next' && !isAstray) return answer;
      chain.push(member.id);
      // Asked once more, the holder finds itself in the chain, and sends nobody on.
      if (chain.length > CHAIN_LONGEST) return { kind: 'absent' };
      member = answer.kind === 'next' ? answer.member : holder;
    }
  }

  async close(): Promise<void> {
    await this.#agent.destroy();
  }

  async #ask(
    { id, address }: Member,
    path: string,
    { from = 0, to }: { from?: number; to?: number },
    chain: readonly string[],
    signal: AbortSignal | undefined,
  ): Promise<PeerAnswer | SentOn> {
    const { members, signatures, clock } = this.#context;
    const nonce = randomUUID();
    const time = Math.round(members.now());
    const asked = { path, from, to, node: members.own.id, time, nonce, chain };
    const deadline = new AbortController();
    const answered = new AbortController();
    void clock.sleep(ANSWER_MS, answered.signal).then(
      () => deadline.abort(new EngineError('timeout', 'the node did not answer in time')),
      () => undefined, // it answered
    );
    try {
      const reply = await request(new URL(path, address), {
        dispatcher: this.#agent,
        headers: headersOf(asked, await signatures.signRequest(asked)),
        signal: signal === undefined ? deadline.signal : AbortSignal.any([deadline.signal, signal]),
      });
      const { [HEADERS.size]: size, [HEADERS.next]: next, [HEADERS.signature]: signature } = reply.headers;
      if (reply.statusCode !== 200 && reply.statusCode !== 307) {
        await reply.body.dump();
        return { kind: 'absent' };
      }
      const isSentOn = reply.statusCode === 307;
      if (!(await signatures.isAnswer(nonce, String(isSentOn ? next : size), String(signature)))) {
        reply.body.on('error', () => undefined).destroy();
        return { kind: 'dead' };
      }
      if (isSentOn) {
        await reply.body.dump();
        return { kind: 'next', member: memberRecord.parse(JSON.parse(String(next))) };
      }
      const length = Math.min(to ?? Number(size), Number(size)) - from;
      const body = streamOf(wholeBody('the other node', reply.body, length, clock), reply.body);
      return { kind: 'bytes', size: Number(size), body, passed: chain.includes(id) ? [id] : [...chain, id] };
    } catch {
      return { kind: deadline.signal.aborted ? 'waiting' : 'dead' };
    } finally {
      answered.abort();
    }
  }
}
