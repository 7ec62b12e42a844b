/**
 * The fleet's object store as a pull sees it: what it has is a find, and everything else that can happen to it is a miss.
 *
 * What is written here is {@link Uploads}' business.
 */
import type { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { LRUCache } from 'lru-cache';
import type * as z from 'zod';
import type { RepositoryKey } from '../../cache/index/index-store.ts';
import type { Clock } from '../../clock.ts';
import type { Digest } from '../../oci/digest.ts';
import { MANIFEST_MAX_BYTES } from '../../oci/manifest.ts';
import type { Tag } from '../../oci/reference.ts';
import type { Logger } from '../../telemetry/log.ts';
import type { Metrics } from '../../telemetry/metrics.ts';
import type { Engine } from '../engines/engine.ts';
import { EngineError } from '../engines/errors.ts';
import { streamOf, wholeBody } from '../engines/whole-body.ts';
import {
  contentName,
  manifestName,
  manifestsPrefix,
  type SharedRepository,
  tagName,
} from '../objects/names.ts';
import type { ListedObject, ObjectBytes, ObjectStore } from '../objects/object-store.ts';
import type { FleetSecret } from '../records/fleet-secret.ts';
import {
  manifestRecord,
  RECORD_MAX_BYTES,
  readRecord,
  type SharedManifest,
  type SharedTag,
  tagRecord,
} from '../records/signed-record.ts';

export interface SharedStoreContext {
  objects: ObjectStore;
  engine: Engine;
  secret: FleetSecret;
  /** How a repository is called in the store. Undefined: its upstream is not shared. */
  sharedRepository: (key: RepositoryKey) => Promise<SharedRepository | undefined>;
  clock: Clock;
  logger: Logger;
  metrics: Metrics;
}

/** Until the first byte of an answer. */
export const FIRST_BYTE_MS = 1_000;
/** What was wrong or broke off is not read from the store again for this long. */
const DISTRUST_MS = 60_000;
const DISTRUSTED = 10_000;
/** The manifests of a repository that are looked through for what they list: the newest ones. */
const MANIFESTS_LOOKED_AT = 100;
const LOOKED_AT_A_TIME = 8;
/** A look through a repository is good for this long. */
const LISTING_LASTS_MS = 10_000;
const LISTINGS = 1_000;

export class SharedStore {
  readonly #context: SharedStoreContext;
  readonly #distrusted = new LRUCache<Digest, number>({ max: DISTRUSTED });
  readonly #listings = new LRUCache<string, { at: number; sizes: Promise<ReadonlyMap<Digest, number>> }>({
    max: LISTINGS,
  });

  constructor(context: SharedStoreContext) {
    this.#context = context;
  }

  /** What the tag meant when it last moved, and when that was written. */
  async tag(
    key: RepositoryKey,
    tag: Tag,
    accept: string,
  ): Promise<(SharedTag & { writtenAt: number }) | undefined> {
    const repository = await this.#context.sharedRepository(key);
    return repository && this.#record(tagName(repository, tag, accept), tagRecord);
  }

  /** The manifest, if the repository may serve it. */
  async manifest(key: RepositoryKey, digest: Digest): Promise<SharedManifest | undefined> {
    const repository = await this.#context.sharedRepository(key);
    return repository && this.#record(manifestName(repository, digest), manifestRecord);
  }

  /** Bytes of a digest that a manifest of the repository lists. Undefined: none of its newest does. */
  async listedSize(key: RepositoryKey, digest: Digest): Promise<number | undefined> {
    const repository = await this.#context.sharedRepository(key);
    if (repository === undefined) return undefined;
    const prefix = manifestsPrefix(repository);
    const now = this.#context.clock.now();
    let listing = this.#listings.get(prefix);
    if (listing === undefined || Math.abs(now - listing.at) >= LISTING_LASTS_MS) {
      listing = { at: now, sizes: this.#lookThrough(prefix) };
      this.#listings.set(prefix, listing);
    }
    return (await listing.sizes).get(digest);
  }

  /** Opens the bytes of a digest. Undefined: it is not there, is not to be trusted, or cannot be had now. */
  async open(
    digest: Digest,
    range: { from?: number; to?: number },
    signal: AbortSignal | undefined,
  ): Promise<ObjectBytes | undefined> {
    if (!this.trusts(digest)) return undefined;
    const found = await this.#get(contentName(digest), range, signal);
    if (found === undefined) return undefined;
    const length = Math.min(range.to ?? found.size, found.size) - (range.from ?? 0);
    return { ...found, body: streamOf(this.#read(digest, found.body, length), found.body) };
  }

  /** The whole content of a manifest, not verified. */
  async readManifest(digest: Digest, signal: AbortSignal | undefined): Promise<Buffer | undefined> {
    const found = await this.open(digest, {}, signal);
    return found && this.#whole(found, MANIFEST_MAX_BYTES);
  }

  /** The bytes of a digest broke off, or were not those of the digest. */
  distrust(digest: Digest): void {
    this.#distrusted.set(digest, this.#context.clock.now());
  }

  /** Whether the bytes of a digest may be read: not for a minute after they broke off, or were wrong. */
  trusts(digest: Digest): boolean {
    const since = this.#distrusted.get(digest);
    return since === undefined || Math.abs(this.#context.clock.now() - since) >= DISTRUST_MS;
  }

  /** Whether what is there in place of a digest was found wrong. */
  isDistrusted(digest: Digest): boolean {
    return this.#distrusted.has(digest);
  }

  /** What has come stays right when the rest does not: whoever reads goes on from another place. */
  async *#read(digest: Digest, body: Readable, length: number): AsyncGenerator<Buffer, void, undefined> {
    const { engine, clock } = this.#context;
    try {
      yield* wholeBody('the object store', body, length, clock);
    } catch (error) {
      if (error instanceof EngineError) {
        this.distrust(digest);
        engine.brokeOff(error);
      }
      throw error;
    }
  }

  async #record<T>(name: string, schema: z.ZodType<T>): Promise<(T & { writtenAt: number }) | undefined> {
    const { secret, engine, logger, metrics } = this.#context;
    const found = await this.#get(name, {}, undefined);
    const bytes = found && (await this.#whole(found, RECORD_MAX_BYTES));
    if (bytes === undefined) return undefined;
    const record = await readRecord(secret, name, bytes.toString('utf8'), schema);
    if (record !== undefined) return { ...record, writtenAt: found?.writtenAt ?? 0 };
    metrics.fleetRecordsRefused.inc({ engine: engine.name });
    logger.warn({ object: name }, 'a record in the object store is not signed by this fleet, and is ignored');
    return undefined;
  }

  async #lookThrough(prefix: string): Promise<ReadonlyMap<Digest, number>> {
    const listed = await this.#list(prefix);
    const newest = listed.sort((a, b) => b.writtenAt - a.writtenAt).slice(0, MANIFESTS_LOOKED_AT);
    const sizes = new Map<Digest, number>();
    const left = newest.values();
    const lane = async () => {
      for (const { name } of left) {
        const manifest = await this.#record(name, manifestRecord);
        for (const [digest, size] of manifest?.lists ?? []) sizes.set(digest, size);
      }
    };
    await Promise.all(Array.from({ length: LOOKED_AT_A_TIME }, lane));
    return sizes;
  }

  async #list(prefix: string): Promise<ListedObject[]> {
    const { objects, engine } = this.#context;
    return this.#tolerate(async () => {
      const listed: ListedObject[] = [];
      await engine.ask('list', FIRST_BYTE_MS, async (signal) => {
        for await (const page of objects.list(prefix, signal)) listed.push(...page);
      });
      return listed;
    }).then((listed) => listed ?? []);
  }

  #get(
    name: string,
    range: { from?: number; to?: number },
    signal: AbortSignal | undefined,
  ): Promise<ObjectBytes | undefined> {
    const { objects, engine } = this.#context;
    return this.#tolerate(() =>
      engine.ask('get', FIRST_BYTE_MS, (deadline) =>
        objects.get(name, {
          ...range,
          signal: signal === undefined ? deadline : AbortSignal.any([deadline, signal]),
        }),
      ),
    );
  }

  /** @returns undefined if the engine fails: to a pull that is a miss */
  async #tolerate<T>(ask: () => Promise<T>): Promise<T | undefined> {
    try {
      return await ask();
    } catch (error) {
      if (error instanceof EngineError) return undefined;
      throw error;
    }
  }

  async #whole({ size, body }: ObjectBytes, most: number): Promise<Buffer | undefined> {
    if (size > most) {
      body.on('error', () => undefined).destroy();
      return undefined;
    }
    return this.#tolerate(async () => buffer(wholeBody('the object store', body, size, this.#context.clock)));
  }
}
