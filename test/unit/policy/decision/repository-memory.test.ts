/** What is remembered of repositories has a limit. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseRepository, type Repository } from '../../../../src/oci/reference.ts';
import { RepositoryMemory } from '../../../../src/policy/decision/repository-memory.ts';

test('repositories that clients make up do not fill the memory', () => {
  const memory = new RepositoryMemory([]);
  const of = (n: number) =>
    memory.of({ upstream: 'ghcr.io', repository: parseRepository(`made/up-${n}`) as Repository });
  const first = of(0);
  for (let n = 0; n < 50_000; n += 1) assert.ok(of(n));
  assert.equal(memory.generation, 0);
  assert.equal(of(0), first);
  of(50_000);
  assert.equal(memory.generation, 1);
  assert.notEqual(of(0), first);
});
