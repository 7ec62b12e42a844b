/** Tells a cache directory from somebody's files. */
import { join } from 'node:path';
import { errnoOf, StorageError } from './errors.ts';
import type { FileSystem } from './file-system.ts';

/** Either is in each directory that a server has opened: an index without a format is older than all formats. */
const MARKS = ['format', join('index', 'CURRENT')];

/** What may be there without a mark: a backup of the content alone, a first start that was killed, the root of a volume. */
const HARMLESS = new Set(['blobs', 'ingest', 'index', 'index.damaged', 'pid', 'pins.json', 'lost+found']);

const MOST_NAMED = 3;

/**
 * Why a folder cannot be the cache directory, as a clause for a message; undefined if it can, or is not there yet. Changes
 * nothing.
 *
 * @throws {StorageError} it cannot be read
 */
export async function whyNotOurs(directory: string, fs: FileSystem): Promise<string | undefined> {
  for (const mark of MARKS) if (await isThere(join(directory, mark), fs)) return undefined;
  const names: string[] = [];
  try {
    for await (const { name } of await fs.opendir(directory)) names.push(name);
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === 'ENOENT') return undefined;
    if (errno === 'ENOTDIR') return 'is no folder: choose another path';
    throw new StorageError('open', error, `: ${directory} cannot be read`);
  }
  const foreign = names.filter((name) => !HARMLESS.has(name)).sort();
  if (foreign.length === 0) return undefined;
  const shown = foreign.slice(0, MOST_NAMED).join(', ');
  const more = foreign.length > MOST_NAMED ? ` and ${foreign.length - MOST_NAMED} more` : '';
  return `is neither empty nor a cache of Millpond, it holds ${shown}${more}: choose another folder`;
}

async function isThere(path: string, fs: FileSystem): Promise<boolean> {
  try {
    await fs.stat(path);
    return true;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return false;
    throw new StorageError('open', error, `: ${path} cannot be read`);
  }
}
