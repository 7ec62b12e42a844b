/** What an operator decides for all nodes: an image is removed, the fleet is sealed. Builds the journal that carries it. */
import type { Catalog } from '../../cache/catalog/catalog.ts';
import type { IndexStore, RepositoryKey } from '../../cache/index/index-store.ts';
import type { Clock } from '../../clock.ts';
import type { Digest } from '../../oci/digest.ts';
import { isDigest, type Reference } from '../../oci/reference.ts';
import type { Logger } from '../../telemetry/log.ts';
import type { Metrics } from '../../telemetry/metrics.ts';
import type { Engine } from '../engines/engine.ts';
import { EngineError } from '../engines/errors.ts';
import { recordSubject, type SharedRepository } from '../objects/names.ts';
import type { ObjectStore } from '../objects/object-store.ts';
import type { FleetSecret } from '../records/fleet-secret.ts';
import { AppliedEntries, type RemoveHere } from './applied-entries.ts';
import { Decisions } from './decisions.ts';
import type { MovedTag } from './entries.ts';
import { Journal, type ToldJournal } from './journal.ts';
import { planRemoval, type RepositoryView } from './removal-plan.ts';
import type { Removals } from './removals.ts';
import { StoredRecords } from './stored-records.ts';

export interface FleetDecisionsContext {
  objects: ObjectStore;
  engine: Engine;
  secret: FleetSecret;
  removals: Removals;
  /** Undefined: there is no coordinator. */
  told: ToldJournal | undefined;
  /** This node's own. */
  index: IndexStore;
  catalog: Catalog;
  removeHere: RemoveHere;
  onSealed: (sealed: boolean) => Promise<void>;
  sharedRepository: (key: RepositoryKey) => Promise<SharedRepository | undefined>;
  upstreamsCalled: (key: string) => Promise<string[]>;
  isInStore: (key: RepositoryKey, manifest: Digest) => Promise<boolean>;
  clock: Clock;
  logger: Logger;
  metrics: Metrics;
}

export interface FleetRemoval {
  /** Manifests and blobs that were removed here. */
  objects: number;
  /** Bytes that were freed here. */
  bytes: number;
}

/** What came of a removal from all nodes. */
export interface FleetRemovalReport extends FleetRemoval {
  /** The others follow within this time; those that are away, when they are back. */
  fleet: { withinSeconds: number /** Null: it is not known. */; nodes: number | null };
}

export class FleetDecisions {
  readonly journal: Journal;
  readonly records: StoredRecords;
  readonly #context: FleetDecisionsContext;

  private constructor(context: FleetDecisionsContext, journal: Journal, records: StoredRecords) {
    this.#context = context;
    this.journal = journal;
    this.records = records;
  }

  /** Applies what this node has missed, as far as the engines answer, and goes on applying. @throws {StorageError} */
  static async open(context: FleetDecisionsContext): Promise<FleetDecisions> {
    const records = new StoredRecords(context);
    const entries = new AppliedEntries({ ...context, records });
    const journal = await Journal.open({ ...context, entries, decisions: new Decisions(context) });
    return new FleetDecisions(context, journal, records);
  }

  /**
   * Removes an image from all nodes and from the store: its tags, and what the repository may serve because of it.
   *
   * @returns undefined if neither this node nor the store knows it
   * @throws {EngineError} nothing was removed @throws {StorageError} the disk here failed: it is tried again
   */
  async remove(key: RepositoryKey, reference: Reference): Promise<FleetRemoval | undefined> {
    const shared = await this.#context.sharedRepository(key);
    if (shared === undefined) {
      const what = `it is not known who logs in at ${key.upstream}, so that the other nodes cannot be told`;
      throw new EngineError('misconfigured', what);
    }
    const [stored, here] = [await this.records.of(shared), await this.#here(key)];
    const tags = [...here.tags, ...stored.tags];
    const view: RepositoryView = { tags, lists: new Map([...here.lists, ...stored.lists]) };
    const plan = planRemoval(view, reference);
    const isKnown =
      plan.tags.length > 0 ||
      (isDigest(reference) &&
        (view.lists.has(reference) || (await this.#context.index.permission(key, reference)) !== undefined));
    if (!isKnown) return undefined;
    const { upstream, repository } = key;
    const removed = await this.journal.decide({ kind: 'removal', upstream, repository, reference, ...plan });
    const subjects = new Set([
      ...plan.tags.map((tag) => `:${tag}`),
      ...plan.digests.map((digest) => `@${digest}`),
    ]);
    await this.records.clear(stored.names.filter((name) => subjects.has(recordSubject(name)?.of ?? '')));
    const { objects = 0, bytes = 0 } = removed ?? {};
    return { objects, bytes };
  }

  /** Seals all nodes, or lifts that seal. @throws {EngineError} nothing has changed */
  async setSealed(sealed: boolean): Promise<void> {
    await this.journal.decide({ kind: 'seal', sealed });
  }

  /** Tells the other nodes that a tag means something else than before. Never rejects. */
  async tellMoved(moved: Omit<MovedTag, 'at'>, confirmedAt: number): Promise<void> {
    const { told, clock } = this.#context;
    if (told !== undefined)
      await this.journal.tellMoved({ ...moved, at: told.now() - (clock.now() - confirmedAt) });
  }

  async #here(key: RepositoryKey): Promise<RepositoryView> {
    const { index, catalog } = this.#context;
    const tags: RepositoryView['tags'][number][] = [];
    const lists = new Map<Digest, readonly Digest[]>();
    for await (const [{ tag }, { digest }] of index.tags(key)) tags.push({ tag, digest });
    for await (const [digest, { children = [] }] of catalog.manifests())
      if ((await index.permission(key, digest))?.expanded === true) lists.set(digest, children);
    return { tags, lists };
  }
}
