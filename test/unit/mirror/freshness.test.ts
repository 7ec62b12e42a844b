import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  afterFailedRevalidation,
  asking,
  type FreshnessPolicy,
  freshnessOf,
} from '../../../src/mirror/freshness.ts';
import { digestOf } from '../../../src/oci/digest.ts';
import type { Tag } from '../../../src/oci/reference.ts';

const policy: FreshnessPolicy = {
  tagTtlMs: 300_000,
  immutableTags: [/^v?\d+\.\d+\.\d+$/],
  staleWhileRevalidateMs: 0,
  staleIfErrorMs: 1_000_000,
  onTagDeleted: 'forget',
  negativeTtlMs: 30_000,
};
const confirmedAt = 1_700_000_000_000;
const record = { digest: digestOf(Buffer.from('x')), mediaType: 'm', size: 1, confirmedAt };

for (const [what, tag, age, expected] of [
  ['just confirmed', 'latest', 0, 'fresh'],
  ['within the TTL', 'latest', 299_999, 'fresh'],
  ['at the TTL', 'latest', 300_000, 'stale'],
  ['at the end of staleIfError', 'latest', 1_299_999, 'stale'],
  ['past staleIfError', 'latest', 1_300_000, 'expired'],
  ['that is immutable, years later', '1.2.3', 1e12, 'fresh'],
  ['that is immutable, with a v', 'v1.2.3', 1e12, 'fresh'],
  ['that only begins like an immutable one', '1.2.3-rc1', 1e12, 'expired'],
  ['confirmed in the future, because the clock went back', 'latest', -1, 'stale'],
] as const) {
  test(`a tag ${what} is ${expected}`, () => {
    assert.equal(freshnessOf(record, tag as Tag, confirmedAt + age, policy), expected);
  });
}

for (const [age, expected] of [
  [299_999, 'fresh'],
  [300_000, 'stale-while-revalidate'],
  [359_999, 'stale-while-revalidate'],
  [360_000, 'stale'],
] as const) {
  test(`with staleWhileRevalidate of a minute a tag of ${age} ms is ${expected}`, () => {
    const withPolicy = { ...policy, staleWhileRevalidateMs: 60_000 };
    assert.equal(freshnessOf(record, 'latest' as Tag, confirmedAt + age, withPolicy), expected);
  });
}

test('who wants to know now asks about every tag, immutable ones too', () => {
  const now = asking({ ...policy, staleWhileRevalidateMs: 60_000 });
  for (const tag of ['latest', '1.2.3'])
    assert.equal(freshnessOf(record, tag as Tag, confirmedAt, now), 'stale');
});

test('a TTL of 0 asks every time', () => {
  assert.equal(freshnessOf(record, 'latest' as Tag, confirmedAt, { ...policy, tagTtlMs: 0 }), 'stale');
});

// Every (state × upstream outcome) pair.
for (const [error, onTagDeleted, stale, expired] of [
  ['unavailable', 'forget', 'serve-stale', 'fail'],
  ['timeout', 'forget', 'serve-stale', 'fail'],
  ['rate-limited', 'forget', 'serve-stale', 'fail'],
  ['invalid-response', 'forget', 'serve-stale', 'fail'],
  ['denied', 'forget', 'fail', 'fail'],
  ['denied', 'keep', 'fail', 'fail'],
  ['not-found', 'forget', 'forget', 'forget'],
  ['not-found', 'keep', 'serve-stale', 'serve-stale'],
  ['sealed', 'forget', 'serve-stale', 'serve-stale'],
] as const) {
  test(`upstream ${error}, onTagDeleted ${onTagDeleted}: a stale tag → ${stale}, an expired one → ${expired}`, () => {
    const withPolicy = { ...policy, onTagDeleted };
    assert.equal(afterFailedRevalidation('stale', error, withPolicy), stale);
    assert.equal(afterFailedRevalidation('stale-while-revalidate', error, withPolicy), stale);
    assert.equal(afterFailedRevalidation('expired', error, withPolicy), expired);
  });
}
