import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { test } from 'node:test';

const ROOT = resolve(import.meta.dirname, '../..');
const text = readFileSync(join(ROOT, 'ARCHITECTURE.md'), 'utf8');

interface Step {
  file: string;
  name: string;
}

/** Steps that follow each other without an empty line: each calls the next, or is handed it. */
const chains = text
  .split(/\n\n/)
  .map((block) =>
    [...block.matchAll(/^- `(src\/\S+): (#?\w+)`$/gm)].map(
      ([, file = '', name = '']): Step => ({ file, name }),
    ),
  );

/** The source of a function, method or class: from its head to the line that closes it. */
function sourceOf({ file, name }: Step): string {
  const lines = readFileSync(join(ROOT, file), 'utf8').split('\n');
  const head = new RegExp(`^( *)(?:export )?(?:async )?(?:function |class )?${name}(?:<\\w+>)?[ (]`);
  const start = lines.findIndex((line) => head.test(line) && !line.trim().endsWith(';'));
  assert.ok(start >= 0, `${file} has no ${name}`);
  const indent = head.exec(lines[start] ?? '')?.[1] ?? '';
  const end = lines.findIndex((line, at) => at > start && line === `${indent}}`);
  return lines.slice(start + 1, end).join('\n');
}

test('every walk of ARCHITECTURE.md leads through functions that exist, each of which mentions the next', () => {
  const walks = chains.filter(({ length }) => length > 1);
  assert.ok(walks.length >= 5, 'the walks were found');
  for (const walk of walks) {
    for (const [at, step] of walk.entries()) {
      const source = sourceOf(step);
      const next = walk[at + 1];
      if (next === undefined) continue;
      const mention = new RegExp(`(?<![\\w#])${next.name}\\b`);
      assert.match(source, mention, `${step.file}: ${step.name} does not lead to ${next.name}`);
    }
  }
});
