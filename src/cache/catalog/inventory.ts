/**
 * What is stored and in which order it was last used; all of it in memory, so that a hit asks no disk.
 *
 * Invariant: what a manifest lists was used after the manifest itself. Removing the least recently used first therefore
 * removes a manifest before its blobs, and a manifest that is still here is complete.
 */
import { LRUCache } from 'lru-cache';
import type { Digest } from '../../oci/digest.ts';
import { MAX_MANIFEST_DEPTH } from '../../oci/manifest.ts';
import type { Metrics } from '../../telemetry/metrics.ts';
import type { ContentRecord } from '../index/index-store.ts';

/** Uses that wait to be put in order. More are put in order at once, so that memory has a bound. */
const MOST_PENDING = 4096;
const HEIGHTS = 16;

interface Use {
  /** Uses are counted: several may have the same time. */
  order: number;
  /** Milliseconds since the epoch. */
  at: number;
}

/** What was recorded, in the order of the digests. In two arrays, because a million pairs would take 60 MB. */
export interface Contents {
  digests: Digest[];
  /** That of `digests[n]` is `records[n]`. */
  records: ContentRecord[];
}

export class Inventory {
  // The disk is the bound, not a number of records. A size for each lets lru-cache do without a maximum, and add them up.
  readonly #records = new LRUCache<Digest, ContentRecord>({
    maxSize: Number.MAX_SAFE_INTEGER,
    sizeCalculation: ({ allocated }) => allocated + 1,
  });
  /**
   * The last use of what was used since the order was last settled. A manifest with hundreds of blobs that is asked for
   * thousands of times a second is put in order once, when somebody wants to know the order.
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
    // Records of one use have one time: then what lists others comes first, for the invariant. We sort arrays of numbers,
    // because sorting a million pairs takes longer than reading them.
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
    const record = this.#records.peek(digest);
    if (record !== undefined) record.usedAt = this.#pending.get(digest)?.at ?? record.usedAt;
    return record;
  }

  /** Adds what was stored just now, or replaces what was known of it. */
  add(digest: Digest, record: ContentRecord): void {
    this.#settle(); // earlier uses were of what was known then
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

  /** Notes that `digest` is asked for, and with it all that it lists. */
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

  /** The records whose use has changed since this was last called. */
  takeUsed(): [Digest, ContentRecord][] {
    this.#settle();
    const taken = [...this.#used].flatMap((digest): [Digest, ContentRecord][] => {
      const record = this.#records.peek(digest);
      return record === undefined ? [] : [[digest, record]];
    });
    this.#used.clear();
    return taken;
  }

  /** From the least recently used on. */
  *oldestFirst(): Iterable<[Digest, Readonly<ContentRecord>]> {
    this.#settle();
    yield* this.#records.rentries() as Iterable<[Digest, ContentRecord]>;
  }

  /** `digest` and all below it that is here. What lists others comes before them. */
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

  /** The manifests that list one of `digests`, for each of them. Looks at every manifest: for rare cases only. */
  parentsOf(digests: Iterable<Digest>): Map<Digest, Digest[]> {
    const parents = new Map<Digest, Digest[]>();
    for (const digest of digests) parents.set(digest, []);
    for (const [parent, { children = [] }] of this.oldestFirst()) {
      for (const child of children) parents.get(child)?.push(parent);
    }
    return parents;
  }

  /** Puts the uses that are pending in order. */
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
 * How many levels of manifests each record stands on: 0 for a blob, 1 for an image, 2 for an index.
 *
 * On the way, digests in lists become the very strings that are the keys: a second copy of a million would be too much.
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
