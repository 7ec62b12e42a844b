/**
 * The index of a node of a fleet: what this node does not know of a tag or a permission, another one may have told, or
 * written to the object store. Whatever is found there is kept here, so that it is looked for once.
 *
 * What is known here is answered without asking anybody.
 */
import type {
  FindingKey,
  FindingRecord,
  IndexChange,
  IndexStore,
  PermissionRecord,
  RepositoryKey,
  TagKey,
  TagRecord,
} from '../../cache/index/index-store.ts';
import type { Clock } from '../../clock.ts';
import type { Digest } from '../../oci/digest.ts';
import { SingleFlight } from '../../single-flight.ts';
import type { Removals } from '../journal/removals.ts';
import type { SharedNotes } from '../nodes/shared-notes.ts';
import { contentName, type SharedRepository, tagName } from '../objects/names.ts';
import type { SharedStore } from './shared-store.ts';

export interface SharedIndexContext {
  /** This node's own index. */
  own: IndexStore;
  store: SharedStore;
  /** Undefined: there is no coordinator. */
  notes: SharedNotes | undefined;
  removals: Removals;
  /** How a repository is called by all nodes. Undefined: its upstream is not shared. */
  sharedRepository: (key: RepositoryKey) => Promise<SharedRepository | undefined>;
  /** Called with what has been written by this node, and not with what it found with others. */
  onWritten: (changes: readonly IndexChange[]) => void;
  /** Called with a tag that means something else than this node knew, when upstream has said so. */
  onMoved: (key: TagKey, meaning: TagRecord) => void;
  clock: Clock;
}

export class SharedIndex implements IndexStore {
  readonly #context: SharedIndexContext;
  readonly #tags = new SingleFlight<TagRecord | undefined>();
  readonly #permissions = new SingleFlight<PermissionRecord | undefined>();

  constructor(context: SharedIndexContext) {
    this.#context = context;
  }

  /** This node's own index. Nobody else is asked or told. */
  get own(): IndexStore {
    return this.#context.own;
  }

  /** What this node knows itself. Nobody else is asked, and what is written is told as usual. */
  get ownRecords(): Pick<IndexStore, 'tags' | 'permission' | 'permissions' | 'write'> {
    const { own } = this.#context;
    return {
      tags: (within, after) => own.tags(within, after),
      permission: (key, digest) => own.permission(key, digest),
      permissions: (digest) => own.permissions(digest),
      write: (changes) => this.write(changes),
    };
  }

  async tag(key: TagKey): Promise<TagRecord | undefined> {
    const own = await this.#context.own.tag(key);
    if (own !== undefined) return own;
    const flight = `${key.upstream}/${key.repository}:${key.tag} ${key.accept}`;
    return this.#tags.run(flight, () => this.#sharedTag(key)).result;
  }

  async permission(key: RepositoryKey, digest: Digest): Promise<PermissionRecord | undefined> {
    const own = await this.#context.own.permission(key, digest);
    if (own !== undefined) return own;
    const flight = `${key.upstream}/${key.repository}@${digest}`;
    return this.#permissions.run(flight, () => this.#sharedPermission(key, digest)).result;
  }

  finding(key: FindingKey): Promise<FindingRecord | undefined> {
    return this.#context.own.finding(key);
  }

  findings(digest: Digest): AsyncIterable<FindingKey> {
    return this.#context.own.findings(digest);
  }

  sums(digest: Digest): Promise<string | undefined> {
    return this.#context.own.sums(digest);
  }

  contents(): ReturnType<IndexStore['contents']> {
    return this.#context.own.contents();
  }

  tags(within?: RepositoryKey, after?: TagKey): AsyncIterable<[TagKey, TagRecord]> {
    return this.#context.own.tags(within, after);
  }

  permissions(digest: Digest): AsyncIterable<[RepositoryKey, PermissionRecord]> {
    return this.#context.own.permissions(digest);
  }

  object(name: string): Promise<string | undefined> {
    return this.#context.own.object(name);
  }

  async write(changes: readonly IndexChange[]): Promise<void> {
    const notes = changes.flatMap((change): IndexChange[] =>
      'delete' in change && change.delete === 'content'
        ? [{ delete: 'object', name: contentName(change.digest) }]
        : [],
    );
    const { own, onWritten, onMoved } = this.#context;
    const moved = await this.#moved(changes);
    await own.write(notes.length === 0 ? changes : [...changes, ...notes]);
    onWritten(changes);
    for (const { key, value } of moved) onMoved(key, value);
    await this.#tell(changes);
  }

  close(): Promise<void> {
    return this.#context.own.close();
  }

  async #moved(changes: readonly IndexChange[]): Promise<{ key: TagKey; value: TagRecord }[]> {
    const moved: { key: TagKey; value: TagRecord }[] = [];
    for (const change of changes) {
      if ('delete' in change || change.put !== 'tag') continue;
      const known = await this.#context.own.tag(change.key);
      if (known !== undefined && known.digest !== change.value.digest) moved.push(change);
    }
    return moved;
  }

  /** Keeps what was found with others, unless something was removed meanwhile: then it may be that. */
  async #keep(found: readonly IndexChange[], since: number): Promise<boolean> {
    if (this.#context.removals.version !== since) return false;
    await this.#context.own.write(found);
    return true;
  }

  /** Tells the other nodes what a manifest allows, before its first byte goes to a client, and what a tag means. */
  async #tell(changes: readonly IndexChange[]): Promise<void> {
    const { notes, sharedRepository } = this.#context;
    if (notes === undefined) return;
    const allowed = new Map<Digest, number>();
    let listing: RepositoryKey | undefined;
    for (const change of changes) {
      if ('delete' in change) continue;
      if (change.put === 'permission') {
        const { size, expanded } = change.value;
        if (size !== undefined) allowed.set(change.digest, size);
        if (expanded === true) listing = change.key; // it lists all others
      }
      if (change.put !== 'tag') continue;
      const repository = await sharedRepository(change.key);
      if (repository !== undefined)
        await notes.tell(repository, change.key.tag, change.key.accept, change.value);
    }
    const repository = listing && (await sharedRepository(listing));
    if (repository !== undefined) await notes.allow(repository, allowed);
  }

  async #sharedTag(key: TagKey): Promise<TagRecord | undefined> {
    const since = this.#context.removals.version;
    const told = await this.#notedTag(key, since);
    if (told !== undefined) return told;
    const shared = await this.#context.store.tag(key, key.tag, key.accept);
    if (shared === undefined) return undefined;
    const { digest, mediaType, size, writtenAt } = shared;
    // Nobody writes there that upstream has confirmed a tag, so that all it says is what the tag meant then.
    const value = { digest, mediaType, size, confirmedAt: writtenAt, isUnconfirmed: true as const };
    const repository = await this.#context.sharedRepository(key);
    const noted = repository && tagName(repository, key.tag, key.accept);
    const found: IndexChange[] = [{ put: 'tag', key, value }];
    if (noted !== undefined) found.push({ put: 'object', name: noted, value: digest });
    return (await this.#keep(found, since)) ? value : undefined;
  }

  /** What another node has told of a tag is as fresh as when upstream said so. */
  async #notedTag(key: TagKey, since: number): Promise<TagRecord | undefined> {
    const { notes, sharedRepository, clock } = this.#context;
    const repository = notes && (await sharedRepository(key));
    const noted = repository && (await notes?.tag(repository, key.tag, key.accept));
    if (noted === undefined) return undefined;
    const { digest, mediaType, size, ageMs } = noted;
    const value = { digest, mediaType, size, confirmedAt: clock.now() - ageMs };
    return (await this.#keep([{ put: 'tag', key, value }], since)) ? value : undefined;
  }

  async #sharedPermission(key: RepositoryKey, digest: Digest): Promise<PermissionRecord | undefined> {
    const { store, notes, removals, sharedRepository } = this.#context;
    const { version: since } = removals;
    const repository = notes && (await sharedRepository(key));
    const size =
      (repository && (await notes?.allowed(repository, digest))) ??
      (await store.manifest(key, digest))?.size ??
      (await store.listedSize(key, digest));
    if (size === undefined) return undefined;
    const value = { size };
    return (await this.#keep([{ put: 'permission', key, digest, value }], since)) ? value : undefined;
  }
}
