import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { fetchInLanes } from '../../../src/mirror/blobs/segments.ts';
import { FakeClock } from '../../helpers/fake-clock.ts';

const MIB = 1024 * 1024;
/** What a range of 16 MiB takes at 200 MiB/s, in milliseconds. */
const FAST_MS = 80;

/** Fetches four ranges, of which none comes to its end before {@link finish}. */
function begin() {
  const clock = new FakeClock();
  clock.impatient = false;
  const state = { waitedMs: 0, fetches: 1 };
  const end = Promise.withResolvers<void>();
  const [first = assert.fail(), ...rest] = [0, 1, 2, 3].map((at) => ({
    from: at * 16 * MIB,
    to: (at + 1) * 16 * MIB,
  }));
  const done = fetchInLanes({ segment: first, fetched: end.promise }, rest, {
    lanes: 4,
    clock,
    waitedMs: () => state.waitedMs,
    fetch: () => {
      state.fetches += 1;
      return end.promise;
    },
    abort: () => assert.fail('nothing fails'),
  });
  const pass = async (ms: number, waitedMs: number) => {
    state.waitedMs += waitedMs;
    clock.advance(ms);
    await setImmediate();
    return state.fetches;
  };
  const finish = () => {
    end.resolve();
    return done;
  };
  return { pass, finish };
}

test('a connection gets company only when a while has passed in which the bandwidth limit did not hold it', async () => {
  const { pass, finish } = begin();
  assert.equal(await pass(FAST_MS, 60), 1);
  assert.equal(await pass(FAST_MS, 1), 1);
  assert.equal(await pass(FAST_MS - 1, 0), 1);
  assert.equal(await pass(1, 0), 4);
  await finish();
});
