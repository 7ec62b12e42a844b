/** Removes the least recently used content, except content that is held, pinned, or must not be lost. */
import type { Clock } from '../../clock.ts';
import type { Digest } from '../../oci/digest.ts';
import type { Metrics } from '../../telemetry/metrics.ts';
import type { ContentRecord } from '../index/index-store.ts';
import type { LocalCatalog } from './local-catalog.ts';
import type { Pins } from './pins.ts';

const VICTIMS_AT_A_TIME = 256;

export interface EvictorSettings {
  /** Evicts imported and pushed content, too. Perhaps no upstream has it. */
  evictImported: boolean;
  /** False while the mirror is sealed: it could not fetch evicted content again. */
  evicts: () => boolean;
}

export interface EvictorContext {
  catalog: LocalCatalog;
  pins: Pick<Pins, 'content'>;
  metrics: Metrics;
  clock: Clock;
}

export interface Evicted {
  objects: number;
  /** Bytes that were freed. */
  bytes: number;
}

export class Evictor {
  readonly #settings: EvictorSettings;
  readonly #context: EvictorContext;

  constructor(settings: EvictorSettings, context: EvictorContext) {
    this.#settings = settings;
    this.#context = context;
  }

  get evicts(): boolean {
    return this.#settings.evicts();
  }

  /**
   * Evicts until there is no excess, or nothing more may be evicted.
   *
   * @param excess bytes above the goal; called again after every round
   * @throws {StorageError}
   */
  async evict(excess: () => number): Promise<Evicted> {
    const { catalog, pins, metrics, clock } = this.#context;
    const total: Evicted = { objects: 0, bytes: 0 };
    const pinned = await pins.content();
    for (let left = excess(); left > 0; left = excess()) {
      const victims = this.#victims(left, pinned);
      if (victims.length === 0) break;
      const bytes = await catalog.remove(victims.map(([digest]) => digest));
      total.objects += victims.length;
      total.bytes += bytes;
      metrics.evictions.inc(victims.length);
      metrics.evictedBytes.inc(bytes);
      const now = clock.now();
      for (const [, { usedAt }] of victims) metrics.evictionIdle.observe(Math.max(0, now - usedAt) / 1000);
    }
    return total;
  }

  #victims(bytes: number, pinned: ReadonlySet<Digest>): [Digest, Readonly<ContentRecord>][] {
    const { catalog } = this.#context;
    const victims: [Digest, Readonly<ContentRecord>][] = [];
    let left = bytes;
    for (const [digest, record] of catalog.oldestFirst()) {
      if (left <= 0 || victims.length === VICTIMS_AT_A_TIME) break;
      if (catalog.isHeld(digest) || pinned.has(digest) || this.#isKept(record)) continue;
      victims.push([digest, record]);
      left -= record.allocated;
    }
    return victims;
  }

  #isKept({ origin }: ContentRecord): boolean {
    return origin !== undefined && !this.#settings.evictImported;
  }
}
