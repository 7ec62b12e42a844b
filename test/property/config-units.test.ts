import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { formatDuration, formatSize, parseDuration, parseSize } from '../../src/config/fields/units.ts';

const amount = fc.maxSafeNat();

test('the text of a duration is read as the same duration', () => {
  fc.assert(fc.property(amount, (ms) => assert.equal(parseDuration(formatDuration(ms)), ms)));
});

test('the text of a size is read as the same size', () => {
  fc.assert(fc.property(amount, (bytes) => assert.equal(parseSize(formatSize(bytes)), bytes)));
});

test('the text of a duration is never longer than what a person wrote', () => {
  const written = fc
    .tuple(fc.nat(100_000), fc.constantFrom('ms', 's', 'm', 'h', 'd'))
    .map((parts) => parts.join(''));
  fc.assert(
    fc.property(written, (text) => {
      const ms = parseDuration(text) ?? assert.fail(text);
      assert.ok(formatDuration(ms).length <= text.length);
      assert.equal(parseDuration(formatDuration(ms)), ms);
    }),
  );
});

test('any text gives a whole number or none, and never throws', () => {
  fc.assert(
    fc.property(fc.string(), (text) => {
      for (const value of [parseDuration(text), parseSize(text)]) {
        assert.ok(value === undefined || (Number.isSafeInteger(value) && value >= 0));
      }
    }),
  );
});
