/** The file operations that the cache uses: the seam at which tests make the disk fail. */
import * as fs from 'node:fs/promises';

export type FileSystem = Pick<
  typeof fs,
  | 'open'
  | 'readFile'
  | 'writeFile'
  | 'rename'
  | 'unlink'
  | 'rm'
  | 'mkdir'
  | 'opendir'
  | 'stat'
  | 'statfs'
  | 'chmod'
  | 'chown'
>;

export type { FileHandle } from 'node:fs/promises';

export const nodeFileSystem: FileSystem = fs;
