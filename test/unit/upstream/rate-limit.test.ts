import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import {
  explainRateLimit,
  parseRateLimit,
  parseRetryAfter,
} from '../../../src/upstream/limits/rate-limit.ts';

const NOW = Date.UTC(2026, 0, 1);
const DAY = 24 * 3600 * 1000;

const HOUR = 3600 * 1000;

suite('the rate limit is read as Docker Hub writes it', () => {
  for (const [limit, remaining, expected] of [
    ['100;w=21600', '76;w=21600', { limit: 100, remaining: 76, windowMs: 6 * HOUR }],
    ['200 ; w=3600', '0 ; w=3600', { limit: 200, remaining: 0, windowMs: HOUR }],
    ['200 ;  w = 3600', '199', { limit: 200, remaining: 199, windowMs: HOUR }],
    ['100', '99', { limit: 100, remaining: 99 }],
    [['100;w=21600'], undefined, { limit: 100, windowMs: 6 * HOUR }],
    [undefined, '5;w=21600', { remaining: 5, windowMs: 6 * HOUR }],
    ['100;w=999999999', '5', { limit: 100, remaining: 5, windowMs: DAY }],
    ['100;w=soon', '5;', { limit: 100, remaining: 5 }],
    [undefined, undefined, {}],
    ['unlimited', '-1', {}],
    ['', ';w=x', {}],
    ['1e3', '0x10', {}],
    ['99999999999999999999', '1 000', {}],
  ] as const) {
    test(`${String(limit)} and ${String(remaining)}`, () => {
      const headers = {
        ...(limit === undefined ? {} : { 'ratelimit-limit': typeof limit === 'string' ? limit : [...limit] }),
        ...(remaining === undefined ? {} : { 'ratelimit-remaining': remaining }),
      };
      assert.deepEqual(parseRateLimit(headers, NOW), expected);
    });
  }
});

suite('and as others write it', () => {
  for (const [what, headers, expected] of [
    [
      'Docker Hub’s second pair',
      { 'x-ratelimit-limit': '200', 'x-ratelimit-remaining': '7' },
      { limit: 200, remaining: 7 },
    ],
    [
      'both pairs, of which the first counts',
      { 'ratelimit-remaining': '5;w=3600', 'x-ratelimit-remaining': '7', 'x-ratelimit-limit': '9' },
      { limit: 9, remaining: 5, windowMs: HOUR },
    ],
    [
      'a reset in seconds',
      { 'ratelimit-limit': '60', 'ratelimit-remaining': '1', 'ratelimit-reset': '30' },
      { limit: 60, remaining: 1, windowMs: 30_000 },
    ],
    [
      'a reset at a time',
      { 'x-ratelimit-remaining': '1', 'x-ratelimit-reset': String(NOW / 1000 + 90) },
      { remaining: 1, windowMs: 90_000 },
    ],
    ['a reset in the past', { 'ratelimit-reset': String(NOW / 1000 - 90) }, { windowMs: 0 }],
    [
      'the IETF’s items',
      { ratelimit: '"default";r=50;t=30', 'ratelimit-policy': '"burst";q=9;w=1, "default";q=100;w=60' },
      { limit: 100, remaining: 50, windowMs: 30_000 },
    ],
    [
      'the scarcest of several items',
      { ratelimit: '"day";r=5;t=3600, "minute";r=50;t=30', 'ratelimit-policy': '"day";q=100;w=86400' },
      { limit: 100, remaining: 5, windowMs: HOUR },
    ],
    [
      'the IETF’s older draft',
      { ratelimit: 'limit=100, remaining=50, reset=30', 'ratelimit-policy': '100;w=60' },
      { limit: 100, remaining: 50, windowMs: 30_000 },
    ],
    ['nonsense', { ratelimit: ';;,r=,=5 t', 'ratelimit-policy': ',', 'x-ratelimit-reset': 'never' }, {}],
  ] as const) {
    test(what, () => assert.deepEqual(parseRateLimit(headers, NOW), expected));
  }
});

suite('the two limits of Docker Hub are distinguished', () => {
  const quota = /^the pull quota is used up: .* credentials of an account that is allowed more pulls$/;
  const requests = /^too many requests in a short time, not the pull quota: .* tagTtl/;
  for (const [what, code, text, advice, pauseMs] of [
    [
      'Docker Hub’s quota',
      'TOOMANYREQUESTS',
      'TOOMANYREQUESTS You have reached your pull rate limit. You may increase the limit by authenticating and upgrading: https://www.docker.com/increase-rate-limit',
      quota,
      60_000,
    ],
    [
      'Docker Hub’s quota, anonymous',
      'TOOMANYREQUESTS',
      'You have reached your unauthenticated pull rate limit.',
      quota,
      60_000,
    ],
    ['Docker Hub’s limit of requests', undefined, '429 Too Many Requests', requests, 5000],
    ['a page', undefined, '', requests, 5000],
    ['another registry', 'TOOMANYREQUESTS', 'Rate exceeded', /^$/, 5000],
  ] as const) {
    test(what, () => {
      const refusal = explainRateLimit(code, text);
      assert.match(refusal.advice, advice);
      assert.equal(refusal.pauseMs, pauseMs);
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

suite('Retry-After that cannot be read is ignored', () => {
  for (const header of [undefined, '', 'soon', '-5', '1.5', '1,2', '5s', '0x10', '1e3', 'Thu, nonsense']) {
    test(String(header), () => assert.equal(parseRetryAfter(header, NOW), undefined));
  }
});
