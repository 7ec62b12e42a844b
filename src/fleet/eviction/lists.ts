/**
 * What manifests of the store list, so that none leaves after its blobs: a use of a manifest counts for all that it lists,
 * on whatever node it was.
 *
 * Digests are numbers here, of their first 52 bits: the lists of a store with a million objects then take some ten
 * megabytes. Two digests that begin the same way would only keep each other longer.
 */
import { setImmediate } from 'node:timers/promises';
import { type Digest, digestHex } from '../../oci/digest.ts';
import { MAX_MANIFEST_DEPTH } from '../../oci/manifest.ts';

const KEY_DIGITS = 13;
/** Lists that are gone through before clients get their turn. */
const AT_A_TIME = 1_000;

export function keyOf(digest: Digest): number {
  return Number.parseInt(digestHex(digest).slice(0, KEY_DIGITS), 16);
}

/** What a manifest lists. */
type List = readonly [manifest: number, listed: Float64Array];

export class Lists {
  /** The manifests that list others come before those. */
  readonly #lists: readonly List[];
  readonly #heights: ReadonlyMap<number, number>;

  private constructor(lists: readonly List[], heights: ReadonlyMap<number, number>) {
    this.#lists = lists;
    this.#heights = heights;
  }

  static async of(listsByManifest: ReadonlyMap<Digest, Float64Array>): Promise<Lists> {
    const lists = [...listsByManifest].map(([digest, listed]): List => [keyOf(digest), listed]);
    const heights = new Map(lists.map(([manifest]) => [manifest, 1]));
    for (let depth = 1, rises = true; rises && depth < MAX_MANIFEST_DEPTH; depth += 1) {
      rises = false;
      for await (const [manifest, listed] of inTurns(lists)) {
        const own = heights.get(manifest) ?? 0;
        if (!listed.some((one) => (heights.get(one) ?? 0) >= own)) continue;
        heights.set(manifest, depth + 1);
        rises = true;
      }
    }
    const height = ([manifest]: List) => heights.get(manifest) ?? 0;
    return new Lists(
      lists.sort((a, b) => height(b) - height(a)),
      heights,
    );
  }

  /** Levels below it: 0 for a blob, 1 for an image, 2 for an index. */
  heightOf(key: number): number {
    return this.#heights.get(key) ?? 0;
  }

  /** Lets each use of a manifest count for what it lists. @param usedAt of manifests; changed */
  async passDown(usedAt: Map<number, number>): Promise<void> {
    for await (const [manifest, listed] of inTurns(this.#lists)) {
      const own = usedAt.get(manifest) ?? 0;
      for (const one of listed) if ((usedAt.get(one) ?? 0) < own) usedAt.set(one, own);
    }
  }

  /** The manifests that list each of `keys`. */
  async parentsOf(keys: ReadonlySet<number>): Promise<Map<number, number[]>> {
    const parents = new Map<number, number[]>();
    for await (const [manifest, listed] of inTurns(this.#lists))
      for (const one of listed) {
        if (!keys.has(one)) continue;
        const known = parents.get(one);
        if (known === undefined) parents.set(one, [manifest]);
        else known.push(manifest);
      }
    return parents;
  }
}

async function* inTurns(lists: readonly List[]): AsyncGenerator<List> {
  for (const [at, list] of lists.entries()) {
    if (at % AT_A_TIME === AT_A_TIME - 1) await setImmediate();
    yield list;
  }
}
