import type { Mutation } from '../mutation.ts';

const EVICTOR = 'src/cache/catalog/evictor.ts';
const SPACE = 'src/cache/catalog/space.ts';
const DISK = 'src/cache/ingest/disk-budget.ts';
const SPACE_TESTS = ['test/unit/cache/space.test.ts'];
const EVICTION_TESTS = ['test/mirror/eviction.test.ts'];

export const cacheEviction: readonly Mutation[] = [
  {
    file: EVICTOR,
    replace: 'if (catalog.isHeld(digest) || pinned',
    by: 'if (pinned',
    promise: 'what is held is not evicted',
    tests: SPACE_TESTS,
  },
  {
    file: EVICTOR,
    replace: '|| pinned.has(digest) ||',
    by: '||',
    promise: 'what is pinned is not evicted',
    tests: EVICTION_TESTS,
  },
  {
    file: EVICTOR,
    replace: '|| this.#isKept(record)) continue;',
    by: ') continue;',
    promise: 'imported content stays',
    tests: SPACE_TESTS,
  },
  {
    file: EVICTOR,
    replace: 'return origin !== undefined && !this.#settings.evictImported;',
    by: 'return origin !== undefined;',
    promise: 'imported content may go where the configuration says so',
    tests: SPACE_TESTS,
  },
  {
    file: EVICTOR,
    replace: 'for (const needed of await catalog.closure(digest)) pinned.add(needed);',
    by: 'pinned.add(digest);',
    promise: 'a pinned image stays with all that it needs',
    tests: EVICTION_TESTS,
  },
  {
    file: EVICTOR,
    replace: 'if (!this.#settings.pin.some((pattern) => pattern.test(name))) continue;',
    by: '',
    promise: 'only what a pattern names is pinned',
    tests: EVICTION_TESTS,
  },
  {
    file: EVICTOR,
    replace: 'left -= record.allocated;',
    by: '',
    promise: 'no more goes than is needed',
    tests: SPACE_TESTS,
  },
  {
    file: EVICTOR,
    replace: 'if (victims.length === 0) break;',
    by: '',
    promise: 'an eviction ends when nothing may go any more',
    tests: SPACE_TESTS,
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
  {
    file: SPACE,
    replace: 'this.#reserved -= taken;',
    by: '',
    promise: 'a reservation is given back',
    tests: SPACE_TESTS,
  },
  {
    file: SPACE,
    replace: 'taken = 0;',
    by: '',
    promise: 'a reservation is given back once',
    tests: SPACE_TESTS,
  },
  {
    file: SPACE,
    replace: 'if (wanted > taken) taken += await this.#take(wanted - taken);',
    by: 'if (wanted > taken) await this.#take(wanted - taken);',
    promise: 'what a reservation has grown by is given back',
    tests: SPACE_TESTS,
  },
  {
    file: SPACE,
    replace: 'if (!evictor.evicts || this.used + wanted <= soft) return;',
    by: 'if (this.used + wanted <= soft) return;',
    promise: 'a sealed mirror evicts nothing',
    tests: SPACE_TESTS,
  },
  {
    file: SPACE,
    replace: 'return this.#context.catalog.bytes + this.#context.spool.partialBytes;',
    by: 'return this.#context.catalog.bytes;',
    promise: 'partial blobs count',
    tests: SPACE_TESTS,
  },
  {
    file: SPACE,
    replace: 'await spool.discardPartials();',
    by: '',
    promise: 'partial blobs go before content',
    tests: SPACE_TESTS,
  },
  {
    file: SPACE,
    replace: '&& bytes <= hard) {',
    by: ') {',
    promise: 'nothing is evicted for what can never fit',
    tests: SPACE_TESTS,
  },
  {
    file: SPACE,
    replace: 'const goal = Math.max(0, soft * this.#settings.lowWatermark - wanted);',
    by: 'const goal = soft - wanted;',
    promise: 'eviction goes on down to the low watermark',
    tests: SPACE_TESTS,
  },
  {
    file: SPACE,
    replace: 'Math.ceil(wanted / BLOCK_BYTES) * BLOCK_BYTES',
    by: 'wanted',
    promise: 'a file takes whole blocks',
    tests: SPACE_TESTS,
  },
  {
    file: DISK,
    replace: 'return bavail * bsize - keepFree;',
    by: 'return bavail * bsize;',
    promise: 'keepFree is left to others',
    tests: EVICTION_TESTS,
  },
  {
    file: DISK,
    replace: 'return Number.POSITIVE_INFINITY;',
    by: 'return 0;',
    promise: 'a disk that cannot be asked sets no limit',
    tests: SPACE_TESTS,
  },
];
