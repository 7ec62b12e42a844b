/** The other nodes of a fleet: who is there, who fetches what, and how their bytes come here. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { ContentReader } from '../../cache/store/content-store.ts';
import type { Digest } from '../../oci/digest.ts';
import type { Logger } from '../../telemetry/log.ts';
import type { Coordinator } from '../coordinator/coordinator.ts';
import { Engine, type EngineContext } from '../engines/engine.ts';
import { EngineError } from '../engines/errors.ts';
import type { ToldJournal } from '../journal/journal.ts';
import type { Removals } from '../journal/removals.ts';
import type { FleetSecret } from '../records/fleet-secret.ts';
import type { MemberState } from '../records/signed-record.ts';
import { CallBacks } from './call-backs.ts';
import { Leases } from './leases.ts';
import { type Member, type MemberCondition, Members } from './members.ts';
import { answerPeers } from './peer-route.ts';
import { PeerSignatures } from './peer-signatures.ts';
import { Peers, type PeersContext } from './peers.ts';
import { SharedFetches } from './shared-fetches.ts';
import { SharedNotes } from './shared-notes.ts';

export interface NodesContext extends EngineContext {
  coordinator: Coordinator;
  own: Member;
  secret: FleetSecret;
  /** Connects to other nodes. */
  connect: PeersContext['connect'];
  removals: Removals;
  upstreamKeyOf: (upstream: string) => Promise<string | undefined>;
}

export interface NodesCondition {
  coordinator: { up: boolean; trouble: string | null };
  members: MemberCondition[];
}

const BEAT_MS = 5_000;
const ADVICE_MS = 250;
/** A node says of no more blobs that it fetches them: what it says stays small. */
const FETCHES_TOLD = 10;
const COMMAND_MS = 250;
const JOURNAL_LASTS_MS = 30 * 24 * 3_600_000;

export class Nodes {
  readonly leases: Leases;
  readonly fetches: SharedFetches;
  readonly notes: SharedNotes;
  readonly journal: ToldJournal;
  readonly #coordinator: Coordinator;
  readonly #engine: Engine;
  readonly #members: Members;
  readonly #callBacks: CallBacks;
  readonly #timer: Disposable;
  readonly #peers: Peers;
  readonly #signatures: PeerSignatures;
  readonly #logger: Logger;
  #isAdvised = false;
  #isWaiting: (digest: Digest) => boolean = () => false;
  #mayJoin: () => Promise<boolean> = async () => true;

  constructor(context: NodesContext) {
    this.#coordinator = context.coordinator;
    this.#logger = context.logger;
    this.#engine = new Engine('coordinator', context);
    const shared = { ...context, engine: this.#engine };
    const members = new Members({ ...shared, state: () => this.#state() });
    this.#members = members;
    this.#signatures = new PeerSignatures(context.secret, () => members.now());
    this.#peers = new Peers({ ...shared, members, signatures: this.#signatures });
    this.leases = new Leases({ ...shared, members, isWaiting: (digest) => this.#isWaiting(digest) });
    this.notes = new SharedNotes({ ...shared, leases: this.leases });
    const { journal } = context.coordinator;
    const engine = this.#engine;
    this.journal = {
      append: (text) => engine.ask('tell', COMMAND_MS, () => journal.append(text, JOURNAL_LASTS_MS)),
      read: (after) => engine.ask('poll', COMMAND_MS, () => journal.read(after)),
      now: () => members.now(),
    };
    this.fetches = new SharedFetches({ ...shared, leases: this.leases, peers: this.#peers });
    this.#callBacks = new CallBacks({ ...shared, members, peers: this.#peers });
    this.#timer = context.clock.every(BEAT_MS, () => void this.#beat());
  }

  /** Never rejects. */
  async condition(): Promise<NodesCondition> {
    const members = await this.#members.conditions();
    const { trouble = null } = this.#engine;
    return { coordinator: { up: trouble === null, trouble }, members };
  }

  /**
   * @param isWaiting whether a digest waits to be uploaded: its lease lasts as long
   * @param mayJoin whether this node may count as a member now
   */
  async start(isWaiting: (digest: Digest) => boolean, mayJoin: () => Promise<boolean>): Promise<void> {
    this.#isWaiting = isWaiting;
    this.#mayJoin = mayJoin;
    if (await mayJoin()) await this.#members.beat();
    void this.#callBacks.look();
    void this.#adviseOnce();
  }

  route(
    openHere: (upstream: string, digest: Digest) => Promise<ContentReader | undefined>,
  ): (request: IncomingMessage, response: ServerResponse) => Promise<void> {
    return answerPeers({ ownId: this.#members.own.id, signatures: this.#signatures, openHere });
  }

  async close(): Promise<void> {
    this.#timer[Symbol.dispose]();
    await this.leases.close();
    await this.#peers.close();
    await this.#coordinator.close();
  }

  async #beat(): Promise<void> {
    if (await this.#mayJoin()) await this.#members.beat();
    await Promise.all([this.#callBacks.look(), this.#adviseOnce()]);
  }

  /** Tells an operator how the coordinator should be set up, once it answers. */
  async #adviseOnce(): Promise<void> {
    if (this.#isAdvised || this.#members.all.length === 0) return;
    this.#isAdvised = true;
    try {
      const advice = await this.#engine.ask('info', ADVICE_MS, () => this.#coordinator.advice());
      for (const what of advice) this.#logger.warn({ what }, 'the coordinator should be set up otherwise');
    } catch (error) {
      if (!(error instanceof EngineError)) throw error; // it need not say
    }
  }

  #state(): MemberState {
    const { fetching } = this.leases;
    const { last } = this.#callBacks;
    return {
      ...{ fetching: fetching.slice(0, FETCHES_TOLD), fetches: fetching.length },
      ...(last === undefined ? {} : { called: last }),
    };
  }
}
