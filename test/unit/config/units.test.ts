import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { formatDuration, formatSize, parseDuration, parseSize } from '../../../src/config/fields/units.ts';

suite('durations and sizes', () => {
  for (const [text, ms] of [
    ['500ms', 500],
    ['0s', 0],
    ['30s', 30_000],
    ['5m', 300_000],
    ['24h', 86_400_000],
    ['7d', 604_800_000],
  ] as const) {
    test(`reads ${text} as ${ms} ms`, () => assert.equal(parseDuration(text), ms));
  }

  for (const [text, bytes] of [
    ['1B', 1],
    ['4KiB', 4096],
    ['512MiB', 536_870_912],
    ['50GiB', 53_687_091_200],
    ['2TiB', 2_199_023_255_552],
  ] as const) {
    test(`reads ${text} as ${bytes} bytes`, () => assert.equal(parseSize(text), bytes));
  }

  for (const text of [
    '',
    '5',
    's',
    '5 m',
    ' 5m',
    '5m ',
    '-5m',
    '1.5h',
    '5M',
    '5min',
    '1e3s',
    '٣s',
    '5m30s',
  ]) {
    test(`${JSON.stringify(text)} is not a duration`, () => assert.equal(parseDuration(text), undefined));
  }

  for (const text of ['', '50', 'GiB', '50GB', '50gib', '50 GiB', '-1GiB', '0x10B', '1.5GiB', '1PiB']) {
    test(`${JSON.stringify(text)} is not a size`, () => assert.equal(parseSize(text), undefined));
  }

  test('refuses amounts that are too large to be exact', () => {
    assert.equal(parseSize('8191TiB'), 8191 * 2 ** 40);
    assert.equal(parseSize('8192TiB'), undefined);
    assert.equal(parseDuration('104249992d'), undefined);
    assert.equal(parseDuration(`${'9'.repeat(400)}s`), undefined);
  });

  test('writes amounts in the largest unit that keeps them exact', () => {
    assert.deepEqual([0, 1, 1_500, 60_000, 90_000, 86_400_000].map(formatDuration), [
      '0s',
      '1ms',
      '1500ms',
      '1m',
      '90s',
      '1d',
    ]);
    assert.deepEqual([0, 1, 1536, 2048, 50 * 2 ** 30].map(formatSize), [
      '0B',
      '1B',
      '1536B',
      '2KiB',
      '50GiB',
    ]);
  });
});
