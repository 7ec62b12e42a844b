/** Brings back into the object store what this node has and what has left it. */
import type { Catalog } from '../../cache/catalog/catalog.ts';
import type { IndexChange, IndexStore, RepositoryKey } from '../../cache/index/index-store.ts';
import type { Digest } from '../../oci/digest.ts';
import { contentName, manifestName, type SharedRepository, tagName } from '../objects/names.ts';

export interface LostContext {
  index: IndexStore;
  catalog: Catalog;
  sharedRepository: (key: RepositoryKey) => Promise<SharedRepository | undefined>;
}

/**
 * Forgets that a digest, and the records that are about it, are in the store.
 *
 * @returns what this node has of it, as it was written to the index once: now it waits to be uploaded
 * @throws {StorageError}
 */
export async function forgetLost(
  digest: Digest,
  { index, catalog, sharedRepository }: LostContext,
): Promise<IndexChange[]> {
  const names = [contentName(digest)];
  const kept: IndexChange[] = [];
  const record = await catalog.get(digest);
  if (record !== undefined) kept.push({ put: 'content', digest, value: record });
  if (record?.mediaType !== undefined)
    for await (const [key, value] of index.permissions(digest)) {
      const repository = await sharedRepository(key);
      if (repository === undefined || value.expanded !== true) continue;
      names.push(manifestName(repository, digest));
      kept.push({ put: 'permission', key, digest, value });
      for await (const [tag, meaning] of index.tags(key)) {
        if (meaning.digest !== digest || meaning.isUnconfirmed === true) continue;
        names.push(tagName(repository, tag.tag, tag.accept));
        kept.push({ put: 'tag', key: tag, value: meaning });
      }
    }
  await index.write(names.map((name): IndexChange => ({ delete: 'object', name })));
  return kept;
}
