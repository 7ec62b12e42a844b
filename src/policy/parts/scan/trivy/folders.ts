/**
 * The folders of a Trivy, and how much is in them.
 *
 *     cache/       its databases; kept
 *     scan-XXXXXX/ one for each run: HOME, TMPDIR and the working directory of the child; removed with it
 */
import { chmod, lstat, mkdir, mkdtemp, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';

const RUN = 'scan-';
/** Only the mirror's user: credentials of the scanner's route are in it. */
const PRIVATE = 0o700;
const BLOCK_BYTES = 512;

export class Folders {
  readonly #directory: string;

  private constructor(directory: string) {
    this.#directory = directory;
  }

  /** Makes what is missing, and removes what runs of an earlier process have left. @throws what the file system throws */
  static async open(directory: string): Promise<Folders> {
    const folders = new Folders(directory);
    await mkdir(folders.cache, { recursive: true, mode: PRIVATE });
    await chmod(directory, PRIVATE);
    for (const name of await readdir(directory)) {
      if (name.startsWith(RUN)) await rm(join(directory, name), { recursive: true, force: true });
    }
    return folders;
  }

  get cache(): string {
    return join(this.#directory, 'cache');
  }

  /** A folder for one run. Disposing of it removes it. */
  async makeRun(): Promise<RunFolder> {
    const path = await mkdtemp(join(this.#directory, RUN));
    const remove = () => rm(path, { recursive: true, force: true, maxRetries: 3 });
    return { path, [Symbol.asyncDispose]: remove };
  }
}

export interface RunFolder extends AsyncDisposable {
  path: string;
}

/** Bytes on the disk of all that is below `path`. Symlinks count themselves, and what vanishes meanwhile counts nothing. */
export async function bytesBelow(path: string): Promise<number> {
  const entries = await readdir(path, { withFileTypes: true, recursive: true }).catch(() => []);
  let bytes = 0;
  for (const entry of entries) {
    const stats = await lstat(join(entry.parentPath, entry.name)).catch(() => undefined);
    // Blocks and not the length: a file with a hole may say any length.
    bytes += (stats?.blocks ?? 0) * BLOCK_BYTES;
  }
  return bytes;
}
