import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { Patience } from '../../../../src/policy/parts/scan/limits/patience.ts';
import { Turns } from '../../../../src/policy/parts/scan/limits/turns.ts';
import { FakeClock } from '../../../helpers/fake-clock.ts';

const never = new AbortController().signal;

function clockThatWaits(): FakeClock {
  const clock = new FakeClock();
  clock.impatient = false;
  return clock;
}

async function advance(clock: FakeClock, ms: number): Promise<void> {
  clock.advance(ms);
  await setImmediate();
}

test('whoever came first goes first, and only so many at a time', async () => {
  const turns = new Turns(2);
  const order: number[] = [];
  const [first, second] = [await turns.take(never), await turns.take(never)];
  const waiting = [3, 4, 5].map(async (n) => {
    const turn = await turns.take(never);
    order.push(n);
    return turn;
  });
  await setImmediate();
  assert.deepEqual(order, []);
  second[Symbol.dispose]();
  second[Symbol.dispose](); // gives one place back, and not two
  await setImmediate();
  assert.deepEqual(order, [3]);
  first[Symbol.dispose]();
  (await waiting[0])?.[Symbol.dispose]();
  await Promise.all(waiting);
  assert.deepEqual(order, [3, 4, 5]);
});

test('whoever needs all places waits for those who are there, and nobody passes them', async () => {
  const turns = new Turns(2);
  const order: string[] = [];
  const first = await turns.take(never);
  const all = turns.takeAll(never).then((turn) => {
    order.push('all');
    return turn;
  });
  const next = turns.take(never).then(() => order.push('next'));
  await setImmediate();
  assert.deepEqual(order, []);
  first[Symbol.dispose]();
  (await all)[Symbol.dispose]();
  await next;
  assert.deepEqual(order, ['all', 'next']);
});

test('whoever leaves the queue keeps nobody waiting', async () => {
  const turns = new Turns(2);
  const first = await turns.take(never);
  const leaving = new AbortController();
  const all = turns.takeAll(leaving.signal);
  const next = turns.take(never);
  leaving.abort(new Error('left'));
  await assert.rejects(all, /left/);
  await next;
  first[Symbol.dispose]();
  await assert.rejects(turns.take(AbortSignal.abort(new Error('gone'))), /gone/);
  await turns.take(never);
});

test('a scanner that asks for nothing ends at its limit', async () => {
  const clock = clockThatWaits();
  using patience = new Patience(10_000, clock);
  await advance(clock, 9_999);
  assert.equal(patience.signal.aborted, false);
  await advance(clock, 1);
  assert.match(String(patience.signal.reason), /it took too long/);
});

test('time in which the scanner waits for bytes does not count, and its limit begins anew with the last byte', async () => {
  const clock = clockThatWaits();
  using patience = new Patience(10_000, clock);
  await advance(clock, 6_000);
  const [one, two] = [patience.hold(), patience.hold()];
  await advance(clock, 600_000);
  one[Symbol.dispose]();
  one[Symbol.dispose]();
  await advance(clock, 600_000);
  two[Symbol.dispose]();
  await advance(clock, 3_999);
  assert.equal(patience.signal.aborted, false, 'the first 6 s and these 4 s count');
  patience.delivered();
  await advance(clock, 9_999);
  assert.equal(patience.signal.aborted, false);
  await advance(clock, 1);
  assert.equal(patience.signal.aborted, true);
});

test('the waiting for bytes has a limit of its own', async () => {
  const clock = clockThatWaits();
  using patience = new Patience(10_000, clock);
  const hold = patience.hold();
  await advance(clock, 3_600_000);
  assert.match(String(patience.signal.reason), /its bytes took too long to come/);
  hold[Symbol.dispose]();
});

test('a clock that is set back gives no time', async () => {
  const clock = clockThatWaits();
  using patience = new Patience(10_000, clock);
  await advance(clock, 9_000);
  patience.hold()[Symbol.dispose]();
  clock.advance(-3_600_000);
  patience.hold()[Symbol.dispose]();
  await advance(clock, 1_000);
  assert.equal(patience.signal.aborted, true);
});

test('nothing of it is left when the scan is over', async () => {
  const clock = clockThatWaits();
  const patience = new Patience(10_000, clock);
  const hold = patience.hold();
  patience[Symbol.dispose]();
  hold[Symbol.dispose]();
  patience.hold();
  await setImmediate();
  assert.equal(clock.isAwaited, false);
});
