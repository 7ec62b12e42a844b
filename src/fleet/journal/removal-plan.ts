/** Decides what goes with an image that is removed from a repository of the fleet. Pure. */
import type { Digest } from '../../oci/digest.ts';
import { isDigest, type Reference, type Tag } from '../../oci/reference.ts';

/** What is known of a repository, here and in the store. */
export interface RepositoryView {
  /** A tag may have several meanings: for clients that accept other types, or because a node knows an older one. */
  tags: readonly { tag: Tag; digest: Digest }[];
  /** What each manifest lists. */
  lists: ReadonlyMap<Digest, readonly Digest[]>;
}

export interface RemovalPlan {
  tags: Tag[];
  /** What the repository may not serve any more. A manifest comes before what it lists. */
  digests: Digest[];
}

/** As on one node: what another tag means, or another manifest of the repository lists, stays. */
export function planRemoval({ tags, lists }: RepositoryView, reference: Reference): RemovalPlan {
  const isMeant = (one: { tag: Tag; digest: Digest }) => one.tag === reference || one.digest === reference;
  const meant = tags.filter(isMeant);
  const tagged = new Set(tags.filter((one) => !isMeant(one)).map(({ digest }) => digest));
  const parents = new Map<Digest, Digest[]>();
  for (const [manifest, listed] of lists)
    for (const digest of listed) parents.set(digest, [...(parents.get(digest) ?? []), manifest]);

  const gone = new Set<Digest>();
  const isNeeded = (digest: Digest) =>
    tagged.has(digest) || (parents.get(digest) ?? []).some((parent) => !gone.has(parent));
  for (const digest of isDigest(reference) ? [reference] : meant.map((one) => one.digest))
    if (!isNeeded(digest)) gone.add(digest);
  for (let before = -1; before < gone.size; ) {
    before = gone.size;
    for (const manifest of gone)
      for (const digest of lists.get(manifest) ?? []) if (!isNeeded(digest)) gone.add(digest);
  }
  return { tags: [...new Set(meant.map(({ tag }) => tag))], digests: [...gone] };
}
