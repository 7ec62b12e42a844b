import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { readCoverage } from '../coverage/line-coverage.ts';
import { tempDir } from '../helpers/temp-dir.ts';

const SOURCE = `/** A comment
 * of two lines. */
interface Shape {
  size: number;
}
export function size(shape: Shape): number {
  if (shape.size > 1) {
    return shape.size;
  }
  // Another comment.
  return process.argv[2] === 'small' ? small(shape) : 0;
}
function small({ size }: Shape): number {
  return size + 1;
}
function never(): void {
  process.exit();
}
size({ size: Number(process.argv[3]) });
`;

test('the lines that ran in any process are told from those that did not; comments and types count for nothing', async (t) => {
  const root = await tempDir(t);
  await mkdir(join(root, 'src'));
  await writeFile(join(root, 'src/loaded.ts'), SOURCE);
  await writeFile(join(root, 'src/types.ts'), 'export interface Shape {\n  size: number;\n}\n');
  await writeFile(join(root, 'src/unloaded.ts'), '\nexport const a = 1;\n');
  const env = { ...process.env, NODE_V8_COVERAGE: 'profiles' };
  for (const args of [
    ['small', '1'],
    ['large', '1'],
  ]) {
    execFileSync(process.execPath, ['src/loaded.ts', ...args], { cwd: root, env });
  }
  const missed = [...readCoverage(join(root, 'profiles'), root, 'src')].map(([path, lines]) => [
    path,
    lines.size,
    [...lines].filter(([, ran]) => !ran).map(([line]) => line),
  ]);
  assert.deepEqual(missed, [
    ['src/loaded.ts', 9, [8, 16, 17]],
    ['src/types.ts', 0, []],
    ['src/unloaded.ts', 1, [2]],
  ]);
});
