/** Lists and removes cached images, by the names under which they were pulled. */
import type { Catalog } from '../../cache/catalog/catalog.ts';
import type { ContentCache } from '../../cache/catalog/content-cache.ts';
import type { IndexChange, IndexStore, RepositoryKey, TagKey } from '../../cache/index/index-store.ts';
import type { Digest } from '../../oci/digest.ts';
import { formatImageName } from '../../oci/image-name.ts';
import type { Reference, Tag } from '../../oci/reference.ts';
import { isDigest } from '../../oci/reference.ts';
import { describeContents, type ImageContents } from './image-contents.ts';
import type { ManifestStore } from './manifest-store.ts';

export interface CachedImage extends ImageContents {
  /** `docker.io/library/alpine:3.20`, or with `@sha256:…` where it was pulled by digest only. */
  name: string;
  upstream: string;
  repository: string;
  tag?: Tag;
  digest: Digest;
  /** Milliseconds since the epoch. */
  usedAt: number;
}

/** A position in a listing, from which it can go on. */
export type ImagePosition = { tag: TagKey } | { digest: Digest; repository: RepositoryKey };

export interface Removal {
  /** Manifests and blobs that were removed, because nothing needed them any more. */
  objects: number;
  /** Bytes that were freed. */
  bytes: number;
}

export interface ImagesContext {
  catalog: Catalog;
  cache: ContentCache;
  index: IndexStore;
  manifests: ManifestStore;
}

export class Images {
  readonly #context: ImagesContext;

  constructor(context: ImagesContext) {
    this.#context = context;
  }

  /**
   * Lists images with a tag in the order of their names, then those that were pulled by digest only.
   *
   * @param matching names must match it
   * @param after lists only images behind this position
   * @throws {StorageError}
   */
  async *list(matching: RegExp, after?: ImagePosition): AsyncIterable<[ImagePosition, CachedImage]> {
    for await (const position of this.#positions(after)) {
      const [key, tag, digest] =
        'tag' in position
          ? [position.tag, position.tag.tag, await this.#meaning(position.tag)]
          : [position.repository, undefined, position.digest];
      if (digest === undefined || (await this.#context.catalog.get(digest))?.mediaType === undefined)
        continue;
      const { upstream, repository } = key;
      const name = formatImageName({
        host: upstream,
        repository,
        ...(tag === undefined ? { digest } : { tag }),
      });
      if (!matching.test(name)) continue;
      const image = { name, upstream, repository, ...(tag === undefined ? {} : { tag }), digest };
      const contents = await describeContents(digest, this.#context);
      const usedAt = (await this.#context.catalog.get(digest))?.usedAt ?? 0;
      yield [position, { ...image, ...contents, usedAt }];
    }
  }

  /**
   * Removes an image from a repository, and all content that nothing needs any more.
   *
   * @returns undefined if there is no such image
   * @throws {StorageError}
   */
  async remove(key: RepositoryKey, reference: Reference): Promise<Removal | undefined> {
    const { index, catalog } = this.#context;
    const [meant, others] = await this.#tagsOf(key, reference);
    const digests = new Set(isDigest(reference) ? [reference] : meant.map(([, digest]) => digest));
    const known = meant.length > 0 || (isDigest(reference) && (await index.permission(key, reference)));
    if (!known) return undefined;
    const changes = meant.map(([tag]): IndexChange => ({ delete: 'tag', key: tag }));

    const unneeded = new Set<Digest>();
    /** Content that this repository may not serve any more, even if others need it. */
    const gone = new Set<Digest>();
    const affected = await Promise.all([...digests].map((digest) => catalog.closure(digest)));
    const parents = await catalog.parentsOf(affected.flat());
    const listing = (digest: Digest, except: ReadonlySet<Digest>) =>
      (parents.get(digest) ?? []).filter((parent) => !except.has(parent));
    for (const digest of digests) {
      if (others.has(digest) || listing(digest, unneeded).length > 0) continue;
      for (const at of await catalog.closure(digest)) {
        const isNeeded =
          at === digest
            ? await this.#isElsewhere(digest, key)
            : listing(at, unneeded).length > 0 || (await this.#isTagged(at));
        if (!isNeeded) unneeded.add(at);
        else if (at !== digest && (await this.#isNeededIn(key, at, listing(at, gone)))) continue;
        gone.add(at);
      }
    }
    const kept = [...gone].filter((digest) => !unneeded.has(digest));
    await index.write([
      ...changes,
      ...kept.map((digest): IndexChange => ({ delete: 'permission', key, digest })),
    ]);
    return { objects: unneeded.size, bytes: await catalog.remove([...unneeded]) };
  }

  async *#positions(after?: ImagePosition): AsyncIterable<ImagePosition> {
    if (after === undefined || 'tag' in after) {
      for await (const [key] of this.#context.index.tags(undefined, after?.tag)) {
        // Skips tags for clients that accept only some types: they would list the image again.
        if (key.accept === '') yield { tag: key };
      }
    }
    yield* this.#untagged(after !== undefined && 'digest' in after ? after : undefined);
  }

  async *#untagged(after?: { digest: Digest; repository: RepositoryKey }): AsyncIterable<ImagePosition> {
    const { index, catalog } = this.#context;
    const listed = new Set<Digest>();
    const manifests: Digest[] = [];
    for await (const [digest, { children = [] }] of catalog.manifests()) {
      manifests.push(digest);
      for (const child of children) listed.add(child);
    }
    for (const digest of manifests.toSorted()) {
      if (listed.has(digest) || digest < (after?.digest ?? '')) continue;
      for await (const [repository, { expanded }] of index.permissions(digest)) {
        const isBehind = digest !== after?.digest || formatted(repository) > formatted(after.repository);
        if (!expanded || !isBehind || (await this.#isTaggedIn(repository, digest))) continue;
        yield { digest, repository };
      }
    }
  }

  async #meaning(key: TagKey): Promise<Digest | undefined> {
    return (await this.#context.index.tag(key))?.digest;
  }

  /** Finds the tags of a repository that `reference` names, and the digests of its other tags. */
  async #tagsOf(key: RepositoryKey, reference: Reference): Promise<[[TagKey, Digest][], Set<Digest>]> {
    const meant: [TagKey, Digest][] = [];
    const others = new Set<Digest>();
    for await (const [tag, { digest }] of this.#context.index.tags(key)) {
      if (tag.tag === reference || digest === reference) meant.push([tag, digest]);
      else others.add(digest);
    }
    return [meant, others];
  }

  async #isNeededIn(key: RepositoryKey, digest: Digest, listing: readonly Digest[]): Promise<boolean> {
    if (await this.#isTaggedIn(key, digest)) return true;
    for (const parent of listing) {
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

function formatted({ upstream, repository }: RepositoryKey): string {
  return `${upstream}/${repository}`;
}
