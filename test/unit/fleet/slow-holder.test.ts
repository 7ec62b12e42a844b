/** A node that is slow is told from one that waits for us. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fastEnough } from '../../../src/fleet/nodes/slow-holder.ts';
import { FakeClock } from '../../helpers/fake-clock.ts';

const PIECE = Buffer.alloc(100 * 1024);

async function read(clock: FakeClock, pieceMs: number, useMs: number): Promise<number> {
  let slow = 0;
  async function* pieces() {
    for (let at = 0; at < 50; at += 1) {
      clock.advance(pieceMs);
      yield PIECE;
    }
  }
  let count = 0;
  try {
    for await (const _ of fastEnough(pieces(), clock, () => (slow += 1))) {
      count += 1;
      clock.advance(useMs);
    }
  } catch (error) {
    assert.equal(slow, 1);
    assert.equal((error as { code?: string }).code, 'timeout');
  }
  return count;
}

test('a node that brings 256 KiB a second and more is followed to the end', async () => {
  assert.equal(await read(new FakeClock(), 390, 0), 50);
});

test('a node that brings less is given up after five seconds', async () => {
  assert.equal(await read(new FakeClock(), 400, 0), 12);
});

test('how long we are busy with what came does not count', async () => {
  assert.equal(await read(new FakeClock(), 100, 10_000), 50);
});
