/** A catalog that answers from a map: the second implementation that keeps the port honest. */
import type { Catalog } from '../../src/cache/catalog/catalog.ts';
import type { ContentOrigin, ContentRecord } from '../../src/cache/index/index-store.ts';
import type { Digest } from '../../src/oci/digest.ts';

export class MapCatalog implements Catalog {
  readonly records = new Map<Digest, ContentRecord>();
  readonly touched: Digest[] = [];
  readonly held = new Map<Digest, number>();

  async get(digest: Digest): Promise<ContentRecord | undefined> {
    return this.records.get(digest);
  }

  touch(digest: Digest): void {
    this.touched.push(digest);
  }

  hold(digest: Digest): () => void {
    this.held.set(digest, (this.held.get(digest) ?? 0) + 1);
    let released = false;
    return () => {
      if (!released) this.held.set(digest, (this.held.get(digest) ?? 0) - 1);
      released = true;
    };
  }

  async closure(digest: Digest): Promise<Digest[]> {
    const record = this.records.get(digest);
    if (record === undefined) return [];
    const below = await Promise.all((record.children ?? []).map((child) => this.closure(child)));
    return [digest, ...new Set(below.flat())];
  }

  async parentsOf(digests: Iterable<Digest>): Promise<Map<Digest, Digest[]>> {
    const manifests = [...this.records];
    const listing = (digest: Digest) =>
      manifests.flatMap(([at, { children = [] }]) => (children.includes(digest) ? [at] : []));
    return new Map([...digests].map((digest) => [digest, listing(digest)]));
  }

  async *manifests(): AsyncIterable<[Digest, ContentRecord]> {
    for (const [digest, record] of this.records) if (record.mediaType !== undefined) yield [digest, record];
  }

  async setOrigin(digests: Iterable<Digest>, origin: ContentOrigin): Promise<void> {
    for (const digest of digests) {
      const known = this.records.get(digest);
      if (known === undefined) continue;
      const { origin: _before, ...record } = known;
      this.records.set(digest, origin === 'mirrored' ? record : { ...record, origin });
    }
  }

  async remove(digests: readonly Digest[]): Promise<number> {
    let bytes = 0;
    for (const digest of digests) {
      bytes += this.records.get(digest)?.allocated ?? 0;
      this.records.delete(digest);
    }
    return bytes;
  }
}
