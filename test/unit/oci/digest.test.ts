import assert from 'node:assert/strict';
import { test } from 'node:test';
import { digestOf, parseDigest } from '../../../src/oci/digest.ts';

test('sha256 and sha512 digests are accepted', () => {
  assert.ok(parseDigest(`sha256:${'a0'.repeat(32)}`));
  assert.ok(parseDigest(`sha512:${'a0'.repeat(64)}`));
});

for (const [what, text] of [
  ['upper-case hex, which would be a second entry for one content', `sha256:${'A0'.repeat(32)}`],
  ['an upper-case algorithm', `SHA256:${'a0'.repeat(32)}`],
  ['a digest that is too short', `sha256:${'a0'.repeat(31)}`],
  ['a sha512 of sha256 length', `sha512:${'a0'.repeat(32)}`],
  ['an algorithm that we cannot verify', `md5:${'a0'.repeat(16)}`],
  ['a path', `sha256:../${'a'.repeat(61)}`],
  ['a trailing line feed', `sha256:${'a0'.repeat(32)}\n`],
  ['nothing', ''],
] as const) {
  test(`${what} is not a digest`, () => assert.equal(parseDigest(text), undefined));
}

test('the digest of the empty blob is the one that everybody knows', () => {
  assert.equal(
    digestOf(Buffer.alloc(0)),
    'sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
  );
});
