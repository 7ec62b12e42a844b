/**
 * Keeps the records of all content, in the order of its last use. They are in memory, so that a hit needs no disk.
 *
 * Invariant: content that a manifest lists counts as used after the manifest itself. Eviction therefore removes a
 * manifest before its blobs, and a manifest that is stored is complete.
 */
import { LRUCache } from 'lru-cache';
import type { Digest } from '../../oci/digest.ts';
import { MAX_MANIFEST_DEPTH } from '../../oci/manifest.ts';
import type { Metrics } from '../../telemetry/metrics.ts';
import type { ContentRecord } from '../index/index-store.ts';

/** Limits the memory of pending uses: when there are more, they are put in order at once. */
const MOST_PENDING = 4096;
const HEIGHTS = 16;

interface Use {
  /** Uses are counted: several may have the same time. */
  order: number;
  /** Milliseconds since the epoch. */
  at: number;
}

/** The recorded content, in the order of the digests. In two arrays, because a million pairs would take 60 MB. */
export interface Contents {
  digests: Digest[];
  /** `records[n]` belongs to `digests[n]`. */
  records: ContentRecord[];
}

export class Inventory {
  // The disk limits the number of records. lru-cache needs no maximum if each has a size, and it adds the sizes up.
  readonly #records = new LRUCache<Digest, ContentRecord>({
    maxSize: Number.MAX_SAFE_INTEGER,
    sizeCalculation: ({ allocated }) => allocated + 1,
  });
  /**
   * The last uses that are not in order yet. They are put in order only when a caller needs the order. So a manifest with
   * hundreds of blobs that is used thousands of times a second is put in order once.
   *
   * A use changes its entry in place. To delete it and add it again at the end costs 30 MiB of memory under hits.
   */
  readonly #pending = new Map<Digest, Use>();
  #uses = 0;
  /** Records whose use has not been written to the index yet. */
  readonly #used = new Set<Digest>();
  readonly #metrics: Metrics;

  constructor(metrics: Metrics) {
    this.#metrics = metrics;
  }

  load({ digests, records }: Contents): void {
    const heights = heightsOf(digests, records);
    // A manifest and what it lists may have the same time of use. The manifest must come first, for the invariant.
    // Sorts arrays of numbers, because sorting a million pairs takes longer than reading them.
    const keys = Float64Array.from(records, ({ usedAt }, at) => (usedAt + 1) * HEIGHTS - (heights[at] ?? 0));
    const order = Uint32Array.from(records.keys()).sort((a, b) => (keys[a] ?? 0) - (keys[b] ?? 0));
    for (const at of order) {
      const [digest, record] = [digests[at], records[at]];
      if (digest !== undefined && record !== undefined) this.#records.set(digest, record);
    }
    this.#publish();
  }

  /** Bytes that stored content takes. */
  get bytes(): number {
    return this.#records.calculatedSize - this.#records.size;
  }

  get objects(): number {
    return this.#records.size;
  }

  get(digest: Digest): Readonly<ContentRecord> | undefined {
    const record = this.#records.peek(digest);
    if (record !== undefined) record.usedAt = this.#pending.get(digest)?.at ?? record.usedAt;
    return record;
  }

  /** Adds or replaces a record. */
  add(digest: Digest, record: ContentRecord): void {
    this.#settle(); // first, because earlier uses belong to the old record
    this.#records.set(digest, record);
    this.touch(digest, record.usedAt);
    this.#settle();
    this.#publish();
  }

  delete(digest: Digest): void {
    this.#settle();
    this.#records.delete(digest);
    this.#used.delete(digest);
    this.#publish();
  }

  /** Notes a use of `digest` and of all that it lists. */
  touch(digest: Digest, now: number): void {
    this.#uses += 1;
    const pending = this.#pending.get(digest);
    if (pending !== undefined) {
      pending.order = this.#uses;
      pending.at = now;
      return;
    }
    this.#pending.set(digest, { order: this.#uses, at: now });
    if (this.#pending.size > MOST_PENDING) this.#settle();
  }

  /** Returns the records that were used since the last call. */
  takeUsed(): [Digest, ContentRecord][] {
    this.#settle();
    const taken = [...this.#used].flatMap((digest): [Digest, ContentRecord][] => {
      const record = this.#records.peek(digest);
      return record === undefined ? [] : [[digest, record]];
    });
    this.#used.clear();
    return taken;
  }

  /** All records, the least recently used first. */
  *oldestFirst(): Iterable<[Digest, Readonly<ContentRecord>]> {
    this.#settle();
    yield* this.#records.rentries() as Iterable<[Digest, ContentRecord]>;
  }

  /** `digest` and all stored content below it. A manifest comes before what it lists. */
  closure(digest: Digest): Digest[] {
    const seen = new Set<Digest>();
    const childrenFirst: Digest[] = [];
    const visit = (at: Digest, depth: number): void => {
      const record = this.#records.peek(at);
      if (record === undefined || seen.has(at)) return;
      seen.add(at);
      if (depth < MAX_MANIFEST_DEPTH) for (const child of record.children ?? []) visit(child, depth + 1);
      childrenFirst.push(at);
    };
    visit(digest, 0);
    return childrenFirst.toReversed();
  }

  /** For each of `digests`, the manifests that list it. Looks at every manifest, so it is for rare cases only. */
  parentsOf(digests: Iterable<Digest>): Map<Digest, Digest[]> {
    const parents = new Map<Digest, Digest[]>();
    for (const digest of digests) parents.set(digest, []);
    for (const [parent, { children = [] }] of this.oldestFirst()) {
      for (const child of children) parents.get(child)?.push(parent);
    }
    return parents;
  }

  /** Puts pending uses in order. */
  #settle(): void {
    if (this.#pending.size === 0) return;
    const inOrder = [...this.#pending].sort(([, a], [, b]) => a.order - b.order);
    this.#pending.clear();
    for (const [touched, { at }] of inOrder) {
      for (const digest of this.closure(touched)) {
        const record = this.#records.get(digest); // makes it the most recent
        if (record === undefined) continue;
        record.usedAt = at;
        this.#used.add(digest);
      }
    }
  }

  #publish(): void {
    this.#metrics.storeBytes.set(this.bytes);
    this.#metrics.storeObjects.set(this.#records.size);
  }
}

/**
 * Counts the levels below each record: 0 for a blob, 1 for an image, 2 for an index.
 *
 * Also replaces the digests in lists by the string objects of the keys, because a second copy of a million takes too
 * much memory.
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
