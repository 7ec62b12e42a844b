import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatContentRange, parseRange } from '../../../src/http/server/range.ts';

// The six cases of the OCI conformance suite (a blob of 2048 bytes), and their neighbours.
for (const [header, expected] of [
  ['bytes=500-1499', { start: 500, end: 1500 }],
  ['bytes=500-', { start: 500, end: 2048 }],
  ['bytes=-500', { start: 1548, end: 2048 }],
  ['bytes=2000-5000', { start: 2000, end: 2048 }],
  ['bytes=500-0', 'unsatisfiable'],
  ['bytes=5000-10000', 'unsatisfiable'],
  ['bytes=0-', { start: 0, end: 2048 }],
  ['bytes=0-0', { start: 0, end: 1 }],
  ['bytes=2047-', { start: 2047, end: 2048 }],
  ['bytes=2048-', 'unsatisfiable'],
  ['bytes=-0', 'unsatisfiable'],
  ['bytes=-5000', { start: 0, end: 2048 }],
  ['Bytes=1-2', { start: 1, end: 3 }],
  ['bytes=-', 'unsatisfiable'],
  ['bytes=abc', 'unsatisfiable'],
  ['bytes=1-2-3', 'unsatisfiable'],
  ['bytes=', 'unsatisfiable'],
  ['bytes=99999999999999999999-', 'unsatisfiable'],
  ['bytes=0-99,200-299', 'whole'],
  ['items=0-5', 'whole'],
  [undefined, 'whole'],
] as const) {
  test(`Range: ${header ?? '(none)'} of 2048 bytes`, () => {
    assert.deepEqual(parseRange(header, 2048), expected);
  });
}

test('no range of an empty blob can be satisfied', () => {
  assert.equal(parseRange('bytes=0-', 0), 'unsatisfiable');
  assert.equal(parseRange('bytes=-1', 0), 'unsatisfiable');
});

test('Content-Range counts its last byte in', () => {
  assert.equal(formatContentRange({ start: 500, end: 1500 }, 2048), 'bytes 500-1499/2048');
});
