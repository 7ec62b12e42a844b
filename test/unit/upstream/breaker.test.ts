import assert from 'node:assert/strict';
import { test } from 'node:test';
import { UpstreamError } from '../../../src/upstream/errors.ts';
import { Breaker } from '../../../src/upstream/limits/breaker.ts';
import { FakeClock } from '../../helpers/fake-clock.ts';
import { CONTEXT } from '../../helpers/request-context.ts';
import { silentLogger } from '../../helpers/test-transport.ts';

const SECOND = 1000;
const DAY = 24 * 3600 * SECOND;
const BROKEN = new UpstreamError('unavailable', 'quay.io', 'the connection broke');
const SILENT = new UpstreamError('timeout', 'quay.io', 'no reply in time');
const STATUS_503 = new UpstreamError('unavailable', 'quay.io', 'upstream answered 503', { status: 503 });

function setUp() {
  const clock = new FakeClock();
  const breaker = new Breaker('quay.io', { logger: silentLogger(), clock, random: () => 1 });
  const fail = (...errors: UpstreamError[]) => errors.forEach((error) => breaker.failed(CONTEXT, error));
  return { clock, breaker, fail, lets: () => breaker.refusal() === undefined };
}

test('three failures in a row open the breaker, and an answer in between starts the count again', () => {
  const { breaker, fail, lets } = setUp();
  fail(BROKEN, BROKEN);
  assert.equal(lets(), true);
  breaker.answered(CONTEXT);
  fail(BROKEN, BROKEN);
  assert.equal(lets(), true);
  fail(BROKEN);
  assert.equal(lets(), false);
});

test('one timeout opens it at once', () => {
  const { fail, lets } = setUp();
  fail(SILENT);
  assert.equal(lets(), false);
});

test('an upstream that answers 5xx stays open to all, however often it does', () => {
  const { fail, lets, breaker } = setUp();
  for (let reply = 0; reply < 10; reply += 1) fail(STATUS_503);
  assert.deepEqual([lets(), breaker.isOpen], [true, false]);
});

test('the cooldown doubles with each failed trial, up to a minute, and begins anew after an answer', () => {
  const { clock, breaker, fail, lets } = setUp();
  /** Seconds until the next trial, which all but one caller wait for again. */
  const cooldown = () => {
    for (let seconds = 0; seconds < 1000; seconds += 1) {
      if (lets()) {
        assert.equal(lets(), false, 'one caller only');
        return seconds;
      }
      clock.advance(SECOND);
    }
    return assert.fail('it never ended');
  };
  fail(SILENT);
  const cooldowns = Array.from({ length: 6 }, () => {
    const seconds = cooldown();
    fail(SILENT);
    return seconds;
  });
  assert.deepEqual(cooldowns, [5, 10, 20, 40, 60, 60]);
  breaker.answered(CONTEXT);
  assert.deepEqual([lets(), lets()], [true, true]);
  fail(SILENT);
  assert.equal(cooldown(), 5);
});

test('a clock that is turned back does not keep it open', () => {
  const { clock, fail, lets } = setUp();
  fail(SILENT);
  clock.advance(-DAY);
  assert.equal(lets(), true);
});

test('the refusal says when the upstream is asked again', () => {
  const { clock, breaker, fail } = setUp();
  fail(SILENT);
  clock.advance(1500);
  const refusal = breaker.refusal();
  assert.equal(refusal?.code, 'unavailable');
  assert.equal(refusal.message, 'quay.io: did not answer the last requests; the mirror tries again in 4 s');
});
