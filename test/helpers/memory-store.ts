/** A content store without a disk: the second implementation that keeps the interface honest. */
import { readFile, unlink } from 'node:fs/promises';
import type { ContentStore, StoredContent, StoredReader } from '../../src/cache/store/content-store.ts';
import type { Digest } from '../../src/oci/digest.ts';

export class MemoryStore implements ContentStore {
  readonly #bytesByDigest = new Map<Digest, Buffer>();

  async open(digest: Digest): Promise<StoredReader | undefined> {
    const bytes = this.#bytesByDigest.get(digest);
    if (bytes === undefined) return undefined;
    return {
      size: bytes.length,
      version: 'the only one',
      read: async (target, position, end) =>
        bytes.copy(target, 0, position, Math.min(end, position + target.length)),
      close: async () => {},
    };
  }

  async stat(digest: Digest): Promise<StoredContent | undefined> {
    const size = this.#bytesByDigest.get(digest)?.length;
    return size === undefined ? undefined : { size, allocated: size, storedAt: 0 };
  }

  async commit(digest: Digest, path: string): Promise<StoredContent> {
    const bytes = await readFile(path);
    this.#bytesByDigest.set(digest, bytes);
    await unlink(path);
    return { size: bytes.length, allocated: bytes.length, storedAt: 0 };
  }

  async delete(digest: Digest): Promise<void> {
    this.#bytesByDigest.delete(digest);
  }

  async *list(): AsyncIterable<Digest> {
    yield* this.#bytesByDigest.keys();
  }
}
