/** What an entry of the journal does to this node. */
import type { Catalog } from '../../cache/catalog/catalog.ts';
import type { IndexChange, IndexStore, RepositoryKey, TagKey } from '../../cache/index/index-store.ts';
import type { Clock } from '../../clock.ts';
import type { Digest } from '../../oci/digest.ts';
import type { Reference } from '../../oci/reference.ts';
import type { Logger } from '../../telemetry/log.ts';
import { manifestName, type SharedRepository, tagName } from '../objects/names.ts';
import type { MovedTag, RemovalEntry } from './entries.ts';
import type { Removals } from './removals.ts';
import type { StoredRecords } from './stored-records.ts';

/** What a removal did here. */
export interface RemovedHere {
  objects: number;
  /** Bytes that were freed. */
  bytes: number;
  tags: readonly TagKey[];
  /** What the repository may not serve any more. */
  digests: readonly Digest[];
}

/**
 * Removes an image from this node's disk.
 *
 * @param elsewhere what the image consists of elsewhere, a manifest before what it lists
 * @returns undefined if there is no such image here @throws {StorageError}
 */
export type RemoveHere = (
  key: RepositoryKey,
  reference: Reference,
  elsewhere: readonly Digest[],
) => Promise<RemovedHere | undefined>;

export interface AppliedEntriesContext {
  /** This node's own. */
  index: IndexStore;
  catalog: Catalog;
  removals: Removals;
  records: StoredRecords;
  removeHere: RemoveHere;
  sharedRepository: (key: RepositoryKey) => Promise<SharedRepository | undefined>;
  /** The names that upstreams have here which all nodes call so. */
  upstreamsCalled: (key: string) => Promise<string[]>;
  /** Whether the store has the manifest, and the repository may serve it. */
  isInStore: (key: RepositoryKey, manifest: Digest) => Promise<boolean>;
  clock: Clock;
  logger: Logger;
}

export class AppliedEntries {
  readonly #context: AppliedEntriesContext;

  constructor(context: AppliedEntriesContext) {
    this.#context = context;
  }

  /**
   * Removes an image here, and its records from the store as far as this node has brought or found them.
   *
   * @throws {StorageError}
   */
  async remove(entry: RemovalEntry): Promise<RemovedHere | undefined> {
    const { removeHere, records, index, sharedRepository, logger } = this.#context;
    const { upstream, repository, reference, tags, digests } = entry;
    const key = { upstream, repository };
    const removed = await removeHere(key, reference as Reference, digests);
    const shared = await sharedRepository(key);
    if (shared !== undefined) {
      const gone = [...digests, ...(removed?.digests ?? [])].map((digest) => manifestName(shared, digest));
      const left = (removed?.tags ?? []).map(({ tag, accept }) => tagName(shared, tag, accept));
      const names = new Set([...gone, ...left, ...tags.map((tag) => tagName(shared, tag, ''))]);
      const noted: string[] = [];
      for (const name of names) if ((await index.object(name)) !== undefined) noted.push(name);
      await index.write(noted.map((name): IndexChange => ({ delete: 'object', name })));
      await records.clear(noted);
    }
    const { objects = 0, bytes = 0 } = removed ?? {};
    logger.info({ ...key, reference, objects, bytes }, 'removed from all nodes of the fleet, and here');
    return removed;
  }

  /**
   * Takes over what a tag means now, if this node knows that it meant something else.
   *
   * Without its manifest within reach the old meaning stays, and the next pull asks upstream: a node that cannot reach
   * upstream would have nothing to serve.
   *
   * @param ageMs how long ago upstream said so @throws {StorageError}
   */
  async move({ upstream, repository, tag, accept, ...meaning }: MovedTag, ageMs: number): Promise<void> {
    const { index, catalog, clock, upstreamsCalled, sharedRepository, isInStore } = this.#context;
    const { digest, mediaType, size } = meaning;
    const confirmedAt = clock.now() - ageMs;
    for (const name of await upstreamsCalled(upstream)) {
      const key: TagKey = { upstream: name, repository, tag, accept };
      const known = await index.tag(key);
      if (known === undefined || known.digest === digest) continue;
      if (known.isUnconfirmed !== true && known.confirmedAt >= confirmedAt) continue;
      const isHere =
        (await catalog.get(digest))?.mediaType !== undefined &&
        (await index.permission(key, digest)) !== undefined;
      const shared = await sharedRepository(key);
      const isWithinReach = isHere || (await isInStore(key, digest));
      const changes: IndexChange[] = isWithinReach
        ? [{ put: 'tag', key, value: { digest, mediaType, size, confirmedAt } }]
        : [{ put: 'tag', key, value: { ...known, isUnconfirmed: true } }];
      // Whoever saw it move writes the record.
      if (isWithinReach && shared !== undefined)
        changes.push({ put: 'object', name: tagName(shared, tag, accept), value: digest });
      const now = await index.tag(key);
      // A pull may have asked upstream meanwhile.
      if (now?.digest === known.digest && now.confirmedAt === known.confirmedAt) await index.write(changes);
    }
  }

  /**
   * Removes what this node had brought to the store or found there, and what is there no more: it was removed while this
   * node was away for longer than the journal reaches back.
   *
   * @throws {StorageError | EngineError}
   */
  async compare(): Promise<void> {
    const { index, catalog, records, removeHere, sharedRepository, logger } = this.#context;
    const noted: { key: RepositoryKey; reference: Reference; name: string }[] = [];
    const add = async (key: RepositoryKey, reference: Reference, nameOf: (s: SharedRepository) => string) => {
      const shared = await sharedRepository(key);
      const name = shared && nameOf(shared);
      if (name !== undefined && (await index.object(name)) !== undefined)
        noted.push({ key, reference, name });
    };
    for await (const [digest] of catalog.manifests())
      for await (const [key, { expanded }] of index.permissions(digest))
        if (expanded === true) await add(key, digest, (shared) => manifestName(shared, digest));
    for await (const [{ tag, accept, ...key }] of index.tags())
      await add(key, tag, (shared) => tagName(shared, tag, accept));
    if (noted.length === 0) return;
    const there = await records.all();
    const gone = noted.filter(({ name }) => !there.has(name));
    for (const { key, reference } of gone) await removeHere(key, reference, []);
    await index.write(gone.map(({ name }): IndexChange => ({ delete: 'object', name })));
    logger.warn(
      { records: noted.length, removed: gone.length },
      'this node was away for longer than the journal of the fleet: what the store has no more was removed here',
    );
  }
}
