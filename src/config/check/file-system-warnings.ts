/** Warnings about the file system of the cache, and about who may read files. Reads, and changes nothing. */
import type { StatsFs } from 'node:fs';
import { stat, statfs } from 'node:fs/promises';
import { dirname } from 'node:path';
import { secretFiles } from '../references.ts';
import type { Config } from '../schema.ts';
import { type Warning, warning } from './warning.ts';

const GIB = 2 ** 30;

/** File systems in memory, by their numbers in statfs(2). */
const IN_MEMORY = new Map([
  [0x01021994, 'tmpfs'],
  [0x858458f6, 'ramfs'],
]);

/** @param isWritten whether a key is set by the user: a default is not warned of */
export async function cacheWarnings(
  { cache: { directory, maxSize } }: Config,
  isWritten: (path: string[]) => boolean,
): Promise<Warning[]> {
  const [ofDirectory, ofSize] = [
    ['cache', 'directory'],
    ['cache', 'maxSize'],
  ] as const;
  const { type, blocks, bsize } = await fileSystemOf(directory);
  const kind = IN_MEMORY.get(type);
  const warnings: Warning[] = [];
  if (kind !== undefined && isWritten([...ofDirectory])) {
    const what = `is on a ${kind}: the cache takes memory, and is lost when the machine restarts`;
    warnings.push(warning('cache-in-memory', ofDirectory, what));
  }
  if (typeof maxSize === 'number' && maxSize > blocks * bsize && isWritten([...ofSize])) {
    const size = `${Math.floor((blocks * bsize * 10) / GIB) / 10} GiB`;
    const what = `is more than the whole file system of the cache, which has ${size}: write less, or a share such as 80%`;
    warnings.push(warning('max-size-above-file-system', ofSize, what));
  }
  return warnings;
}

/** @param data with absolute paths */
export async function secretWarnings(data: unknown): Promise<Warning[]> {
  const files = secretFiles(data);
  if (files.length === 0) return [];
  // Loaded only where there are secrets: other configurations need no access control.
  const { exposureWarning } = await import('../../files/exposed-secrets.ts');
  const found = await Promise.all(
    files.map(async ({ path, file }) => {
      const message = exposureWarning(file, (await stat(file)).mode);
      return message === undefined ? [] : [warning('exposed-secret', path, message)];
    }),
  );
  return found.flat();
}

/** That of the folder, or of the nearest one above it that is there: a server makes the others. */
async function fileSystemOf(folder: string): Promise<StatsFs> {
  try {
    return await statfs(folder);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    const isMissing = code === 'ENOENT' || code === 'ENOTDIR'; // a file in its path is the business of another check
    if (!isMissing || dirname(folder) === folder) throw error;
    return fileSystemOf(dirname(folder));
  }
}
