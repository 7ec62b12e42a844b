/** Copies images of any kind into others with skopeo, to compare them. */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Digest, digestOf } from '../../src/oci/digest.ts';
import { run } from './real-processes.ts';

/** All platforms; `docker://`, `oci-archive:`, `dir:`. */
export function skopeoCopy(from: string, to: string): Promise<string> {
  return run('skopeo', ['--insecure-policy', 'copy', '--all', '--src-tls-verify=false', from, to]);
}

/** What `dir:` writes, without the version of its own format. */
export async function digestsIn(directory: string): Promise<Digest[]> {
  const files = (await readdir(directory)).filter((file) => file !== 'version');
  return (
    await Promise.all(files.map(async (file) => digestOf(await readFile(join(directory, file)))))
  ).toSorted();
}
