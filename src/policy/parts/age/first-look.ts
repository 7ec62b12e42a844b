/** What is in the cache when a policy begins was seen before it: the first day of the policy stops nothing that is there. */
import type { Catalog } from '../../../cache/catalog/catalog.ts';
import type { IndexStore } from '../../../cache/index/index-store.ts';
import { LONG_AGO, type Sightings } from './sightings.ts';

/** A policy, as far as it is of interest here. */
interface Beginning {
  name: string;
  isAboutAge: boolean;
  matches: (name: string) => boolean;
}

/**
 * Does nothing for policies that have begun before.
 *
 * @throws {StorageError} the index cannot be read
 */
export async function noteWhatIsCached(
  policies: readonly Beginning[],
  sightings: Sightings,
  { catalog, index }: { catalog: Catalog; index: IndexStore },
): Promise<void> {
  const beginning = policies.filter(({ name, isAboutAge }) => isAboutAge && !sightings.hasBegun(name));
  if (beginning.length === 0) return;
  const isMeant = (name: string) => beginning.some((policy) => policy.matches(name));
  for await (const [digest] of catalog.manifests()) {
    for await (const [key, { expanded }] of index.permissions(digest)) {
      if (expanded === true && isMeant(`${key.upstream}/${key.repository}`))
        void sightings.note(key, [digest], undefined, LONG_AGO);
    }
  }
  for await (const [{ tag, ...key }, { digest }] of index.tags()) {
    const isStored = (await catalog.get(digest))?.mediaType !== undefined;
    if (isStored && isMeant(`${key.upstream}/${key.repository}`))
      void sightings.note(key, [digest], tag, LONG_AGO);
  }
  for (const { name } of beginning) await sightings.begin(name);
}
