/** Removes an image from a repository of this mirror, and all content that nothing here needs any more. */
import type { Catalog } from '../../cache/catalog/catalog.ts';
import type { IndexChange, IndexStore, RepositoryKey, TagKey } from '../../cache/index/index-store.ts';
import type { Digest } from '../../oci/digest.ts';
import { isDigest, type Reference } from '../../oci/reference.ts';

export interface Removal {
  /** Manifests and blobs that were removed, because nothing needed them any more. */
  objects: number;
  /** Bytes that were freed. */
  bytes: number;
}

export interface RemovedImage extends Removal {
  tags: TagKey[];
  /** What the repository may not serve any more, stored or not. */
  digests: Digest[];
}

export interface ImageRemovalContext {
  catalog: Pick<Catalog, 'get' | 'closure' | 'parentsOf' | 'remove'>;
  index: Pick<IndexStore, 'tags' | 'permission' | 'permissions' | 'write'>;
}

type Parents = ReadonlyMap<Digest, readonly Digest[]>;

export class ImageRemoval {
  readonly #context: ImageRemovalContext;

  constructor(context: ImageRemovalContext) {
    this.#context = context;
  }

  /**
   * @param elsewhere what the image consists of elsewhere, a manifest before what it lists. It goes with it, unless another
   *   image of the repository needs it here
   * @returns undefined if there is no such image
   * @throws {StorageError}
   */
  async remove(
    key: RepositoryKey,
    reference: Reference,
    elsewhere: readonly Digest[] = [],
  ): Promise<RemovedImage | undefined> {
    const { index, catalog } = this.#context;
    const [meant, others] = await this.#tagsOf(key, reference);
    const digests = new Set(isDigest(reference) ? [reference] : meant.map(([, digest]) => digest));
    const listed = elsewhere.filter((digest) => !digests.has(digest));
    const isKnown = meant.length > 0 || (isDigest(reference) && (await index.permission(key, reference)));
    if (!isKnown && listed.length === 0) return undefined;

    const unneeded = new Set<Digest>();
    /** Content that this repository may not serve any more, even if others need it. */
    const gone = new Set<Digest>();
    const affected = await Promise.all([...digests, ...listed].map((digest) => catalog.closure(digest)));
    const parents = await catalog.parentsOf(new Set([...affected.flat(), ...listed]));
    for (const digest of digests)
      if (!others.has(digest) && listing(parents, digest, unneeded).length === 0)
        await this.#takeApart(key, digest, parents, unneeded, gone);
    for (const digest of listed) {
      if (gone.has(digest) || (await this.#isNeededIn(key, digest, listing(parents, digest, gone)))) continue;
      gone.add(digest);
      const isNeeded =
        listing(parents, digest, unneeded).length > 0 || (await this.#isPermittedElsewhere(digest, key));
      if (!isNeeded && (await catalog.get(digest)) !== undefined) unneeded.add(digest);
    }
    const kept = [...gone].filter((digest) => !unneeded.has(digest));
    await index.write([
      ...meant.map(([tag]): IndexChange => ({ delete: 'tag', key: tag })),
      ...kept.map((digest): IndexChange => ({ delete: 'permission', key, digest })),
    ]);
    const bytes = await catalog.remove([...unneeded]);
    return { objects: unneeded.size, bytes, tags: meant.map(([tag]) => tag), digests: [...gone] };
  }

  /** Goes through an image from the top, and finds what goes with it. */
  async #takeApart(
    key: RepositoryKey,
    digest: Digest,
    parents: Parents,
    unneeded: Set<Digest>,
    gone: Set<Digest>,
  ): Promise<void> {
    for (const at of await this.#context.catalog.closure(digest)) {
      const isNeeded =
        at === digest
          ? await this.#isElsewhere(digest, key)
          : listing(parents, at, unneeded).length > 0 || (await this.#isTagged(at));
      if (!isNeeded) unneeded.add(at);
      else if (at !== digest && (await this.#isNeededIn(key, at, listing(parents, at, gone)))) continue;
      gone.add(at);
    }
  }

  /** Finds the tags of a repository that are meant, and the digests of its other tags. */
  async #tagsOf(key: RepositoryKey, reference: Reference): Promise<[[TagKey, Digest][], Set<Digest>]> {
    const meant: [TagKey, Digest][] = [];
    const others = new Set<Digest>();
    for await (const [tag, { digest }] of this.#context.index.tags(key)) {
      if (tag.tag === reference || digest === reference) meant.push([tag, digest]);
      else others.add(digest);
    }
    return [meant, others];
  }

  async #isNeededIn(key: RepositoryKey, digest: Digest, listedBy: readonly Digest[]): Promise<boolean> {
    if (await this.#isTaggedIn(key, digest)) return true;
    for (const parent of listedBy) {
      if ((await this.#context.index.permission(key, parent)) !== undefined) return true;
    }
    return false;
  }

  async #isElsewhere(digest: Digest, here: RepositoryKey): Promise<boolean> {
    for await (const [key, { expanded }] of this.#context.index.permissions(digest)) {
      if (expanded && formatted(key) !== formatted(here)) return true;
    }
    return false;
  }

  async #isPermittedElsewhere(digest: Digest, here: RepositoryKey): Promise<boolean> {
    for await (const [key] of this.#context.index.permissions(digest)) {
      if (formatted(key) !== formatted(here)) return true;
    }
    return false;
  }

  async #isTagged(digest: Digest): Promise<boolean> {
    if ((await this.#context.catalog.get(digest))?.mediaType === undefined) return false;
    for await (const [key] of this.#context.index.permissions(digest)) {
      if (await this.#isTaggedIn(key, digest)) return true;
    }
    return false;
  }

  async #isTaggedIn(repository: RepositoryKey, digest: Digest): Promise<boolean> {
    for await (const [, record] of this.#context.index.tags(repository)) {
      if (record.digest === digest) return true;
    }
    return false;
  }
}

function listing(parents: Parents, digest: Digest, except: ReadonlySet<Digest>): Digest[] {
  return (parents.get(digest) ?? []).filter((parent) => !except.has(parent));
}

function formatted({ upstream, repository }: RepositoryKey): string {
  return `${upstream}/${repository}`;
}
