/** Reads blobs from other nodes of the fleet, while they still come in there. */
import { randomUUID } from 'node:crypto';
import { Readable } from 'node:stream';
import { Agent, request } from 'undici';
import type { Clock } from '../../clock.ts';
import type { Digest } from '../../oci/digest.ts';
import type { Repository } from '../../oci/reference.ts';
import { EngineError } from '../engines/errors.ts';
import { wholeBody } from '../engines/whole-body.ts';
import type { Member, Members } from './members.ts';
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
  | { kind: 'bytes'; size: number; body: Readable }
  /** It may live, and has no byte yet. */
  | { kind: 'waiting' }
  /** It lives, and has not got this digest, nor gets it from upstream. */
  | { kind: 'absent' }
  /** It cannot be reached, or is no node of this fleet. */
  | { kind: 'dead' };

export class Peers {
  readonly #context: PeersContext;
  readonly #agent = new Agent({ connect: { timeout: CONNECT_MS }, connections: CONNECTIONS, bodyTimeout: 0 });

  constructor(context: PeersContext) {
    this.#context = context;
  }

  /**
   * @param upstream as all nodes call it
   * @param range.fetchFrom see {@link PeerPath}
   * @returns how it answers. Never rejects
   */
  async open(
    { address }: Member,
    upstream: string,
    digest: Digest,
    { from = 0, to, fetchFrom }: { from?: number; to?: number; fetchFrom?: Repository },
    signal: AbortSignal | undefined,
  ): Promise<PeerAnswer> {
    const { members, signatures, clock } = this.#context;
    const path = peerPath(upstream, digest, fetchFrom);
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
      const length = Math.min(to ?? Number(size), Number(size)) - from;
      const body = Readable.from(wholeBody('the other node', reply.body, length, clock), {
        objectMode: false,
      });
      return { kind: 'bytes', size: Number(size), body };
    } catch {
      return { kind: deadline.signal.aborted ? 'waiting' : 'dead' };
    } finally {
      answered.abort();
    }
  }

  async close(): Promise<void> {
    await this.#agent.destroy();
  }
}
