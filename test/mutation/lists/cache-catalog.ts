import type { Mutation } from '../mutation.ts';

const CONTENT = 'src/cache/catalog/content-cache.ts';
const CATALOG = 'src/cache/catalog/local-catalog.ts';
const INVENTORY = 'src/cache/catalog/inventory.ts';
const CONTENT_TESTS = ['test/unit/cache/content-cache.test.ts'];
const DAMAGED_TESTS = ['test/fault/damaged-content.test.ts'];
const CATALOG_TESTS = ['test/unit/cache/local-catalog.test.ts'];
const INVENTORY_TESTS = ['test/unit/cache/inventory.test.ts'];
const EVICTION_TESTS = ['test/mirror/eviction.test.ts'];

/*
 * equivalent: inventory.ts this.#used.delete(digest): takeUsed() leaves out what is not here, and what comes back counts as
 * used anyway. The line only frees memory a few seconds earlier.
 */
export const cacheCatalog: readonly Mutation[] = [
  {
    file: CONTENT,
    replace: 'await catalog.settled(digest);',
    by: '',
    promise: 'content that comes back while it is removed is here afterwards',
    tests: CONTENT_TESTS,
  },
  {
    file: CONTENT,
    replace: 'if (checked?.version !== version) return false;',
    by: 'if (checked === undefined) return false;',
    promise: 'a file that was written to is checked again',
    tests: DAMAGED_TESTS,
  },
  {
    file: CONTENT,
    replace: 'if (actual === digest) return bytes;',
    by: 'return bytes;',
    promise: 'a manifest is checked by its digest whenever it is read',
    tests: DAMAGED_TESTS,
  },
  {
    file: CONTENT,
    replace: 'await catalog.remove([digest, ...(images ?? [])]);',
    by: 'await catalog.remove([digest]);',
    promise: 'an image manifest whose blob is damaged is forgotten with it',
    tests: DAMAGED_TESTS,
  },
  {
    file: CONTENT,
    replace: 'const origin = kind.origin ?? (await catalog.get(digest))?.origin;',
    by: 'const origin = kind.origin;',
    promise: 'imported content stays imported',
    tests: CONTENT_TESTS,
  },
  {
    file: CONTENT,
    replace: 'const release = catalog.hold(digest);\n    let reader',
    by: 'const release = () => undefined;\n    let reader',
    promise: 'what is being read is held',
    tests: CONTENT_TESTS,
  },
  {
    file: CONTENT,
    replace: 'return Math.abs(this.#context.clock.now() - checked.at) < CHECK_LASTS_MS;',
    by: 'return true;',
    promise: 'a check lasts ten minutes',
    tests: DAMAGED_TESTS,
  },
  {
    file: CONTENT,
    replace: 'if (expected === undefined || reader?.size === expected) return reader;',
    by: 'return reader;',
    promise: 'a file of another length is not served',
    tests: DAMAGED_TESTS,
  },
  {
    file: CONTENT,
    replace: 'if ((await this.#context.index.sums(digest)) !== sums) await this.#recordSums(digest, sums);',
    by: '',
    promise: 'a scrub records the sums of what it read',
    tests: CONTENT_TESTS,
  },
  {
    file: CONTENT,
    replace: 'await this.#recordSums(digest, value);',
    by: '',
    promise: 'content without sums is hashed once',
    tests: CONTENT_TESTS,
  },
  {
    file: CATALOG,
    replace: 'const left = (this.#holdersByDigest.get(digest) ?? 1) - 1;',
    by: 'const left = 0;',
    promise: 'what several hold stays held until the last lets go',
    tests: CATALOG_TESTS,
  },
  {
    file: CATALOG,
    replace: '(this.#holdersByDigest.get(digest) ?? 0) + 1',
    by: '1',
    promise: 'several holders are counted',
    tests: CATALOG_TESTS,
  },
  {
    file: CATALOG,
    replace: 'if (!held) return;',
    by: '',
    promise: "a hold that is released twice lets go of nobody else's",
    tests: CATALOG_TESTS,
  },
  {
    file: CATALOG,
    replace: 'if (left === 0) this.#holdersByDigest.delete(digest);',
    by: 'if (false) {}',
    promise: 'what nobody holds any more may go',
    tests: CATALOG_TESTS,
  },
  {
    file: CATALOG,
    replace: "changes.push({ delete: 'permission', key, digest });",
    by: '',
    promise: 'what is removed takes its permissions with it',
    tests: CATALOG_TESTS,
  },
  {
    file: CATALOG,
    replace: "if (records.has(digest)) changes.push({ delete: 'tag', key });",
    by: '',
    promise: 'what is removed takes its tags with it',
    tests: CATALOG_TESTS,
  },
  {
    file: CATALOG,
    replace: 'if (records.has(digest))',
    by: 'if (true)',
    promise: 'tags of other manifests stay',
    tests: CATALOG_TESTS,
  },
  {
    file: CATALOG,
    replace: 'const absent = children.filter((child) => inventory.get(child) === undefined);',
    by: 'const absent: Digest[] = [];',
    promise: 'permission for what never came goes with its manifest',
    tests: CATALOG_TESTS,
  },
  {
    file: CATALOG,
    replace: 'const absent = children.filter((child) => inventory.get(child) === undefined);',
    by: 'const absent = children;',
    promise: 'permission for what is here stays when its manifest goes',
    tests: CATALOG_TESTS,
  },
  {
    file: CATALOG,
    replace: "changes.push({ delete: 'content', digest }, { delete: 'sums', digest });",
    by: "changes.push({ delete: 'content', digest });",
    promise: 'what is removed takes its sums with it',
    tests: CATALOG_TESTS,
  },
  {
    file: CATALOG,
    replace: 'const records = inventory.closure(digest).flatMap((used): IndexChange[] => {',
    by: 'const records = [digest].flatMap((used): IndexChange[] => {',
    promise: 'after a crash what a manifest lists was used after it',
    tests: CATALOG_TESTS,
  },
  {
    file: CATALOG,
    replace: 'await this.#flushing;',
    by: '',
    promise: 'a removal waits for records that are being written',
    tests: CATALOG_TESTS,
  },
  {
    file: CATALOG,
    replace: 'return this.#context.inventory.bytes + this.#leavingBytes;',
    by: 'return this.#context.inventory.bytes;',
    promise: 'a file counts until it is unlinked',
    tests: CATALOG_TESTS,
  },
  {
    file: CATALOG,
    replace: 'this.#leavingBytes -= bytes;',
    by: '',
    promise: 'a file that is unlinked counts no more',
    tests: CATALOG_TESTS,
  },
  {
    file: CATALOG,
    replace: 'await faults.tolerate(async () => index.write(await this.#changesOfRemoval(records)));',
    by: 'void faults.tolerate(async () => index.write(await this.#changesOfRemoval(records)));',
    promise: 'records are removed before files',
    tests: CATALOG_TESTS,
  },
  {
    file: CATALOG,
    replace: "if (known === undefined || (known.origin ?? 'mirrored') === origin) continue;",
    by: 'if (known === undefined) continue;',
    promise: 'what has its origin already is not used anew',
    tests: CATALOG_TESTS,
  },
  {
    file: INVENTORY,
    replace: 'pending.order = this.#uses;',
    by: '',
    promise: 'what is used again is used last',
    tests: INVENTORY_TESTS,
  },
  {
    file: INVENTORY,
    replace: 'return childrenFirst.toReversed();',
    by: 'return childrenFirst;',
    promise: 'a manifest is evicted before its blobs',
    tests: INVENTORY_TESTS,
  },
  {
    file: INVENTORY,
    replace:
      'const keys = Float64Array.from(records, ({ usedAt }, at) => (usedAt + 1) * HEIGHTS - (heights[at] ?? 0));',
    by: 'const keys = Float64Array.from(records, (_, at) => at);',
    promise: 'the least recently used goes first after a restart too',
    tests: EVICTION_TESTS,
  },
];
