/**
 * The index of a node of a fleet: what this node does not know of a tag or a permission, another one may have written to
 * the object store. Whatever is found there is kept here, so that it is looked for once.
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
import type { Digest } from '../../oci/digest.ts';
import { SingleFlight } from '../../single-flight.ts';
import { contentName } from '../objects/names.ts';
import type { SharedStore } from './shared-store.ts';

export class SharedIndex implements IndexStore {
  readonly #own: IndexStore;
  readonly #store: SharedStore;
  readonly #onWritten: (changes: readonly IndexChange[]) => void;
  readonly #tags = new SingleFlight<TagRecord | undefined>();
  readonly #permissions = new SingleFlight<PermissionRecord | undefined>();

  /** @param onWritten called with what has been written by this node, and not with what it found in the store */
  constructor(own: IndexStore, store: SharedStore, onWritten: (changes: readonly IndexChange[]) => void) {
    this.#own = own;
    this.#store = store;
    this.#onWritten = onWritten;
  }

  async tag(key: TagKey): Promise<TagRecord | undefined> {
    const own = await this.#own.tag(key);
    if (own !== undefined) return own;
    const flight = `${key.upstream}/${key.repository}:${key.tag} ${key.accept}`;
    return this.#tags.run(flight, () => this.#sharedTag(key)).result;
  }

  async permission(key: RepositoryKey, digest: Digest): Promise<PermissionRecord | undefined> {
    const own = await this.#own.permission(key, digest);
    if (own !== undefined) return own;
    const flight = `${key.upstream}/${key.repository}@${digest}`;
    return this.#permissions.run(flight, () => this.#sharedPermission(key, digest)).result;
  }

  finding(key: FindingKey): Promise<FindingRecord | undefined> {
    return this.#own.finding(key);
  }

  findings(digest: Digest): AsyncIterable<FindingKey> {
    return this.#own.findings(digest);
  }

  sums(digest: Digest): Promise<string | undefined> {
    return this.#own.sums(digest);
  }

  contents(): ReturnType<IndexStore['contents']> {
    return this.#own.contents();
  }

  tags(within?: RepositoryKey, after?: TagKey): AsyncIterable<[TagKey, TagRecord]> {
    return this.#own.tags(within, after);
  }

  permissions(digest: Digest): AsyncIterable<[RepositoryKey, PermissionRecord]> {
    return this.#own.permissions(digest);
  }

  object(name: string): Promise<string | undefined> {
    return this.#own.object(name);
  }

  async write(changes: readonly IndexChange[]): Promise<void> {
    const notes = changes.flatMap((change): IndexChange[] =>
      'delete' in change && change.delete === 'content'
        ? [{ delete: 'object', name: contentName(change.digest) }]
        : [],
    );
    await this.#own.write(notes.length === 0 ? changes : [...changes, ...notes]);
    this.#onWritten(changes);
  }

  close(): Promise<void> {
    return this.#own.close();
  }

  async #sharedTag(key: TagKey): Promise<TagRecord | undefined> {
    const shared = await this.#store.tag(key, key.tag, key.accept);
    if (shared === undefined) return undefined;
    const { digest, mediaType, size, writtenAt } = shared;
    // Nobody writes there that upstream has confirmed a tag, so that all it says is what the tag meant then.
    const value = { digest, mediaType, size, confirmedAt: writtenAt, isUnconfirmed: true as const };
    await this.#own.write([{ put: 'tag', key, value }]);
    return value;
  }

  async #sharedPermission(key: RepositoryKey, digest: Digest): Promise<PermissionRecord | undefined> {
    const size =
      (await this.#store.manifest(key, digest))?.size ?? (await this.#store.listedSize(key, digest));
    if (size === undefined) return undefined;
    const value = { size };
    await this.#own.write([{ put: 'permission', key, digest, value }]);
    return value;
  }
}
