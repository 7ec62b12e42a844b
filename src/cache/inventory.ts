/** What is stored, by digest: the sums behind the store metrics, without asking the disk. */
import type { Digest } from '../oci/digest.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import type { IndexStore } from './index-store.ts';

export class Inventory {
  readonly #sizeByDigest = new Map<Digest, number>();
  readonly #metrics: Metrics;
  #bytes = 0;

  private constructor(metrics: Metrics) {
    this.#metrics = metrics;
  }

  /** @throws {StorageError} the index cannot be read */
  static async load(index: IndexStore, metrics: Metrics): Promise<Inventory> {
    const inventory = new Inventory(metrics);
    for await (const [digest, { size }] of index.contents()) inventory.#put(digest, size);
    inventory.#publish();
    return inventory;
  }

  /** @param size bytes */
  add(digest: Digest, size: number): void {
    this.#put(digest, size);
    this.#publish();
  }

  delete(digest: Digest): void {
    this.#bytes -= this.#sizeByDigest.get(digest) ?? 0;
    this.#sizeByDigest.delete(digest);
    this.#publish();
  }

  #put(digest: Digest, size: number): void {
    this.#bytes += size - (this.#sizeByDigest.get(digest) ?? 0);
    this.#sizeByDigest.set(digest, size);
  }

  #publish(): void {
    this.#metrics.storeBytes.set(this.#bytes);
    this.#metrics.storeObjects.set(this.#sizeByDigest.size);
  }
}
