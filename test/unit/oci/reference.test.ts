import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { imagePattern, parseReference, parseRepository, parseTag } from '../../../src/oci/reference.ts';

suite('a repository', () => {
  for (const text of ['alpine', 'library/alpine', 'a.b/c_d/e__f/g---h', '0/1', 'a'.repeat(255)]) {
    test(`may be called ${text.slice(0, 40)}`, () => assert.equal(parseRepository(text), text));
  }

  for (const text of [
    '',
    '/a',
    'a/',
    'a//b',
    'A',
    'a..b',
    'a._b',
    'a___b',
    '.a',
    'a-',
    'a/../b',
    'a b',
    'a\n',
    'é',
    'a:b',
    'a'.repeat(256),
  ]) {
    test(`may not be called ${JSON.stringify(text.slice(0, 40))}`, () =>
      assert.equal(parseRepository(text), undefined));
  }
});

suite('a tag', () => {
  for (const text of ['latest', 'V1.2-rc_3', '_', '0', 'a'.repeat(128)]) {
    test(`may be called ${text.slice(0, 40)}`, () => assert.equal(parseTag(text), text));
  }

  for (const text of ['', '.a', '-a', 'a/b', 'a:b', 'a b', 'a\n', 'é', 'a'.repeat(129)]) {
    test(`may not be called ${JSON.stringify(text.slice(0, 40))}`, () =>
      assert.equal(parseTag(text), undefined));
  }
});

test('a reference with a colon is a digest or nothing', () => {
  assert.equal(parseReference(`sha256:${'a'.repeat(64)}`), `sha256:${'a'.repeat(64)}`);
  assert.equal(parseReference('latest:1'), undefined);
});

suite('a pattern of images', () => {
  for (const [pattern, name, matches] of [
    ['docker.io/library/alpine:*', 'docker.io/library/alpine:3.20', true],
    ['docker.io/library/alpine:*', 'docker.io/library/alpine-slim:3.20', false],
    ['*/alpine:*', 'docker.io/library/alpine:3.20', true],
    ['*', 'docker.io/library/alpine:3.20', true],
    ['docker.io/library/alpine:3.20', 'docker.io/library/alpine:3.20', true],
    ['docker.io/library/alpine:3.20', 'docker.io/library/alpine:3.20.1', false],
    ['library/alpine:*', 'docker.io/library/alpine:3.20', false],
    ['quay.io/*', 'quayXio/app:1', false],
    ['quay.io/[a]+:1', 'quay.io/aa:1', false],
  ] as const) {
    test(`${pattern} ${matches ? 'matches' : 'does not match'} ${name}`, () =>
      assert.equal(imagePattern(pattern).test(name), matches));
  }
});
