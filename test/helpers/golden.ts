/** Texts that a user sees, kept in `test/golden/` and compared exactly, but for what differs from run to run. */
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { resolve } from 'node:path';

const FOLDER = resolve(import.meta.dirname, '../golden');

/** In this order. */
const VARYING: [RegExp, string][] = [
  [/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z/g, 'TIME'],
  [/\bnode=v[\d.]+/g, 'node=VERSION'],
  [/\bversion=\S+/g, 'version=VERSION'],
  [/(127\.0\.0\.1):\d+/g, '$1:PORT'],
  [/\d+(\.\d)? [GM]iB free/g, 'SIZE free'],
  [/\d+ s apart/g, 'N s apart'],
  [/\bprocess \d+/g, 'process PID'],
  [/\buser( \(?)\d+/g, 'user$1UID'],
];

/**
 * Compares `text` with `test/golden/<name>.txt`. With `UPDATE_GOLDEN=1` it writes the file instead: look at the change
 * before you commit it.
 *
 * @param folder what stands as `DIR` in the file
 */
export async function assertGolden(name: string, text: string, folder: string): Promise<void> {
  const plain = VARYING.reduce(
    (so, [pattern, word]) => so.replace(pattern, word),
    text.replaceAll(folder, 'DIR'),
  );
  const file = resolve(FOLDER, `${name}.txt`);
  if (process.env['UPDATE_GOLDEN'] === '1') await writeFile(file, plain);
  assert.equal(plain, await readFile(file, 'utf8'));
}
