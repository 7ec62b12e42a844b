/** Reads blobs from other nodes of the fleet, while they still come in there. */
import { randomUUID } from 'node:crypto';
import { Readable } from 'node:stream';
import { Agent, request } from 'undici';
import type { Clock } from '../../clock.ts';
import type { Digest } from '../../oci/digest.ts';
import { EngineError } from '../engines/errors.ts';
import { wholeBody } from '../engines/whole-body.ts';
import type { Member, Members } from './members.ts';
import { HEADERS, headersOf, peerPath, tagPath } from './peer-requests.ts';
import type { PeerSignatures } from './peer-signatures.ts';

export interface PeersContext {
  members: Members;
  signatures: PeerSignatures;
  clock: Clock;
}

const CONNECT_MS = 500;
/** Until an answer begins. A node that has none says so earlier. */
const ANSWER_MS = 1_500;
const CONNECTIONS = 64;

/** How a node answers. */
export type PeerAnswer =
  | { kind: 'bytes'; size: number; body: Readable }
  /** It is at it: it waits for upstream, and has said so after a second. */
  | { kind: 'waiting' }
  /** It lives, and has not got this digest, nor gets it from upstream. */
  | { kind: 'absent' }
  /** It cannot be reached, or is no node of this fleet. */
  | { kind: 'dead' };

export class Peers {
  readonly #context: PeersContext;
  readonly #agent = new Agent({
    connect: { timeout: CONNECT_MS },
    connections: CONNECTIONS,
    bodyTimeout: 0,
    pipelining: 0,
  });

  constructor(context: PeersContext) {
    this.#context = context;
  }

  /** @param upstream as all nodes call it. Never rejects */
  open(
    member: Member,
    upstream: string,
    digest: Digest,
    range: { from?: number; to?: number },
    signal: AbortSignal | undefined,
  ): Promise<PeerAnswer> {
    return this.#ask(member, peerPath(upstream, digest), range, signal);
  }

  /**
   * Waits until another node has heard from upstream what a tag means, for a second at most. Never rejects.
   *
   * @param name of the tag, hashed @returns false: it does not ask upstream, or cannot be reached
   */
  async waitForTag(member: Member, name: Digest): Promise<boolean> {
    return (await this.#ask(member, tagPath(name), {}, undefined)).kind === 'waiting';
  }

  async #ask(
    { address }: Member,
    path: string,
    { from = 0, to }: { from?: number; to?: number },
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
        return { kind: reply.statusCode === 202 ? 'waiting' : 'absent' };
      }
      if (!(await signatures.isAnswer(nonce, Number(size), String(signature)))) {
        reply.body.on('error', () => undefined).destroy();
        return { kind: 'dead' };
      }
      const length = Math.min(to ?? Number(size), Number(size)) - from;
      const body = Readable.from(wholeBody('the other node', reply.body, length, clock), {
        objectMode: false,
      });
      return { kind: 'bytes', size: Number(size), body };
    } catch {
      return { kind: 'dead' };
    } finally {
      answered.abort();
    }
  }

  async close(): Promise<void> {
    await this.#agent.destroy();
  }
}
