import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SendBuffers } from '../../../src/http/server/send-buffers.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
const LARGE = 100 * MIB;

test('few replies are sent from large buffers, and those who come later from smaller ones', () => {
  const buffers = new SendBuffers();
  const sizes = Array.from({ length: 400 }, () => buffers.take(LARGE).length / KIB);
  const count = (kib: number) => sizes.filter((size) => size === kib).length;
  assert.deepEqual([count(512), count(256), count(128), count(32)], [16, 64, 256, 64]);
  assert.deepEqual(
    sizes,
    sizes.toSorted((a, b) => b - a),
  );
});

test('however many replies are sent, their large buffers take 56 MiB, again and again', () => {
  const buffers = new SendBuffers();
  const seen = new Set<Buffer>();
  for (let round = 0; round < 3; round += 1) {
    const taken = Array.from({ length: 1000 }, () => buffers.take(LARGE));
    for (const buffer of taken) {
      if (buffer.length > 32 * KIB) seen.add(buffer);
      buffers.give(buffer);
    }
  }
  const bytes = [...seen].reduce((sum, { length }) => sum + length, 0);
  assert.equal(bytes, 56 * MIB);
});

for (const [wanted, got] of [
  [1, 1],
  [32 * KIB, 32 * KIB],
  [64 * KIB, 32 * KIB],
  [65 * KIB, 128 * KIB],
  [129 * KIB, 256 * KIB],
  [257 * KIB, 512 * KIB],
] as const) {
  test(`${wanted} bytes are sent from a buffer of ${got}`, () => {
    assert.equal(new SendBuffers().take(wanted).length, got);
  });
}
