/** Checks the cache directory without opening it, and without writing to it: a server may use it. */
import { constants } from 'node:fs';
import { access, stat, statfs } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Config } from '../../../config/schema.ts';
import { CheckFailure, type Finding } from './result.ts';

/** What a cache directory holds, as far as its server must be able to write there. */
const FOLDERS = ['index', 'blobs', 'ingest'];

/** @param user number of the user who runs this command @throws {CheckFailure} the server could not store anything */
export async function checkDisk(
  { directory, keepFree, maxSize }: Config['cache'],
  user: number | undefined,
): Promise<Finding> {
  const there = await nearestFolder(directory);
  const exists = there === directory;
  for (const folder of exists ? [directory, ...FOLDERS.map((name) => join(directory, name))] : [there])
    await requireWritable(folder, user);
  const { bavail, blocks, bsize } = await statfs(there);
  const [free, total] = [bavail * bsize, blocks * bsize];
  if (total === 0)
    throw new CheckFailure(`the file system of ${there} keeps no files`, 'choose another cache.directory');
  if (free === 0)
    throw new CheckFailure(
      `${there} has no space left`,
      'free some, or choose another cache.directory: until then pulls go on uncached',
    );
  const state = exists ? `${directory} can be written` : `${directory} is not there yet and can be made`;
  const message = `${state}, ${size(free)} free`;
  if (free < keepFree)
    return {
      outcome: 'warning',
      message: `${message}, less than cache.keepFree (${size(keepFree)})`,
      advice: 'free some space: until then the cache shrinks, and may store nothing',
    };
  if (typeof maxSize === 'number' && maxSize > total - keepFree)
    return {
      outcome: 'warning',
      message: `${message}, but cache.maxSize (${size(maxSize)}) and cache.keepFree are more than its file system has (${size(total)})`,
      advice: 'choose a smaller cache.maxSize, or a share of the file system such as 80%',
    };
  return { outcome: 'ok', message };
}

/** The directory, or the nearest folder above it that is there. */
async function nearestFolder(path: string): Promise<string> {
  try {
    if ((await stat(path)).isDirectory()) return path;
  } catch (error) {
    const code = codeOf(error);
    const isMissing = code === 'ENOENT' || code === 'ENOTDIR'; // the second: there is a file above it
    if (isMissing && dirname(path) !== path) return nearestFolder(dirname(path));
    if (code === 'EACCES')
      throw new CheckFailure(
        `this user may not look into ${dirname(path)} (EACCES)`,
        'run this command as the user of the server, or change the mode of the folder',
        error,
      );
    throw error;
  }
  throw new CheckFailure(`${path} is no folder`, 'choose another cache.directory');
}

async function requireWritable(folder: string, user: number | undefined): Promise<void> {
  try {
    await access(folder, constants.R_OK | constants.W_OK | constants.X_OK);
  } catch (error) {
    const code = codeOf(error);
    if (code === 'ENOENT') return; // the server makes it
    if (code === 'EROFS')
      throw new CheckFailure(
        `${folder} is on a file system that is mounted read-only (EROFS)`,
        'mount it for writing, or choose another cache.directory',
        error,
      );
    if (code !== 'EACCES') throw error;
    const { uid } = await stat(folder);
    throw new CheckFailure(
      `${folder} belongs to user ${uid}, and this user${user === undefined ? '' : ` (${user})`} may not write there (EACCES)`,
      'run this command as the user of the server; if that is who you are, give the folder to it (chown -R), or choose another cache.directory',
      error,
    );
  }
}

function codeOf(error: unknown): unknown {
  return error instanceof Error && 'code' in error ? error.code : undefined;
}

function size(bytes: number): string {
  const gib = bytes / 1024 ** 3;
  return gib >= 1 ? `${gib.toFixed(1)} GiB` : `${Math.floor(bytes / 1024 ** 2)} MiB`;
}
