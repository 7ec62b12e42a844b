/** Lists and removes cached images, by the names under which they were pulled. */
import type { Catalog } from '../../cache/catalog/catalog.ts';
import type { ContentCache } from '../../cache/catalog/content-cache.ts';
import type { IndexStore, RepositoryKey, TagKey } from '../../cache/index/index-store.ts';
import type { Digest } from '../../oci/digest.ts';
import { formatImageName } from '../../oci/image-name.ts';
import type { Reference, Tag } from '../../oci/reference.ts';
import { describeContents, type ImageContents } from './image-contents.ts';
import { ImageRemoval, type Removal } from './image-removal.ts';
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
    const removed = await new ImageRemoval(this.#context).remove(key, reference);
    return removed && { objects: removed.objects, bytes: removed.bytes };
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
