import type { Mutation } from '../mutation.ts';

const SPOOL = 'src/cache/ingest/spool.ts';
const FILL = 'src/mirror/blobs/fill.ts';
const DISK_TESTS = ['test/fault/disk.test.ts'];
const FOREIGN = ['test/mirror/foreign-fills.test.ts'];
const INGEST_TESTS = ['test/unit/cache/ingest.test.ts'];
const HOLES_TESTS = ['test/fault/holes.test.ts'];
const SPOOL_TESTS = ['test/unit/cache/spool.test.ts'];

export const cacheSpool: readonly Mutation[] = [
  {
    file: SPOOL,
    replace: 'await file.datasync();',
    by: '',
    promise: 'a manifest is flushed to the disk before its record is written',
    tests: DISK_TESTS,
  },
  {
    file: SPOOL,
    replace: "const tag = createHash('sha256').update(origin).digest('hex').slice(0, 16);",
    by: "const tag = '0'.repeat(16);",
    promise: 'what one upstream left is not gone on from by another',
    tests: FOREIGN,
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
    replace: 'if (!(await this.#isResumable(name))) await this.discard(path);',
    by: 'if (false) await this.discard(path);',
    promise: 'a start removes the litter of earlier runs',
    tests: INGEST_TESTS,
  },
  {
    file: SPOOL,
    replace: 'await file.writeFile(String(front));',
    by: 'await file.writeFile(String(Number.MAX_SAFE_INTEGER));',
    promise: 'a note says how long the front is',
    tests: HOLES_TESTS,
  },
  {
    file: SPOOL,
    replace: 'if (noted !== undefined) await file.truncate(Math.min(noted, (await file.stat()).size));',
    by: '',
    promise: 'what lies behind the noted front is not trusted',
    tests: SPOOL_TESTS,
  },
  {
    file: SPOOL,
    replace: 'await file.truncate(Math.min(noted, (await file.stat()).size));',
    by: 'await file.truncate(noted);',
    promise: 'a note that is longer than its file adds no hole',
    tests: SPOOL_TESTS,
  },
  {
    file: SPOOL,
    replace: 'return Math.min(size, (await this.#readNote(path)) ?? size) >= RESUME_MIN_BYTES;',
    by: 'return size >= RESUME_MIN_BYTES;',
    promise: 'a file whose front is short is not kept, however long it is',
    tests: SPOOL_TESTS,
  },
  {
    file: SPOOL,
    replace: 'return Number.isSafeInteger(length) ? length : 0;',
    by: 'return Number.isSafeInteger(length) ? length : undefined;',
    promise: 'a damaged note counts as no front',
    tests: SPOOL_TESTS,
  },
  {
    file: SPOOL,
    replace: "const NOTE = '.front';",
    by: "const NOTE = '.note';",
    promise: 'the notes of an earlier run are read',
    tests: SPOOL_TESTS,
  },
  {
    file: SPOOL,
    replace: 'await this.#fs.unlink(path + NOTE);',
    by: '',
    promise: 'a fill that ended in order goes on from its whole front',
    tests: SPOOL_TESTS,
  },
  {
    file: SPOOL,
    replace: 'if (options.resumable) await ingest.truncate();',
    by: '',
    promise: 'a partial blob that is kept has no holes',
    tests: SPOOL_TESTS,
  },
  {
    file: SPOOL,
    replace: "if (errnoOf(error) !== 'ENOENT') await this.discard(path);",
    by: 'await this.discard(path);',
    promise: 'a partial blob without a note is kept',
    tests: INGEST_TESTS,
  },
  {
    file: SPOOL,
    replace: 'await this.#fs.unlink(path + NOTE).catch(() => undefined);',
    by: '',
    promise: 'a note goes with its file',
    tests: SPOOL_TESTS,
  },
  {
    file: SPOOL,
    replace: 'this.#partials.set(path, ingest.front);',
    by: '',
    promise: 'a partial blob counts as taken space',
    tests: SPOOL_TESTS,
  },
  {
    file: SPOOL,
    replace: 'else if (!isNote) this.#partials.set(path, (await this.#fs.stat(path)).size);',
    by: '',
    promise: 'a partial blob of an earlier run counts as taken space',
    tests: SPOOL_TESTS,
  },
  {
    file: SPOOL,
    replace: 'this.#partials.delete(path);\n      file',
    by: 'file',
    promise: 'a partial blob that is being written is not removed to make room',
    tests: SPOOL_TESTS,
  },
  {
    file: SPOOL,
    replace: 'const path = join(this.#directory, name);\n        if',
    by: 'const path = join(this.#directory, entry.name);\n        if',
    promise: 'a note goes with its file, whichever is listed first',
    tests: SPOOL_TESTS,
  },
  {
    file: FILL,
    replace: 'await spool.noteFront(ingest);',
    by: '',
    promise: 'after a kill a fill in segments does not trust bytes that were never written',
    tests: HOLES_TESTS,
  },
  {
    file: FILL,
    replace: 'await this.#context.spool.noteFront(ingest);',
    by: '',
    promise: 'after a kill a fill in segments goes on from its front',
    tests: HOLES_TESTS,
  },
];
