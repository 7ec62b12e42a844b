/**
 * What is stored and in which order it was last used; all of it in memory, so that a hit asks no disk.
 *
 * Invariant: what a manifest lists was used after the manifest itself. Whoever removes the least recently used first
 * therefore removes a manifest before its blobs, and a manifest that is still here is complete.
 */
import { LRUCache } from 'lru-cache';
import type { Digest } from '../../oci/digest.ts';
import type { Metrics } from '../../telemetry/metrics.ts';
import type { ContentRecord } from '../index/index-store.ts';

/** Uses within this time count as one: a manifest with hundreds of blobs may be asked for thousands of times a second. */
const SAME_USE_MS = 1000;

/** An index of indexes of indexes is somebody's attempt to keep us busy. */
const MAX_DEPTH = 8;
const HEIGHTS = 16;

/** What was recorded, in the order of the digests; in two arrays, for a million pairs would take 60 MB. */
export interface Contents {
  digests: Digest[];
  /** That of `digests[n]` is `records[n]`. */
  records: ContentRecord[];
}

export class Inventory {
  // Bounded by the disk and not here; a size each is what lets lru-cache do without a maximum, and add them up.
  readonly #records = new LRUCache<Digest, ContentRecord>({
    maxSize: Number.MAX_SAFE_INTEGER,
    sizeCalculation: ({ allocated }) => allocated + 1,
  });
  /** Whose use has not been recorded yet. */
  readonly #used = new Set<Digest>();
  readonly #metrics: Metrics;

  constructor(metrics: Metrics) {
    this.#metrics = metrics;
  }

  load({ digests, records }: Contents): void {
    const heights = heightsOf(digests, records);
    // Those of one use have one time: then what lists others comes before them, for the invariant. Sorted in arrays of
    // numbers, for to sort a million pairs takes longer than to read them.
    const keys = Float64Array.from(records, ({ usedAt }, at) => (usedAt + 1) * HEIGHTS - (heights[at] ?? 0));
    const order = Uint32Array.from(records.keys()).sort((a, b) => (keys[a] ?? 0) - (keys[b] ?? 0));
    for (const at of order) {
      const [digest, record] = [digests[at], records[at]];
      if (digest !== undefined && record !== undefined) this.#records.set(digest, record);
    }
    this.#publish();
  }

  /** Bytes that are taken in the store. */
  get bytes(): number {
    return this.#records.calculatedSize - this.#records.size;
  }

  get objects(): number {
    return this.#records.size;
  }

  get(digest: Digest): Readonly<ContentRecord> | undefined {
    return this.#records.peek(digest);
  }

  /** Adds what was stored just now, or replaces what was known of it. */
  add(digest: Digest, record: ContentRecord): void {
    this.#records.set(digest, record);
    this.#use(digest, record.usedAt);
    this.#publish();
  }

  delete(digest: Digest): void {
    this.#records.delete(digest);
    this.#used.delete(digest);
    this.#publish();
  }

  /** Notes that `digest` is asked for, and with it all that it lists. */
  touch(digest: Digest, now: number): void {
    const record = this.#records.peek(digest);
    if (record !== undefined && Math.abs(now - record.usedAt) >= SAME_USE_MS) this.#use(digest, now);
  }

  /** The records whose use has changed since this was last called. */
  takeUsed(): [Digest, ContentRecord][] {
    const taken = [...this.#used].flatMap((digest): [Digest, ContentRecord][] => {
      const record = this.#records.peek(digest);
      return record === undefined ? [] : [[digest, record]];
    });
    this.#used.clear();
    return taken;
  }

  /** From the least recently used on. */
  *oldestFirst(): Iterable<[Digest, Readonly<ContentRecord>]> {
    yield* this.#records.rentries() as Iterable<[Digest, ContentRecord]>;
  }

  /** `digest` and all below it that is here; what lists others comes before them. */
  closure(digest: Digest): Digest[] {
    const seen = new Set<Digest>();
    const childrenFirst: Digest[] = [];
    const visit = (at: Digest, depth: number): void => {
      const record = this.#records.peek(at);
      if (record === undefined || seen.has(at)) return;
      seen.add(at);
      if (depth < MAX_DEPTH) for (const child of record.children ?? []) visit(child, depth + 1);
      childrenFirst.push(at);
    };
    visit(digest, 0);
    return childrenFirst.toReversed();
  }

  /** The manifests that list one of `digests`, for each of them. Looks at every manifest: for rare cases only. */
  parentsOf(digests: Iterable<Digest>): Map<Digest, Digest[]> {
    const parents = new Map<Digest, Digest[]>();
    for (const digest of digests) parents.set(digest, []);
    for (const [parent, { children = [] }] of this.oldestFirst()) {
      for (const child of children) parents.get(child)?.push(parent);
    }
    return parents;
  }

  #use(digest: Digest, now: number): void {
    for (const used of this.closure(digest)) {
      const record = this.#records.get(used); // which makes it the most recent
      if (record === undefined) continue;
      record.usedAt = now;
      this.#used.add(used);
    }
  }

  #publish(): void {
    this.#metrics.storeBytes.set(this.bytes);
    this.#metrics.storeObjects.set(this.#records.size);
  }
}

/**
 * How many levels of manifests stand on what each lists: 0 for a blob, 1 for an image, 2 for an index.
 *
 * On the way, digests in lists become the very strings that are the keys: a million times two would be too much.
 */
function heightsOf(digests: Contents['digests'], records: Contents['records']): Uint8Array {
  const heights = new Uint8Array(digests.length);
  const seen = new Uint8Array(digests.length);
  const visit = (at: number): number => {
    const record = records[at];
    if (record?.children === undefined || seen[at] === 1) return heights[at] ?? 0;
    seen[at] = 1;
    let below = 0;
    record.children = record.children.map((child) => {
      const place = search(digests, child);
      if (place === undefined) return child;
      below = Math.max(below, visit(place));
      return digests[place] ?? child;
    });
    heights[at] = Math.min(below + 1, HEIGHTS - 1);
    return heights[at];
  };
  for (const at of records.keys()) visit(at);
  return heights;
}

function search(digests: readonly Digest[], wanted: Digest): number | undefined {
  let [low, high] = [0, digests.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((digests[middle] ?? '') < wanted) low = middle + 1;
    else high = middle;
  }
  return digests[low] === wanted ? low : undefined;
}
