import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { stripTypeScriptTypes } from 'node:module';
import { join, resolve } from 'node:path';
import { test } from 'node:test';
import { apply } from '../mutation/apply.ts';
import { loadLists } from '../mutation/load-lists.ts';

const ROOT = resolve(import.meta.dirname, '../..');
const mutations = await loadLists();

test('every mutation changes one place of its source file, and what it makes of it parses', () => {
  const wrong = mutations.flatMap((mutation) => {
    try {
      stripTypeScriptTypes(apply(mutation, readFileSync(join(ROOT, mutation.file), 'utf8')));
      return [];
    } catch (error) {
      return [`${mutation.area}: ${mutation.file}: ${String(error)}`];
    }
  });
  assert.deepEqual(wrong, []);
});

test('the tests that should notice a mutation exist', () => {
  const missing = mutations.flatMap(({ area, file, tests }) =>
    tests.filter((name) => !existsSync(join(ROOT, name))).map((name) => `${area}: ${file}: ${name}`),
  );
  assert.deepEqual(missing, []);
  assert.ok(mutations.every(({ tests }) => tests.length > 0));
});
