/** A node's part in a fleet: what it finds with the others, and what it brings them. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Catalog } from '../cache/catalog/catalog.ts';
import type { ContentCache } from '../cache/catalog/content-cache.ts';
import type { IndexStore, RepositoryKey } from '../cache/index/index-store.ts';
import type { Digest } from '../oci/digest.ts';
import { BandwidthLimit } from '../upstream/limits/bandwidth.ts';
import { BandwidthShare } from '../upstream/limits/bandwidth-share.ts';
import type { Upstream } from '../upstream/upstream.ts';
import { Engine, type EngineContext } from './engines/engine.ts';
import { EngineError } from './engines/errors.ts';
import { joinFleet } from './fleet-file.ts';
import type { Nodes } from './nodes/nodes.ts';
import type { OpenHere } from './nodes/peer-route.ts';
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
  /** Undefined: there is no coordinator, so that each node fetches for itself. */
  nodes: Nodes | undefined;
  /** What all nodes with the same upstream call it. Undefined: it is not known who logs in there, so nothing is shared. */
  upstreamKeyOf: (upstream: string) => Promise<string | undefined>;
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
  shareUpstream(upstream: Upstream): Upstream {
    return new SharedUpstream(upstream, {
      store: this.#store,
      permission: async (key, digest) => this.#index?.permission(key, digest),
      fetches: this.#context.nodes?.fetches,
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

  /**
   * Answers other nodes. Undefined: there is no coordinator, so that no node asks another.
   *
   * @param openHere opens what this node has of a blob of an upstream, or gets now
   * @param upstreams the names of those that there are now
   */
  peerRoute(
    openHere: OpenHere,
    upstreams: () => Iterable<string>,
  ): ((request: IncomingMessage, response: ServerResponse) => Promise<void>) | undefined {
    const { nodes, upstreamKeyOf } = this.#context;
    return nodes?.route(async (key, digest, fromNodes) => {
      for (const name of upstreams())
        if ((await upstreamKeyOf(name)) === key) return openHere(name, digest, fromNodes);
      return undefined;
    });
  }

  /** Goes on uploading for at most `timeoutMs`. Idempotent. */
  async close(timeoutMs: number): Promise<void> {
    this.#rejoin?.[Symbol.dispose]();
    await this.#redirects?.close();
    await this.#uploads?.close(timeoutMs);
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
