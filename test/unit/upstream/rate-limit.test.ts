import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { parseRateLimit, parseRetryAfter } from '../../../src/upstream/rate-limit.ts';

const NOW = Date.UTC(2026, 0, 1);
const DAY = 24 * 3600 * 1000;

suite('the rate limit is read as Docker Hub writes it', () => {
  for (const [limit, remaining, expected] of [
    ['100;w=21600', '76;w=21600', { limit: 100, remaining: 76 }],
    ['200 ; w=3600', '0 ; w=3600', { limit: 200, remaining: 0 }],
    ['100', '99', { limit: 100, remaining: 99 }],
    [['100;w=21600'], undefined, { limit: 100 }],
    [undefined, '5;w=21600', { remaining: 5 }],
    [undefined, undefined, {}],
    ['unlimited', '-1', {}],
    ['', ';w=1', {}],
    ['1e3', '0x10', {}],
    ['99999999999999999999', '1 000', {}],
  ] as const) {
    test(`${String(limit)} and ${String(remaining)}`, () => {
      const headers = {
        ...(limit === undefined ? {} : { 'ratelimit-limit': typeof limit === 'string' ? limit : [...limit] }),
        ...(remaining === undefined ? {} : { 'ratelimit-remaining': remaining }),
      };
      assert.deepEqual(parseRateLimit(headers), expected);
    });
  }
});

suite('Retry-After is a time to wait, a day at most', () => {
  for (const [header, ms] of [
    ['0', 0],
    ['7', 7000],
    [' 7 ', 7000],
    ['3600', 3_600_000],
    ['86400', DAY],
    ['86401', DAY],
    ['99999999999', DAY],
    ['Thu, 01 Jan 2026 00:01:00 GMT', 60_000],
    ['Thursday, 01-Jan-26 00:01:00 GMT', 60_000],
    ['Wed, 31 Dec 2025 23:59:00 GMT', 0],
    ['Fri, 01 Jan 2027 00:00:00 GMT', DAY],
  ] as const) {
    test(header, () => assert.equal(parseRetryAfter(header, NOW), ms));
  }
});

suite('Retry-After that says nothing is as if there were none', () => {
  for (const header of [undefined, '', 'soon', '-5', '1.5', '1,2', '5s', '0x10', '1e3', 'Thu, nonsense']) {
    test(String(header), () => assert.equal(parseRetryAfter(header, NOW), undefined));
  }
});
