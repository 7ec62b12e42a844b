/**
 * What is stored and in which order it was last used; all of it in memory, so that a hit asks no disk.
 *
 * Invariant: what a manifest lists was used after the manifest itself. Whoever removes the least recently used first
 * therefore removes a manifest before its blobs, and a manifest that is still here is complete.
 */
import { LRUCache } from 'lru-cache';
import type { Digest } from '../oci/digest.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import type { ContentRecord } from './index-store.ts';

/** Uses within this time count as one: a manifest with hundreds of blobs may be asked for thousands of times a second. */
const SAME_USE_MS = 1000;

/** An index of indexes of indexes is somebody's attempt to keep us busy. */
const MAX_DEPTH = 8;

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

  /** @param records in any order */
  load(records: [Digest, ContentRecord][]): void {
    // Those of one use have one time: then what lists others comes before them, for the invariant.
    const heights = new Map<Digest, number>();
    const listing = new Map(records.filter(([, { children }]) => children !== undefined));
    const height = (digest: Digest): number => {
      const children = listing.get(digest)?.children;
      if (children === undefined) return 0;
      const known = heights.get(digest);
      if (known !== undefined) return known;
      heights.set(digest, 1);
      const above = 1 + children.reduce((most, child) => Math.max(most, height(child)), 0);
      heights.set(digest, above);
      return above;
    };
    for (const digest of listing.keys()) height(digest);
    records.sort(
      ([a, { usedAt }], [b, other]) => usedAt - other.usedAt || (heights.get(b) ?? 0) - (heights.get(a) ?? 0),
    );
    for (const [digest, record] of records) this.#records.set(digest, record);
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

  /** The manifests that list `digest` itself. Looks at every one: for rare cases only. */
  *parents(digest: Digest): Iterable<Digest> {
    for (const [parent, { children }] of this.oldestFirst()) {
      if (children?.includes(digest) === true) yield parent;
    }
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
