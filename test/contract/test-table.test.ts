import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { test } from 'node:test';

const TESTS = resolve(import.meta.dirname, '..');

test('the file of each row in the table of test/README.md contains its promises', () => {
  const readme = readFileSync(join(TESTS, 'README.md'), 'utf8');
  const rows = [...readme.matchAll(/^\| ([\w.]+) \| .*\| `([^`]+\.ts)` \| (.+) \|$/gm)];
  assert.ok(rows.length > 90, String(rows.length));
  const broken = rows.flatMap(([, row, file = '', promises = '']) => {
    const text = readFileSync(join(TESTS, file), 'utf8');
    return promises
      .split(' · ')
      .filter((promise) => !text.includes(promise))
      .map((promise) => `${row}: ${file}: ${promise}`);
  });
  assert.deepEqual(broken, []);
});
