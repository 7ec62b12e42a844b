/** Reads blobs from other nodes of the fleet, while they still come in there. */
import { randomUUID } from 'node:crypto';
import { Readable } from 'node:stream';
import { Agent, type buildConnector, request } from 'undici';
import type { Clock } from '../../clock.ts';
import type { Digest } from '../../oci/digest.ts';
import { EngineError } from '../engines/errors.ts';
import { wholeBody } from '../engines/whole-body.ts';
import type { Member, Members } from './members.ts';
import { callPath, HEADERS, headersOf, peerPath } from './peer-requests.ts';
import type { PeerSignatures } from './peer-signatures.ts';

export interface PeersContext {
  members: Members;
  signatures: PeerSignatures;
  connect: buildConnector.connector;
  clock: Clock;
}

/** Until an answer begins. The other node may still wait for its upstream. */
const ANSWER_MS = 1_500;
const CONNECTIONS = 64;

/** Positions of the first byte, and of the end, exclusive. */
interface PeerRange {
  from?: number | undefined;
  to?: number | undefined;
}

/** How a node answers. */
export type PeerAnswer =
  | { kind: 'bytes'; size: number; body: Readable }
  /** It may live, and has no byte yet. */
  | { kind: 'waiting' }
  /** It lives, and has not got this digest, nor gets it from upstream. */
  | { kind: 'absent' }
  /** It cannot be reached, or is no node of this fleet. The code is that of the failed connection, such as ECONNREFUSED. */
  | { kind: 'dead'; code?: string };

export class Peers {
  readonly #context: PeersContext;
  readonly #agent: Agent;

  constructor(context: PeersContext) {
    this.#context = context;
    this.#agent = new Agent({ connect: context.connect, connections: CONNECTIONS, bodyTimeout: 0 });
  }

  /** @param upstream as all nodes call it. Never rejects */
  async open(
    { address }: Member,
    upstream: string,
    digest: Digest,
    { from = 0, to }: PeerRange,
    signal: AbortSignal | undefined,
  ): Promise<PeerAnswer> {
    const answer = await this.#ask(address, peerPath(upstream, digest), { from, to }, signal);
    if (answer.kind !== 'bytes') return { kind: answer.kind };
    const { size } = answer;
    const length = Math.min(to ?? size, size) - from;
    const bytes = wholeBody('the other node', answer.body, length, this.#context.clock);
    return { kind: 'bytes', size, body: Readable.from(bytes, { objectMode: false }) };
  }

  /** Calls a member at the address that it advertises. Never rejects. @returns why it cannot be reached, if it cannot */
  async call({ id, address }: Member): Promise<string | undefined> {
    const answer = await this.#ask(address, callPath(id), {}, undefined);
    switch (answer.kind) {
      case 'bytes':
        answer.body.on('error', () => undefined).resume(); // there is none
        return undefined;
      case 'waiting':
        return 'it does not answer in time';
      case 'absent':
        return 'what answers there is not this node, or does not know the secret of the fleet';
      case 'dead':
        return `no connection to a node of the fleet${answer.code === undefined ? '' : ` (${answer.code})`}`;
    }
  }

  /** Sends one signed request. */
  async #ask(
    address: string,
    path: string,
    { from = 0, to }: PeerRange,
    signal: AbortSignal | undefined,
  ): Promise<PeerAnswer> {
    const { members, signatures, clock } = this.#context;
    const nonce = randomUUID();
    const asked = { path, from, to, node: members.own.id, time: Math.round(members.now()), nonce };
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
      const { [HEADERS.size]: size, [HEADERS.signature]: signature } = reply.headers;
      if (reply.statusCode !== 200) {
        await reply.body.dump();
        return { kind: 'absent' };
      }
      if (!(await signatures.isAnswer(nonce, Number(size), String(signature)))) {
        reply.body.on('error', () => undefined).destroy();
        return { kind: 'dead' };
      }
      return { kind: 'bytes', size: Number(size), body: reply.body };
    } catch (error) {
      if (deadline.signal.aborted) return { kind: 'waiting' };
      return {
        kind: 'dead',
        ...(error instanceof Error && 'code' in error ? { code: String(error.code) } : {}),
      };
    } finally {
      answered.abort();
    }
  }

  async close(): Promise<void> {
    await this.#agent.destroy();
  }
}
