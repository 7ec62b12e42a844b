import type { Mutation } from '../mutation.ts';

const INGEST = 'src/cache/ingest/ingest.ts';
const SPOOL = 'src/cache/ingest/spool.ts';
const FOLLOWER = 'src/cache/ingest/following-reader.ts';
const CHECKED = 'src/cache/store/checked-reader.ts';
const CONTENT = 'src/cache/catalog/content-cache.ts';
const INVENTORY = 'src/cache/catalog/inventory.ts';
const SPACE = 'src/cache/catalog/space.ts';
const INGEST_TESTS = ['test/unit/cache/ingest.test.ts'];
const EVICTION_TESTS = ['test/mirror/eviction.test.ts'];

export const cache: readonly Mutation[] = [
  {
    file: INGEST,
    replace: 'this.#front.assertWhole();',
    by: '',
    promise: 'a blob is verified before it is handed over',
    tests: INGEST_TESTS,
  },
  {
    file: INGEST,
    replace: "if (this.front < size) throw new ContentError('truncated', this.digest, size, this.front);",
    by: '',
    promise: 'too few bytes are told as such',
    tests: INGEST_TESTS,
  },
  {
    file: INGEST,
    replace: 'if (this.#size !== undefined && end > this.#size)',
    by: 'if (false)',
    promise: 'bytes beyond the end of a blob are refused',
    tests: INGEST_TESTS,
  },
  {
    file: INGEST,
    replace: 'await this.#file.datasync();',
    by: '',
    promise: 'a blob is flushed to the disk before its record is written',
    tests: ['test/fault/disk.test.ts'],
  },
  {
    file: INGEST,
    replace: 'if (this.#ended && this.#followers.size === 0) await this.#file.close();',
    by: 'if (this.#ended) await this.#file.close();',
    promise: 'a file stays open as long as a follower reads it',
    tests: INGEST_TESTS,
  },
  {
    file: INGEST,
    replace: 'await this.#file.truncate(this.front);',
    by: '',
    promise: 'a partial blob has no holes behind its front',
    tests: ['test/mirror/segments.test.ts'],
  },
  {
    file: INGEST,
    replace: 'if (position === this.front && this.#readingBack === undefined) {',
    by: 'if (position === this.front) {',
    promise: 'no byte is hashed twice while parts are read back',
    tests: ['test/property/ingest.test.ts'],
  },
  {
    file: FOLLOWER,
    replace: 'const HOLD_BACK_BYTES = 64 * 1024;',
    by: 'const HOLD_BACK_BYTES = 0;',
    promise: 'the last bytes are held back until the digest has matched',
    tests: INGEST_TESTS,
  },
  {
    file: FOLLOWER,
    replace: 'return verified ? end : Math.min(front, Math.max(position, end - HOLD_BACK_BYTES));',
    by: 'return verified ? end : Math.min(front, end);',
    promise: 'a reply with wrong bytes is never complete',
    tests: INGEST_TESTS,
  },
  {
    file: FOLLOWER,
    replace: 'if (failure !== undefined) throw failure;',
    by: '',
    promise: 'every follower gets the cause of a failed fill',
    tests: INGEST_TESTS,
  },
  {
    file: 'src/cache/ingest/gathered-writer.ts',
    replace: "this.#failure = new StorageError('write', error);",
    by: '',
    promise: 'a write that failed fails the ingest',
    tests: INGEST_TESTS,
  },
  {
    file: SPOOL,
    replace: 'await file.datasync();',
    by: '',
    promise: 'a manifest is flushed to the disk before its record is written',
    tests: ['test/fault/disk.test.ts'],
  },
  {
    file: SPOOL,
    replace: "const tag = createHash('sha256').update(origin).digest('hex').slice(0, 16);",
    by: "const tag = '0'.repeat(16);",
    promise: 'what one upstream left is not gone on from by another',
    tests: ['test/mirror/foreign-fills.test.ts'],
  },
  {
    file: SPOOL,
    replace: 'if (!options.resumable || ingest.front < RESUME_MIN_BYTES) return await this.discard(path);',
    by: '',
    promise: 'wrong bytes are not a start for a resumed fetch',
    tests: INGEST_TESTS,
  },
  {
    file: SPOOL,
    replace: 'if (!(await this.#isResumable(entry.name))) await this.discard(path);',
    by: 'if (false) await this.discard(path);',
    promise: 'a start removes the litter of earlier runs',
    tests: INGEST_TESTS,
  },
  {
    file: CHECKED,
    replace: 'this.#gapless = false;',
    by: '',
    promise: 'content of which a block was left out is not taken for checked',
    tests: ['test/unit/cache/checked-reader.test.ts'],
  },
  {
    file: CHECKED,
    replace: 'if (!actual.equals(expected)) {',
    by: 'if (false) {',
    promise: 'a damaged block ends the reply before its last byte',
    tests: ['test/unit/cache/checked-reader.test.ts'],
  },
  {
    file: CHECKED,
    replace: 'if (position + length === end) await this.#finishBlock(this.#sums);',
    by: '',
    promise: 'a range is checked to the end of the block that it ends in',
    tests: ['test/unit/cache/checked-reader.test.ts'],
  },
  {
    file: CHECKED,
    replace: 'if (sums === undefined && reader.file !== undefined) this.file = reader.file;',
    by: 'if (reader.file !== undefined) this.file = reader.file;',
    promise: 'a front server sends only what was checked',
    tests: ['test/unit/cache/checked-reader.test.ts'],
  },
  {
    file: 'src/cache/store/storage-faults.ts',
    replace: 'if (loggedAt !== undefined && Math.abs(now - loggedAt) < LOG_INTERVAL_MS) return;',
    by: '',
    promise: 'trouble of one kind is logged once a minute',
    tests: ['test/fault/disk.test.ts'],
  },
  {
    file: CONTENT,
    replace: 'await catalog.settled(digest);',
    by: '',
    promise: 'content that comes back while it is removed is here afterwards',
    tests: ['test/unit/cache/content-cache.test.ts'],
  },
  {
    file: CONTENT,
    replace: 'if (checked?.version !== version) return false;',
    by: 'if (checked === undefined) return false;',
    promise: 'a file that was written to is checked again',
    tests: ['test/fault/damaged-content.test.ts'],
  },
  {
    file: CONTENT,
    replace: 'if (actual === digest) return bytes;',
    by: 'return bytes;',
    promise: 'a manifest is checked by its digest whenever it is read',
    tests: ['test/fault/damaged-content.test.ts'],
  },
  {
    file: CONTENT,
    replace: 'await catalog.remove([digest, ...(images ?? [])]);',
    by: 'await catalog.remove([digest]);',
    promise: 'an image manifest whose blob is damaged is forgotten with it',
    tests: ['test/fault/damaged-content.test.ts'],
  },
  {
    file: CONTENT,
    replace: 'const origin = kind.origin ?? (await catalog.get(digest))?.origin;',
    by: 'const origin = kind.origin;',
    promise: 'imported content stays imported',
    tests: ['test/unit/cache/content-cache.test.ts'],
  },
  {
    file: INVENTORY,
    replace: 'pending.order = this.#uses;',
    by: '',
    promise: 'what is used again is used last',
    tests: ['test/unit/cache/inventory.test.ts'],
  },
  {
    file: INVENTORY,
    replace: 'return childrenFirst.toReversed();',
    by: 'return childrenFirst;',
    promise: 'a manifest is evicted before its blobs',
    tests: ['test/unit/cache/inventory.test.ts'],
  },
  {
    file: INVENTORY,
    replace:
      'const keys = Float64Array.from(records, ({ usedAt }, at) => (usedAt + 1) * HEIGHTS - (heights[at] ?? 0));',
    by: 'const keys = Float64Array.from(records, (_, at) => at);',
    promise: 'the least recently used goes first after a restart too',
    tests: EVICTION_TESTS,
  },
  {
    file: SPACE,
    replace: 'if (this.used + bytes > hard) throw noRoom(bytes, hard);',
    by: '',
    promise: 'nothing is stored above the hard limit',
    tests: EVICTION_TESTS,
  },
  {
    file: SPACE,
    replace: 'if (this.used > this.#settings.maxBytes) void this.#evict(0);',
    by: '',
    promise: 'eviction begins above maxSize',
    tests: EVICTION_TESTS,
  },
];
