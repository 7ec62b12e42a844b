import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { verdictOf } from '../../../../src/policy/decision/verdict.ts';
import type { Finding } from '../../../../src/policy/parts/part.ts';

const finding: fc.Arbitrary<Finding> = fc.oneof(
  fc.record({ allowed: fc.constant(true as const) }),
  fc.record({ allowed: fc.constant(true as const), until: fc.nat() }),
  fc.record({
    allowed: fc.constant(false as const),
    reason: fc.string(),
    advice: fc.string(),
    detail: fc.constant({}),
    isUnknown: fc.boolean(),
  }),
);
const findings = fc.uniqueArray(fc.tuple(fc.string(), finding), { selector: ([name]) => name });

test('nothing is let in that one policy refuses, or cannot judge, whatever the others say', () => {
  fc.assert(
    fc.property(findings, (all) => {
      const verdict = verdictOf(new Map(all));
      assert.equal(
        verdict.allowed,
        all.every(([, { allowed }]) => allowed),
      );
      if (!verdict.allowed) assert.ok(all.some(([name, { allowed }]) => name === verdict.policy && !allowed));
    }),
  );
});

test('the order of the policies never matters', () => {
  fc.assert(
    fc.property(findings, (all) => {
      assert.deepEqual(verdictOf(new Map(all)), verdictOf(new Map(all.toReversed())));
    }),
  );
});

test('an allow holds as long as that of every policy', () => {
  fc.assert(
    fc.property(findings, (all) => {
      const verdict = verdictOf(new Map(all));
      if (!verdict.allowed) return;
      for (const [, one] of all) assert.ok(verdict.until <= (one.until ?? Number.POSITIVE_INFINITY));
    }),
  );
});
