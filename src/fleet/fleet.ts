/** A node's part in a fleet: what it finds with the others, and what it brings them. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Catalog } from '../cache/catalog/catalog.ts';
import type { ContentCache } from '../cache/catalog/content-cache.ts';
import type { IndexStore, RepositoryKey, TagKey, TagRecord } from '../cache/index/index-store.ts';
import type { ContentReader } from '../cache/store/content-store.ts';
import type { Digest } from '../oci/digest.ts';
import type { Reference } from '../oci/reference.ts';
import { BandwidthLimit } from '../upstream/limits/bandwidth.ts';
import { BandwidthShare } from '../upstream/limits/bandwidth-share.ts';
import type { Upstream } from '../upstream/upstream.ts';
import { Engine, type EngineContext } from './engines/engine.ts';
import { EngineError } from './engines/errors.ts';
import { joinFleet } from './fleet-file.ts';
import type { RemoveHere } from './journal/applied-entries.ts';
import { FleetDecisions, type FleetRemovalReport } from './journal/fleet-decisions.ts';
import type { Removals } from './journal/removals.ts';
import type { Nodes, NodesCondition } from './nodes/nodes.ts';
import { warnIfVersioned } from './objects/bucket-advice.ts';
import type { SharedRepository } from './objects/names.ts';
import type { ObjectStore } from './objects/object-store.ts';
import type { FleetSecret } from './records/fleet-secret.ts';
import { Redirects } from './shared/redirects.ts';
import { SharedIndex } from './shared/shared-index.ts';
import { SharedStore } from './shared/shared-store.ts';
import { SharedUpstream } from './shared/shared-upstream.ts';
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
  /** Empty. */
  removals: Removals;
  /** Undefined: there is no coordinator, so that each node fetches for itself. */
  nodes: Nodes | undefined;
  /** What all nodes with the same upstream call it. Undefined: it is not known who logs in there, so nothing is shared. */
  upstreamKeyOf: (upstream: string) => Promise<string | undefined>;
  /** The names of all upstreams that there are now. */
  upstreamNames: () => Iterable<string>;
}

/** What the fleet shares of a node. */
export interface FleetPart {
  index: IndexStore;
  catalog: Catalog;
  cache: ContentCache;
  removeHere: RemoveHere;
  /** Called when the fleet is sealed, and when that seal is lifted. */
  onSealed: (sealed: boolean) => Promise<void>;
}

/** Without a coordinator there is nothing of nodes in it. */
export interface FleetCondition extends Partial<NodesCondition> {
  objects: {
    up: boolean;
    /** Why the object store is not used now; null while it is. */
    trouble: string | null;
    /** Objects that wait to be uploaded. */
    waiting: number;
  };
  /** All nodes are sealed. */
  sealed: boolean;
}

const JOIN_MS = 5_000;
const JOIN_AGAIN_MS = 60_000;
/** Until all nodes have applied what one has decided: they ask the coordinator once a second, or the store once a minute. */
const FOLLOW_SECONDS = { told: 5, looked: 65 };

export class Fleet {
  readonly #context: FleetContext;
  readonly #settings: FleetSettings;
  readonly #engine: Engine;
  readonly #store: SharedStore;
  #index: SharedIndex | undefined;
  #decisions: FleetDecisions | undefined;
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
  }

  /** For operators. Never rejects. */
  async condition(): Promise<FleetCondition> {
    const nodes = await this.#context.nodes?.condition();
    const { trouble = null } = this.#engine;
    const waiting = this.#uploads?.waiting ?? 0;
    const sealed = this.#decisions?.journal.isSealed ?? false;
    return { objects: { up: trouble === null, trouble, waiting }, sealed, ...nodes };
  }

  /** Lets this node's index know what the fleet knows. */
  shareIndex(own: IndexStore): IndexStore {
    this.#index = new SharedIndex({
      ...{ own, store: this.#store, clock: this.#context.clock },
      notes: this.#context.nodes?.notes,
      sharedRepository: this.#sharedRepository,
      removals: this.#context.removals,
      onWritten: (changes) => this.#uploads?.written(changes),
      onMoved: (key, meaning) => void this.#moved(key, meaning),
    });
    return this.#index;
  }

  /** The records of this node, without what others know. Not to be called before {@link shareIndex}. */
  get ownRecords(): SharedIndex['ownRecords'] | undefined {
    return this.#index?.ownRecords;
  }

  /** Lets content of an upstream come out of the object store, or from another node. */
  shareUpstream(upstream: Upstream): Upstream {
    return new SharedUpstream(upstream, {
      store: this.#store,
      permission: async (key, digest) => this.#index?.permission(key, digest),
      fetches: this.#context.nodes?.fetches,
      notes: this.#context.nodes?.notes,
      removals: this.#context.removals,
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

  /**
   * Looks whether the object store is this fleet's, applies what this node has missed, and begins to upload. Goes on alone
   * while the store is not there.
   *
   * @throws {StorageError} what was removed from the fleet could not be looked up here
   */
  async start(node: FleetPart): Promise<void> {
    const { clock, nodes } = this.#context;
    const { catalog } = node;
    const limit = new BandwidthLimit(clock);
    limit.setLimit(this.#settings.maxUpload);
    const share = new BandwidthShare([limit], clock, () => undefined);
    const index = this.#index?.own ?? node.index;
    const shared = { ...this.#context, ...node, index, sharedRepository: this.#sharedRepository };
    const joined = await this.#join();
    const decisions = await FleetDecisions.open({
      ...{ ...shared, engine: this.#engine, told: nodes?.journal },
      upstreamsCalled: (key) => this.#upstreamsCalled(key),
      isInStore: async (key, manifest) => (await this.#store.manifest(key, manifest)) !== undefined,
    });
    this.#decisions = decisions;
    const upload = new Upload({
      ...{ ...shared, engine: this.#engine, leases: nodes?.leases },
      mediaTypeOf: async (digest) => (await catalog.get(digest))?.mediaType,
      pace: async (wanted, signal) => (share.isFree ? wanted : share.take(wanted, signal)),
      isWrong: (digest) => this.#store.isDistrusted(digest),
      journal: decisions.journal,
      clear: (names) => decisions.records.clear(names),
    });
    this.#uploads = new Uploads({
      ...{ ...shared, upload },
      onUploaded: (digest) => nodes?.leases.releaseAll(digest),
    });
    const uploads = this.#uploads;
    if (this.#settings.redirectAbove !== undefined)
      this.#redirects = new Redirects({
        ...{ ...this.#context, engine: this.#engine, store: this.#store },
        noted: (name) => index.object(name),
        onRight: (name, etag) => uploads.found(name, etag),
        onLost: (digest, size) => uploads.missing(digest, size),
      });
    const isWaiting = (digest: Digest) => this.#uploads?.isWaiting(digest) ?? false;
    await nodes?.start(isWaiting, () => decisions.journal.isMember());
    if (joined) this.#uploads.start();
    else this.#rejoin = clock.every(JOIN_AGAIN_MS, () => void this.#joinLater());
  }

  /**
   * Removes an image from all nodes and from the store.
   *
   * @returns undefined if neither this node nor the store knows it
   * @throws {EngineError} nothing was removed @throws {StorageError} the disk here failed: it is tried again
   */
  async remove(key: RepositoryKey, reference: Reference): Promise<FleetRemovalReport | undefined> {
    const removed = await this.#decisions?.remove(key, reference);
    if (removed === undefined) return undefined;
    const nodes = await this.#context.nodes?.condition();
    const withinSeconds = nodes?.coordinator.up === true ? FOLLOW_SECONDS.told : FOLLOW_SECONDS.looked;
    return { ...removed, fleet: { nodes: nodes?.members.length ?? null, withinSeconds } };
  }

  /** Seals all nodes, or lifts that seal. @throws {EngineError} nothing has changed */
  async setSealed(sealed: boolean): Promise<void> {
    await this.#decisions?.setSealed(sealed);
  }

  /**
   * Answers other nodes. Undefined: there is no coordinator, so that no node asks another.
   *
   * @param openHere opens what this node has of a blob of an upstream, or gets now
   */
  peerRoute(
    openHere: (upstream: string, digest: Digest) => Promise<ContentReader | undefined>,
  ): ((request: IncomingMessage, response: ServerResponse) => Promise<void>) | undefined {
    return this.#context.nodes?.route(async (key, digest) => {
      const [name] = await this.#upstreamsCalled(key);
      return name === undefined ? undefined : openHere(name, digest);
    });
  }

  /** Goes on uploading for at most `timeoutMs`. Idempotent. */
  async close(timeoutMs: number): Promise<void> {
    this.#rejoin?.[Symbol.dispose]();
    await this.#redirects?.close();
    await this.#uploads?.close(timeoutMs);
    await this.#decisions?.journal.close();
    await this.#context.nodes?.close();
    this.#context.objects.close();
  }

  readonly #sharedRepository = async ({
    upstream,
    repository,
  }: RepositoryKey): Promise<SharedRepository | undefined> => {
    const key = await this.#context.upstreamKeyOf(upstream);
    if (key === undefined) return undefined;
    this.#context.removals.know(upstream, key);
    return { upstream: key, repository };
  };

  /** The names that upstreams have here which all nodes call `key`. */
  async #upstreamsCalled(key: string): Promise<string[]> {
    const { upstreamNames, upstreamKeyOf } = this.#context;
    const names: string[] = [];
    for (const name of upstreamNames()) if ((await upstreamKeyOf(name)) === key) names.push(name);
    return names;
  }

  /** Never rejects. */
  async #moved(key: TagKey, { digest, mediaType, size, confirmedAt }: TagRecord): Promise<void> {
    const shared = await this.#sharedRepository(key);
    const { tag, accept } = key;
    if (shared !== undefined)
      await this.#decisions?.tellMoved({ ...shared, tag, accept, digest, mediaType, size }, confirmedAt);
  }

  async #joinLater(): Promise<void> {
    if (!(await this.#join())) return;
    this.#rejoin?.[Symbol.dispose]();
    this.#uploads?.start();
  }

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
    void warnIfVersioned(objects, this.#engine, logger);
    return true;
  }
}
