/**
 * Opens the cache directory and makes index and content agree, whatever happened to them.
 *
 *     format   the version of this layout; a newer one is not touched
 *     pid      the process that has the directory; if it is still there at a start, that process did not end in order
 *     index/   LevelDB; its lock keeps a second server out
 *     blobs/   the content (fs-store), the truth
 *     ingest/  content that is on its way in (spool)
 */
import { join } from 'node:path';
import { pid } from 'node:process';
import type { Clock } from '../../clock.ts';
import { type Digest, digestAlgorithm, digestOf } from '../../oci/digest.ts';
import { childrenOf, MANIFEST_MAX_BYTES, parseManifest } from '../../oci/manifest.ts';
import type { Logger } from '../../telemetry/log.ts';
import type { ContentRecord, IndexChange, IndexStore } from '../index/index-store.ts';
import { LevelIndex } from '../index/level-index.ts';
import type { ContentReader, ContentStore } from '../store/content-store.ts';
import { errnoOf, StorageError } from '../store/errors.ts';
import { type Group, makeCacheDirectory, protectCacheDirectory } from '../store/file-modes.ts';
import type { FileSystem } from '../store/file-system.ts';
import { whyNotOurs } from '../store/own-directory.ts';
import type { Contents } from './inventory.ts';
import { inTime, isOutsideFault, OpenError, openError } from './open-error.ts';

const FORMAT = 1;
const BATCH = 1000;
const FILES_AT_A_TIME = 32;

export interface CacheDirectory {
  index: IndexStore;
  contents: Contents;
  /** Manifests were found without records, so their tags and permissions are lost. */
  manifestsWithoutOwner: boolean;
  /** Closes the index and releases the directory. */
  close: () => Promise<void>;
}

interface Surroundings {
  store: ContentStore;
  fileSystem: FileSystem;
  logger: Logger;
  clock: Clock;
  /** May read `blobs/`. */
  group: Group;
}

/**
 * @throws {OpenError} its format is newer, it holds something else, another server uses it, or the disk fails or does not answer
 * @throws {CacheGroupError} the process is not in the group
 */
export async function openCacheDirectory(
  directory: string,
  surroundings: Surroundings,
): Promise<CacheDirectory> {
  try {
    return await open(directory, surroundings);
  } catch (error) {
    throw openError(directory, error);
  }
}

async function open(directory: string, surroundings: Surroundings): Promise<CacheDirectory> {
  const { fileSystem: fs, store, logger, group, clock } = surroundings;
  const pidFile = join(directory, 'pid');
  const begin = async (signal: AbortSignal) => {
    await requireOwn(directory, fs);
    await makeCacheDirectory(directory, fs, group);
    const known = await knowsFormat(directory, fs);
    signal.throwIfAborted();
    return { known, ...(await openIndex(directory, pidFile, fs)) };
  };
  const begun = await inTime({ directory, clock }, begin, async (late) => late.index?.close());
  const { known } = begun;
  const opened = begun.index === undefined ? await repairIndex(directory, begun.error, surroundings) : begun;
  let { index } = opened;
  try {
    await protectCacheDirectory(directory, surroundings, group);
    const endedInOrder = (await read(pidFile, fs)) === undefined;
    await fs.writeFile(pidFile, String(pid));
    let contents = known ? await readContents(index) : undefined;
    const rebuilt = contents === undefined;
    if (contents === undefined) {
      await index.close();
      await setAside(directory, surroundings);
      index = await LevelIndex.open(join(directory, 'index'));
      contents = { digests: [], records: [] };
    }
    const agreed = endedInOrder && !opened.repaired && !rebuilt && contents.digests.length > 0;
    const found = agreed ? { contents, manifests: 0 } : await reconcile(index, store, contents, logger);
    await fs.writeFile(join(directory, 'format'), `${FORMAT}\n`);
    return {
      index,
      contents: found.contents,
      manifestsWithoutOwner: found.manifests > 0,
      close: async () => {
        await index.close();
        await fs.unlink(pidFile);
      },
    };
  } catch (error) {
    await index.close();
    throw error;
  }
}

/** Comes before everything: opening a directory closes it to other users, and that must not happen to somebody's home. */
async function requireOwn(directory: string, fs: FileSystem): Promise<void> {
  const reason = await whyNotOurs(directory, fs);
  if (reason === undefined) return;
  const cause = Object.assign(new Error('not a cache directory'), { code: 'FOREIGN' });
  throw new OpenError(directory, cause, `it ${reason}`);
}

/**
 * @returns false if there is an index without a format file, because it is older than all formats.
 * @throws {OpenError} the directory's format is newer
 */
async function knowsFormat(directory: string, fs: FileSystem): Promise<boolean> {
  const text = await read(join(directory, 'format'), fs);
  if (text === undefined) return (await read(join(directory, 'index', 'CURRENT'), fs)) === undefined;
  const format = Number(text);
  if (format === FORMAT) return true;
  const cause = Object.assign(new Error('unknown format'), { code: 'FORMAT' });
  const why = `it is of format ${text.trim().slice(0, 20)}, and this version knows ${FORMAT}: run the version that wrote it, or choose another one`;
  throw new OpenError(directory, cause, why);
}

type Opened = { index: LevelIndex; repaired: boolean };

/**
 * @returns the error, if the index is damaged
 * @throws {OpenError} another server uses it
 * @throws {StorageError} this process lacks the right or the room
 */
async function openIndex(
  directory: string,
  pidFile: string,
  fs: FileSystem,
): Promise<Opened | { index: undefined; error: StorageError }> {
  try {
    return { index: await LevelIndex.open(join(directory, 'index')), repaired: false };
  } catch (error) {
    if (!(error instanceof StorageError) || isOutsideFault(error)) throw error;
    if (error.errno === 'LEVEL_LOCKED') {
      const owner = (await read(pidFile, fs)) ?? 'unknown';
      const why = `it is in use by another Millpond, process ${owner}: stop that one, or choose another one`;
      throw new OpenError(directory, error.cause, why);
    }
    return { index: undefined, error };
  }
}

async function repairIndex(
  directory: string,
  error: StorageError,
  surroundings: Surroundings,
): Promise<Opened> {
  const { logger } = surroundings;
  const path = join(directory, 'index');
  logger.error({ err: error }, 'the index cannot be opened: repairing it');
  try {
    await LevelIndex.repair(path);
    return { index: await LevelIndex.open(path), repaired: true };
  } catch (cause) {
    logger.error({ err: cause }, 'the index cannot be repaired');
    await setAside(directory, surroundings);
    return { index: await LevelIndex.open(path), repaired: true };
  }
}

/** @returns undefined if it is damaged */
async function readContents(index: LevelIndex): Promise<Contents | undefined> {
  const contents: Contents = { digests: [], records: [] };
  try {
    for await (const batch of index.contents()) {
      for (const [digest, record] of batch) {
        contents.digests.push(digest);
        contents.records.push(record);
      }
    }
  } catch (error) {
    if (error instanceof StorageError) return undefined;
    throw error;
  }
  return contents;
}

/** Keeps the damaged index, so that it can be examined. Replaces the last one that was kept. */
async function setAside(directory: string, { fileSystem, logger }: Surroundings): Promise<void> {
  const aside = join(directory, 'index.damaged');
  await fileSystem.rm(aside, { recursive: true, force: true });
  try {
    await fileSystem.rename(join(directory, 'index'), aside);
    logger.error({ aside }, 'the index was set aside, and is built again from the content');
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw new StorageError('rename', error);
  }
}

/** Removes records without content, and makes records for content without one. */
async function reconcile(
  index: LevelIndex,
  store: ContentStore,
  { digests, records }: Contents,
  logger: Logger,
): Promise<{ contents: Contents; manifests: number }> {
  const lost = new Set(digests);
  const unknown: Digest[] = [];
  for await (const digest of store.list()) if (!lost.delete(digest)) unknown.push(digest);

  const adopted: [Digest, ContentRecord][] = [];
  const left = unknown.values();
  const lane = async () => {
    for (const digest of left) {
      const record = await recordOf(store, digest);
      if (record !== undefined) adopted.push([digest, record]);
    }
  };
  await Promise.all(Array.from({ length: FILES_AT_A_TIME }, lane));

  const changes = [
    ...[...lost].map((digest): IndexChange => ({ delete: 'content', digest })),
    ...adopted.map(([digest, value]): IndexChange => ({ put: 'content', digest, value })),
  ];
  for (let at = 0; at < changes.length; at += BATCH) await index.write(changes.slice(at, at + BATCH));
  const manifests = adopted.filter(([, { mediaType }]) => mediaType !== undefined).length;
  if (changes.length > 0) {
    const removed = unknown.length - adopted.length;
    logger.warn(
      { adopted: adopted.length, manifests, lost: lost.size, removed },
      'index and content did not agree: files without a record got one, records without a file were removed',
    );
  }
  const known = records.map((record, at): [Digest | undefined, ContentRecord] => [digests[at], record]);
  const all = [...known, ...adopted]
    .filter((entry): entry is [Digest, ContentRecord] => entry[0] !== undefined && !lost.has(entry[0]))
    .sort(([a], [b]) => (a < b ? -1 : 1));
  return {
    contents: { digests: all.map(([digest]) => digest), records: all.map(([, record]) => record) },
    manifests,
  };
}

/**
 * Makes the record of content that has none. Content that looks like a manifest is read, and removed if its digest does
 * not match. Other content is checked when it is first opened.
 *
 * @throws {StorageError}
 */
export async function recordOf(store: ContentStore, digest: Digest): Promise<ContentRecord | undefined> {
  const stored = await store.stat(digest);
  const reader = await store.open(digest);
  if (stored === undefined || reader === undefined) return undefined;
  const { size, allocated, storedAt } = stored;
  const record = { size, allocated, usedAt: Math.round(storedAt) };
  try {
    const start = await readUpTo(reader, 1);
    if (size > MANIFEST_MAX_BYTES || start[0] !== 0x7b) return record;
    const bytes = await readUpTo(reader, size);
    if (digestOf(bytes, digestAlgorithm(digest)) !== digest) {
      await store.delete(digest);
      return undefined;
    }
    const parsed = parseManifest(bytes);
    return parsed === undefined
      ? record
      : { ...record, mediaType: parsed.mediaType, children: childrenOf(parsed) };
  } finally {
    await reader.close();
  }
}

async function readUpTo(reader: ContentReader, end: number): Promise<Buffer> {
  const bytes = Buffer.alloc(Math.min(end, reader.size));
  for (let at = 0; at < bytes.length; ) at += await reader.read(bytes.subarray(at), at, bytes.length);
  return bytes;
}

async function read(path: string, fs: FileSystem): Promise<string | undefined> {
  try {
    return await fs.readFile(path, 'utf8');
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw new StorageError('open', error);
  }
}
