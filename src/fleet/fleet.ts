/** A node's part in a fleet: what it finds with the others, and what it brings them. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Catalog } from '../cache/catalog/catalog.ts';
import type { ContentCache } from '../cache/catalog/content-cache.ts';
import type { IndexStore, RepositoryKey } from '../cache/index/index-store.ts';
import type { ContentReader } from '../cache/store/content-store.ts';
import type { Digest } from '../oci/digest.ts';
import type { Repository } from '../oci/reference.ts';
import type { SealableUpstream } from '../upstream/client/seal.ts';
import { BandwidthLimit } from '../upstream/limits/bandwidth.ts';
import { BandwidthShare } from '../upstream/limits/bandwidth-share.ts';
import type { SharedLimits } from '../upstream/limits/shared-limits.ts';
import type { Upstream } from '../upstream/upstream.ts';
import { Engine, type EngineContext } from './engines/engine.ts';
import { EngineError } from './engines/errors.ts';
import { joinFleet } from './fleet-file.ts';
import type { Nodes } from './nodes/nodes.ts';
import type { SharedFetches } from './nodes/shared-fetches.ts';
import type { SharedRepository } from './objects/names.ts';
import type { ObjectStore } from './objects/object-store.ts';
import type { FleetSecret } from './records/fleet-secret.ts';
import { ChosenNode } from './relay/chosen-node.ts';
import { RELAYS } from './relay/relay-messages.ts';
import { answerRelays, type OwnWay } from './relay/relay-route.ts';
import { RelayedUpstream } from './relay/relayed-upstream.ts';
import { Relays } from './relay/relays.ts';
import { Redirects } from './shared/redirects.ts';
import { SharedIndex } from './shared/shared-index.ts';
import { SharedStore } from './shared/shared-store.ts';
import { SharedUpstream, type SharedUpstreamContext } from './shared/shared-upstream.ts';
import { Upload } from './uploads/upload.ts';
import { Uploads } from './uploads/uploads.ts';

export interface FleetSettings {
  /** Bytes a second that uploads may take; undefined: no limit. */
  maxUpload: number | undefined;
  /** Blobs of as many bytes may be sent by the object store itself; undefined: none. */
  redirectAbove: number | undefined;
}

export interface FleetContext extends EngineContext {
  objects: ObjectStore;
  secret: FleetSecret;
  /** Undefined: there is no coordinator, so that each node fetches for itself. */
  nodes: Nodes | undefined;
  /** What all nodes with the same upstream call it. Undefined: it is not known who logs in there, so nothing is shared. */
  upstreamKeyOf: (upstream: string) => Promise<string | undefined>;
}

/** What a node does for others. Upstreams have their names here. */
export interface OwnSide {
  /** Of those that there are now. */
  upstreams: () => Iterable<string>;
  /** Undefined: there is none of that name any more. */
  wayTo: (upstream: string) => OwnWay | undefined;
  /**
   * Opens what this node has of a blob, or gets now from elsewhere than another node.
   *
   * @param begin fetches it if it is not here. Undefined: begins nothing
   */
  openHere: (
    upstream: string,
    digest: Digest,
    begin: { upstream: Upstream; repository: Repository } | undefined,
  ) => Promise<ContentReader | undefined>;
}

export interface FleetCondition {
  objects: {
    up: boolean;
    /** Why the object store is not used now; null while it is. */
    trouble: string | null;
    /** Objects that wait to be uploaded. */
    waiting: number;
  };
  /** Absent: there is no coordinator. */
  coordinator?: { up: boolean; trouble: string | null };
  /** The nodes that were there at the last look. */
  members?: { id: string; address: string; version: string; isOwn: boolean }[];
}

const JOIN_MS = 5_000;
const JOIN_AGAIN_MS = 60_000;

export class Fleet {
  readonly #context: FleetContext;
  readonly #settings: FleetSettings;
  readonly #engine: Engine;
  readonly #store: SharedStore;
  /** Undefined: there is no coordinator, so that no node asks another. */
  readonly #others: { fetches: SharedFetches; chosen: ChosenNode; relays: Relays } | undefined;
  #index: IndexStore | undefined;
  #uploads: Uploads | undefined;
  #redirects: Redirects | undefined;
  #rejoin: Disposable | undefined;

  constructor(settings: FleetSettings, context: FleetContext) {
    this.#settings = settings;
    this.#context = context;
    this.#engine = new Engine('objects', context);
    this.#engine.shut('it has not been looked at yet');
    this.#store = new SharedStore({
      ...context,
      engine: this.#engine,
      sharedRepository: this.#sharedRepository,
    });
    const { nodes } = context;
    this.#others = nodes && {
      fetches: nodes.fetches,
      chosen: new ChosenNode({ ...context, ...nodes.asking }),
      relays: new Relays({ ...context, ...nodes.asking }),
    };
  }

  /** For operators. */
  get condition(): FleetCondition {
    const { trouble = null } = this.#engine;
    const waiting = this.#uploads?.waiting ?? 0;
    return { objects: { up: trouble === null, trouble, waiting }, ...this.#context.nodes?.condition };
  }

  /** Lets this node's index know what the fleet knows. */
  shareIndex(own: IndexStore): IndexStore {
    this.#index = new SharedIndex({
      ...{ own, store: this.#store, clock: this.#context.clock },
      notes: this.#context.nodes?.notes,
      sharedRepository: this.#sharedRepository,
      onWritten: (changes) => this.#uploads?.written(changes),
    });
    return this.#index;
  }

  /** Lets content of an upstream come out of the object store, or from another node. */
  shareUpstream(upstream: SealableUpstream): Upstream {
    if (this.#others === undefined) return this.#shared(upstream, {});
    const { relays, ...by } = this.#others;
    const isSealed = () => upstream.client === undefined;
    return this.#shared(new RelayedUpstream(upstream, relays), { ...by, isSealed });
  }

  /** @param by which other nodes are asked; none: this node asks upstream itself */
  #shared(
    upstream: Upstream,
    by: Partial<Pick<SharedUpstreamContext, 'fetches' | 'chosen' | 'isSealed'>>,
  ): Upstream {
    return new SharedUpstream(upstream, {
      ...by,
      store: this.#store,
      permission: async (key, digest) => this.#index?.permission(key, digest),
      notes: this.#context.nodes?.notes,
      sharedRepository: this.#sharedRepository,
      onFound: (name) => this.#uploads?.found(name),
      onMissing: (digest) => this.#uploads?.missing(digest),
    });
  }

  /** Finds a stored blob in the object store; see {@link Redirects.urlOf}. */
  async urlOf(digest: Digest, size: number): Promise<string | undefined> {
    const { redirectAbove = Number.POSITIVE_INFINITY } = this.#settings;
    return size < redirectAbove ? undefined : this.#redirects?.urlOf(digest, size);
  }

  /** What nodes that count as one with this one were told of the limits of an upstream. Undefined: there is no coordinator. */
  sharedLimits(upstream: string): SharedLimits | undefined {
    return this.#context.nodes?.limitsOf(upstream);
  }

  /** Looks whether the object store is this fleet's, and begins to upload. Goes on alone while it is not. Never rejects. */
  async start(node: { index: IndexStore; catalog: Catalog; cache: ContentCache }): Promise<void> {
    const { clock, nodes } = this.#context;
    const { catalog } = node;
    const limit = new BandwidthLimit(clock);
    limit.setLimit(this.#settings.maxUpload);
    const share = new BandwidthShare([limit], clock, () => undefined);
    const upload = new Upload({
      ...{ ...this.#context, ...node, engine: this.#engine, leases: nodes?.leases },
      mediaTypeOf: async (digest) => (await catalog.get(digest))?.mediaType,
      pace: async (wanted, signal) => (share.isFree ? wanted : share.take(wanted, signal)),
      isWrong: (digest) => this.#store.isDistrusted(digest),
    });
    this.#uploads = new Uploads({
      ...{ ...this.#context, ...node, upload, sharedRepository: this.#sharedRepository },
      onUploaded: (digest) => nodes?.leases.releaseAll(digest),
    });
    const uploads = this.#uploads;
    if (this.#settings.redirectAbove !== undefined)
      this.#redirects = new Redirects({
        ...{ ...this.#context, engine: this.#engine, store: this.#store },
        noted: (name) => node.index.object(name),
        onRight: (name, etag) => uploads.found(name, etag),
        onLost: (digest, size) => uploads.missing(digest, size),
      });
    await nodes?.start((digest) => this.#uploads?.isWaiting(digest) ?? false);
    if (await this.#join()) return;
    this.#rejoin = clock.every(JOIN_AGAIN_MS, () => void this.#join());
  }

  /** Answers other nodes. Undefined: there is no coordinator, so that no node asks another. */
  peerRoute({
    upstreams,
    wayTo,
    openHere,
  }: OwnSide): ((request: IncomingMessage, response: ServerResponse) => Promise<void>) | undefined {
    const { nodes, secret, upstreamKeyOf } = this.#context;
    if (nodes === undefined) return undefined;
    const nameOf = async (key: string) => {
      for (const name of upstreams()) if ((await upstreamKeyOf(name)) === key) return name;
      return undefined;
    };
    const peers = nodes.route(async (key, digest, fetchFrom) => {
      const name = await nameOf(key);
      const way = name === undefined ? undefined : wayTo(name);
      if (name === undefined || way === undefined) return undefined;
      const begin = fetchFrom && { upstream: this.#shared(way.upstream, {}), repository: fetchFrom };
      return openHere(name, digest, begin);
    });
    const ownWay = async (key: string) => {
      const name = await nameOf(key);
      return name === undefined ? undefined : wayTo(name);
    };
    const relays = answerRelays({ ...nodes.asking, secret, ownWay });
    return (request, response) =>
      (request.url?.startsWith(RELAYS) === true ? relays : peers)(request, response);
  }

  /** Goes on uploading for at most `timeoutMs`. Idempotent. */
  async close(timeoutMs: number): Promise<void> {
    this.#rejoin?.[Symbol.dispose]();
    await this.#redirects?.close();
    await this.#uploads?.close(timeoutMs);
    await this.#others?.relays.close();
    await this.#context.nodes?.close();
    this.#context.objects.close();
  }

  readonly #sharedRepository = async ({
    upstream,
    repository,
  }: RepositoryKey): Promise<SharedRepository | undefined> => {
    const key = await this.#context.upstreamKeyOf(upstream);
    return key === undefined ? undefined : { upstream: key, repository };
  };

  /** @returns whether it is a member now */
  async #join(): Promise<boolean> {
    const { objects, secret, logger } = this.#context;
    try {
      const { id, ignoresConditions } = await this.#engine.check(JOIN_MS, (signal) =>
        joinFleet(objects, secret, signal),
      );
      logger.info({ fleet: id }, 'joined the fleet');
      if (ignoresConditions)
        logger.warn(
          { fleet: id },
          'the object store ignores If-None-Match, so that nodes may write an object twice',
        );
    } catch (error) {
      if (!(error instanceof EngineError)) throw error;
      logger.error({ err: error }, 'the object store of the fleet cannot be used: this node works alone');
      return false;
    }
    this.#rejoin?.[Symbol.dispose]();
    this.#uploads?.start();
    return true;
  }
}
