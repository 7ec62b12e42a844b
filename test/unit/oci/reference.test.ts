import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseRepository, parseTag } from '../../../src/oci/reference.ts';

test('a repository name has at most 255 characters', () => {
  assert.ok(parseRepository('a'.repeat(255)));
  assert.equal(parseRepository('a'.repeat(256)), undefined);
});

test('a tag has at most 128 characters', () => {
  assert.ok(parseTag('a'.repeat(128)));
  assert.equal(parseTag('a'.repeat(129)), undefined);
});
