/** What a mirror's cache really takes on the disk. */
import { existsSync } from 'node:fs';
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';

const STAT_BLOCK_BYTES = 512;

/** Bytes of the files under `directory`, in whole blocks; a file that goes meanwhile counts as gone. */
export async function diskUse(directory: string): Promise<number> {
  if (!existsSync(directory)) return 0;
  let bytes = 0;
  for (const entry of await readdir(directory, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const stats = await stat(join(entry.parentPath, entry.name)).catch(() => undefined);
    bytes += (stats?.blocks ?? 0) * STAT_BLOCK_BYTES;
  }
  return bytes;
}
