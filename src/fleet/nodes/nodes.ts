/** The other nodes of a fleet: who is there, who fetches what, and how their bytes come here. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Digest } from '../../oci/digest.ts';
import type { Coordinator } from '../coordinator/coordinator.ts';
import { Engine, type EngineContext } from '../engines/engine.ts';
import type { FleetSecret } from '../records/fleet-secret.ts';
import { Followers } from './followers.ts';
import { Leases } from './leases.ts';
import { type Member, Members } from './members.ts';
import { answerPeers, type OpenHere } from './peer-route.ts';
import { PeerSignatures } from './peer-signatures.ts';
import { Peers } from './peers.ts';
import { SharedFetches } from './shared-fetches.ts';
import { SharedNotes } from './shared-notes.ts';

export interface NodesContext extends EngineContext {
  coordinator: Coordinator;
  own: Member;
  secret: FleetSecret;
  upstreamKeyOf: (upstream: string) => Promise<string | undefined>;
}

export class Nodes {
  readonly leases: Leases;
  readonly fetches: SharedFetches;
  readonly notes: SharedNotes;
  readonly #coordinator: Coordinator;
  readonly #engine: Engine;
  readonly #members: Members;
  readonly #peers: Peers;
  readonly #signatures: PeerSignatures;
  #isWaiting: (digest: Digest) => boolean = () => false;

  constructor(context: NodesContext) {
    this.#coordinator = context.coordinator;
    this.#engine = new Engine('coordinator', context);
    const shared = { ...context, engine: this.#engine };
    const members = new Members(shared);
    this.#members = members;
    this.#signatures = new PeerSignatures(context.secret, () => members.now());
    this.#peers = new Peers({ ...shared, members, signatures: this.#signatures });
    this.leases = new Leases({ ...shared, members, isWaiting: (digest) => this.#isWaiting(digest) });
    this.notes = new SharedNotes({ ...shared, leases: this.leases });
    this.fetches = new SharedFetches({ ...shared, leases: this.leases, peers: this.#peers });
  }

  get condition() {
    const { trouble = null } = this.#engine;
    const { id: ownId } = this.#members.own;
    const members = this.#members.all.map((member) => ({ ...member, isOwn: member.id === ownId }));
    return { coordinator: { up: trouble === null, trouble }, members };
  }

  /** @param isWaiting whether a digest waits to be uploaded: its lease lasts as long */
  async start(isWaiting: (digest: Digest) => boolean): Promise<void> {
    this.#isWaiting = isWaiting;
    await this.#members.beat();
  }

  route(openHere: OpenHere): (request: IncomingMessage, response: ServerResponse) => Promise<void> {
    const followers = new Followers(this.#members);
    return answerPeers({ signatures: this.#signatures, followers, openHere });
  }

  async close(): Promise<void> {
    this.#members[Symbol.dispose]();
    await this.leases.close();
    await this.#peers.close();
    await this.#coordinator.close();
  }
}
