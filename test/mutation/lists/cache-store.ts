import type { Mutation } from '../mutation.ts';

const CHECKED = 'src/cache/store/checked-reader.ts';
const FS_STORE = 'src/cache/store/fs-store.ts';
const SUMS = 'src/cache/store/content-sums.ts';
const FAULTS = 'src/cache/store/storage-faults.ts';
const INDEX = 'src/cache/index/level-index.ts';
const FILE_MODES = 'src/cache/store/file-modes.ts';
const CHECKED_TESTS = ['test/unit/cache/checked-reader.test.ts'];
const STORE_SUITE = ['test/conformance/content-store.test.ts'];
const CONTENT_TESTS = ['test/unit/cache/content-cache.test.ts'];
const DISK_TESTS = ['test/fault/disk.test.ts'];
const FILE_MODES_TESTS = ['test/unit/cache/file-modes.test.ts'];
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
    replace: 'await protectFile(path, this.#fs, this.#group);',
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
    file: FS_STORE,
    replace: 'isShared(stats, this.#group) ? relativePath(digest) : undefined',
    by: 'relativePath(digest)',
    promise: 'a file that the front server cannot read is not handed over',
    tests: FILE_MODES_TESTS,
  },
  {
    file: FS_STORE,
    replace: 'await this.#share(digest);',
    by: '',
    promise: 'a file that was stored without a group is opened to it when it is next read',
    tests: FILE_MODES_TESTS,
  },
  {
    file: FILE_MODES,
    replace: 'await fs.chmod(path, CLOSED_FOLDER);',
    by: '',
    promise: 'an old directory is closed at the first start',
    tests: FILE_MODES_TESTS,
  },
  {
    file: FILE_MODES,
    replace: "await setFolderMode(join(directory, 'blobs'), fs, SHARED_FOLDER, group);",
    by: '',
    promise: 'blobs/ is closed even if the directory belongs to another user',
    tests: FILE_MODES_TESTS,
  },
  {
    file: FILE_MODES,
    replace: 'if (group !== undefined) await fs.chown(path, SAME_OWNER, group);',
    by: '',
    promise: 'a front server in the group can read what is stored',
    tests: FILE_MODES_TESTS,
  },
  {
    file: FILE_MODES,
    replace: "if (errnoOf(error) !== 'EPERM') throw error;\n    throw new CacheGroupError(",
    by: 'throw error;\n    throw new CacheGroupError(',
    promise: 'a group that the process is not in is an error that says so',
    tests: FILE_MODES_TESTS,
  },
  {
    file: FILE_MODES,
    replace: 'for (const folder of await foldersIn(algorithm, fs))',
    by: 'for (const folder of [])',
    promise: 'what was stored before there was a group is below folders that the front server can pass',
    tests: FILE_MODES_TESTS,
  },
  {
    file: 'src/main.ts',
    replace: 'process.umask(0o077);',
    by: '',
    promise: 'other users cannot read the files that LevelDB makes',
    tests: ['test/contract/program.test.ts'],
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
