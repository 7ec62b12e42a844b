/**
 * Who may read the cache directory: its owner. With `cache.group`, a front server in that group may read `blobs/`, too.
 *
 *     directory          0700; 0710 with a group, because the front server must pass it
 *     ingest/, index/    0700
 *     blobs/             0700, files 0400; 0750 and 0440 with a group
 *
 * Other files in it get 0600 from the umask, which main.ts sets. Files that an older version stored keep 0444, because a
 * closed folder above them is enough. With a group, a file is changed when it is next opened (fs-store), so a start takes
 * no longer with a hundred thousand files.
 */
import type { Stats } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Logger } from '../../telemetry/log.ts';
import { errnoOf } from './errors.ts';
import type { FileSystem } from './file-system.ts';

const CLOSED_FOLDER = 0o700;
const PASSABLE_FOLDER = 0o710;
const SHARED_FOLDER = 0o750;
const CLOSED_FILE = 0o400;
const SHARED_FILE = 0o440;
const PERMISSIONS = 0o777;
const OTHERS = 0o007;
const SAME_OWNER = -1;
const GROUPS_FILE = '/etc/group';

/** The number of a group; undefined if only the owner may read. */
export type Group = number | undefined;

/** `cache.group` cannot be used. */
export class CacheGroupError extends Error {
  override readonly name = 'CacheGroupError';
}

/** @param group name or number @throws {CacheGroupError} there is no such group on this machine */
export async function groupNumber(group: string | number, fs: FileSystem): Promise<number> {
  if (typeof group === 'number') return group;
  const lines = (await fs.readFile(GROUPS_FILE, 'utf8')).split('\n').map((line) => line.split(':'));
  const number = lines.find(([name]) => name === group)?.[2];
  if (number === undefined)
    throw new CacheGroupError(
      `cache.group: ${GROUPS_FILE} has no group ${group}: create it, or give the number of a group`,
    );
  return Number(number);
}

/** Makes the cache directory if it is not there. */
export function makeCacheDirectory(directory: string, fs: FileSystem, group: Group): Promise<void> {
  return makeFolders(directory, fs, PASSABLE_FOLDER, group);
}

/** Makes a folder in `blobs/` if it is not there. */
export function makeBlobFolder(folder: string, fs: FileSystem, group: Group): Promise<void> {
  return makeFolders(folder, fs, SHARED_FOLDER, group);
}

/**
 * Closes a cache directory that an older version, or a configuration with a group, left open; or opens it to the group.
 * A folder of another user, such as the root of a Kubernetes volume, stays as it is: those in it are closed.
 *
 * @throws {CacheGroupError} this process is not in the group
 */
export async function protectCacheDirectory(
  directory: string,
  { fileSystem: fs, logger }: { fileSystem: FileSystem; logger: Logger },
  group: Group,
): Promise<void> {
  const { mode } = await fs.stat(directory);
  const fields = { directory, mode: (mode & PERMISSIONS).toString(8) };
  const wanted = group === undefined ? CLOSED_FOLDER : PASSABLE_FOLDER;
  const isOurs = await setFolderMode(directory, fs, PASSABLE_FOLDER, group);
  if (isOurs && (mode & PERMISSIONS & ~wanted) !== 0)
    logger.info(
      fields,
      'the cache directory was open to other users of this machine and is closed to them now: a front server that reads blobs/ needs cache.group',
    );
  if (!isOurs && (mode & OTHERS) !== 0)
    logger.warn(
      fields,
      'the cache directory belongs to another user and stays open to all users of this machine: the folders in it are closed, but change its owner or its mode',
    );
  for (const name of ['ingest', 'index'])
    await setFolderMode(join(directory, name), fs, CLOSED_FOLDER, undefined);
  await setFolderMode(join(directory, 'blobs'), fs, SHARED_FOLDER, group);
  if (group === undefined) return;
  for (const algorithm of await foldersIn(join(directory, 'blobs'), fs)) {
    await setFolderMode(algorithm, fs, SHARED_FOLDER, group);
    for (const folder of await foldersIn(algorithm, fs))
      await setFolderMode(folder, fs, SHARED_FOLDER, group);
  }
}

/** Makes a file read-only, for those who may read it. @throws the error of the file system */
export async function protectFile(path: string, fs: FileSystem, group: Group): Promise<void> {
  if (group !== undefined) await fs.chown(path, SAME_OWNER, group);
  await fs.chmod(path, group === undefined ? CLOSED_FILE : SHARED_FILE);
}

/** Whether a front server in the group can read the file. Without a group, that is for the front server to see to. */
export function isShared({ mode, gid }: Stats, group: Group): boolean {
  return group === undefined || ((mode & PERMISSIONS) === SHARED_FILE && gid === group);
}

async function makeFolders(path: string, fs: FileSystem, mode: number, group: Group): Promise<void> {
  const first = await makeMissing(path, fs);
  if (first === undefined || group === undefined) return;
  for (let folder = path; folder.length >= first.length; folder = dirname(folder))
    await setFolderMode(folder, fs, mode, group);
}

/**
 * Makes a folder and those above it. We do not use `recursive: true`: it tries for ever where no folder can be made, such
 * as in /proc.
 *
 * @returns the first folder that was made; undefined if all were there
 */
async function makeMissing(path: string, fs: FileSystem): Promise<string | undefined> {
  const make = async () => {
    try {
      await fs.mkdir(path, { mode: CLOSED_FOLDER });
      return path;
    } catch (error) {
      if (errnoOf(error) === 'EEXIST' && (await fs.stat(path)).isDirectory()) return undefined;
      throw error;
    }
  };
  try {
    return await make();
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT' || dirname(path) === path) throw error;
    const first = await makeMissing(dirname(path), fs);
    return (await make()) === undefined ? first : (first ?? path);
  }
}

/**
 * Sets the mode of a folder that is there: to `mode` for the group, or closed without one.
 *
 * @returns false if it belongs to another user
 */
async function setFolderMode(path: string, fs: FileSystem, mode: number, group: Group): Promise<boolean> {
  try {
    const old = await fs.stat(path);
    const wanted = group === undefined ? CLOSED_FOLDER : mode;
    if ((old.mode & PERMISSIONS) === wanted && (group === undefined || old.gid === group)) return true;
    // Closed before it changes hands: its present group must not be let in, not even for a moment.
    await fs.chmod(path, CLOSED_FOLDER);
    if (group === undefined) return true;
    await giveTo(group, path, fs);
    await fs.chmod(path, mode);
    return true;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return true;
    if (errnoOf(error) === 'EPERM') return false;
    throw error;
  }
}

async function giveTo(group: number, path: string, fs: FileSystem): Promise<void> {
  try {
    await fs.chown(path, SAME_OWNER, group);
  } catch (error) {
    if (errnoOf(error) !== 'EPERM') throw error;
    throw new CacheGroupError(
      `cache.group: this process is not in the group ${group}, so it cannot give files to it: run it as a member (systemd: SupplementaryGroups=, docker run: --group-add)`,
      { cause: error },
    );
  }
}

async function foldersIn(folder: string, fs: FileSystem): Promise<string[]> {
  const folders: string[] = [];
  try {
    for await (const entry of await fs.opendir(folder))
      if (entry.isDirectory()) folders.push(join(folder, entry.name));
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error;
  }
  return folders;
}
