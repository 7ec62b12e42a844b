import type { Mutation } from '../mutation.ts';

const CHECKED = 'src/cache/store/checked-reader.ts';
const FS_STORE = 'src/cache/store/fs-store.ts';
const SUMS = 'src/cache/store/content-sums.ts';
const FAULTS = 'src/cache/store/storage-faults.ts';
const INDEX = 'src/cache/index/level-index.ts';
const CHECKED_TESTS = ['test/unit/cache/checked-reader.test.ts'];
const STORE_SUITE = ['test/conformance/content-store.test.ts'];
const CONTENT_TESTS = ['test/unit/cache/content-cache.test.ts'];
const DISK_TESTS = ['test/fault/disk.test.ts'];
const INDEX_SUITE = ['test/conformance/index-store.test.ts'];

export const cacheStore: readonly Mutation[] = [
  {
    file: CHECKED,
    replace: 'this.#gapless = false;',
    by: '',
    promise: 'content of which a block was left out is not taken for checked',
    tests: CHECKED_TESTS,
  },
  {
    file: CHECKED,
    replace: 'if (!actual.equals(expected)) {',
    by: 'if (false) {',
    promise: 'a damaged block ends the reply before its last byte',
    tests: CHECKED_TESTS,
  },
  {
    file: CHECKED,
    replace: 'if (position + length === end) await this.#finishBlock(this.#sums);',
    by: '',
    promise: 'a range is checked to the end of the block that it ends in',
    tests: CHECKED_TESTS,
  },
  {
    file: CHECKED,
    replace: 'if (sums === undefined && reader.file !== undefined) this.file = reader.file;',
    by: 'if (reader.file !== undefined) this.file = reader.file;',
    promise: 'a front server sends only what was checked',
    tests: CHECKED_TESTS,
  },
  {
    file: FS_STORE,
    replace: 'await this.#fs.chmod(path, 0o444);',
    by: '',
    promise: 'a committed file is read-only',
    tests: STORE_SUITE,
  },
  {
    file: FS_STORE,
    replace: "if (bytesRead === 0 && length > 0) throw new Error('the file is shorter than it was');",
    by: '',
    promise: 'a file that is shorter than it was ends its readers',
    tests: STORE_SUITE,
  },
  {
    file: SUMS,
    replace: "if (actual !== digest) throw new ContentError('digest-mismatch', digest, digest, actual);",
    by: '',
    promise: 'content without sums is checked by its digest',
    tests: CONTENT_TESTS,
  },
  {
    file: FAULTS,
    replace: 'if (loggedAt !== undefined && Math.abs(now - loggedAt) < LOG_INTERVAL_MS) return;',
    by: '',
    promise: 'trouble of one kind is logged once a minute',
    tests: DISK_TESTS,
  },
  {
    file: INDEX,
    replace: 'this.#recent.delete(key);',
    by: '',
    promise: 'a record that was replaced is not remembered as it was',
    tests: INDEX_SUITE,
  },
  {
    file: INDEX,
    replace: 'this.#recentSums.delete(key);',
    by: '',
    promise: 'sums that were replaced are not remembered',
    tests: INDEX_SUITE,
  },
  {
    file: INDEX,
    replace: "throw new StorageError('index', error);\n    } finally {\n      // Forgets",
    by: '} finally {\n      // Forgets',
    promise: 'a record that could not be written is told as such',
    tests: INDEX_SUITE,
  },
];
