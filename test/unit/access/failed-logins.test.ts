import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { FailedLogins, type Login } from '../../../src/access/credentials/passwords/failed-logins.ts';
import { TooManyAttemptsError } from '../../../src/access/errors.ts';
import { FakeClock } from '../../helpers/fake-clock.ts';

const OPS: Login = { address: '192.0.2.1', user: 'ops' };
const MINUTE = 60_000;

class Attempts {
  readonly clock = new FakeClock();
  readonly failedLogins = new FailedLogins(this.clock);
  #count = 0;

  /** How long a new attempt has to wait. */
  async wait(login = OPS): Promise<number> {
    const before = this.clock.now();
    await this.turn(login);
    return this.clock.now() - before;
  }

  turn(login = OPS, signal?: AbortSignal): Promise<void> {
    this.#count += 1;
    return this.failedLogins.turn(login, `attempt ${this.#count}`, signal);
  }

  /** Each guess waits for its turn and is wrong. */
  async guess(times: number, login = OPS): Promise<number[]> {
    const waits: number[] = [];
    for (let guessed = 0; guessed < times; guessed += 1) {
      waits.push(await this.wait(login));
      this.failedLogins.failed(login);
    }
    return waits;
  }
}

async function retryAfter(refused: Promise<void>): Promise<number> {
  const error = await refused.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof TooManyAttemptsError);
  return error.retryAfterMs;
}

suite('after failed logins', () => {
  test('three mistakes cost nothing, then the delay doubles up to 10 s', async () => {
    const waits = await new Attempts().guess(12);
    assert.deepEqual(waits, [0, 0, 0, 0, 250, 500, 1_000, 2_000, 4_000, 8_000, 10_000, 10_000]);
  });

  test('another user of the client, and the same user of another client, do not wait', async () => {
    const attempts = new Attempts();
    await attempts.guess(8);
    assert.equal(await attempts.wait({ ...OPS, user: 'dev' }), 0);
    assert.equal(await attempts.wait({ ...OPS, address: '192.0.2.2' }), 0);
    assert.equal(await attempts.wait({ ...OPS, address: '::ffff:192.0.2.1' }), 4_000);
  });

  test('a /64 of IPv6 is one client', async () => {
    const attempts = new Attempts();
    await attempts.guess(8, { ...OPS, address: '2001:db8::1' });
    assert.equal(await attempts.wait({ ...OPS, address: '2001:db8::ffff:0:0:1' }), 4_000);
    assert.equal(await attempts.wait({ ...OPS, address: '2001:db8:0:1::1' }), 0);
  });

  test('a success forgets them for this user from this client', async () => {
    const attempts = new Attempts();
    await attempts.guess(8);
    await attempts.guess(8, { ...OPS, user: 'dev' });
    attempts.failedLogins.succeeded(OPS);
    assert.equal(await attempts.wait(), 0);
    assert.ok((await attempts.wait({ ...OPS, user: 'dev' })) > 0);
  });

  test('one is forgotten a minute', async () => {
    const attempts = new Attempts();
    await attempts.guess(5);
    attempts.clock.advance(2 * MINUTE);
    assert.deepEqual(await attempts.guess(3), [0, 250, 500]); // as after 3
    attempts.clock.advance(20 * MINUTE);
    assert.deepEqual(await attempts.guess(4), [0, 0, 0, 0]);
  });

  test('a wrong password that is sent once a minute is never delayed', async () => {
    const attempts = new Attempts();
    for (let minute = 0; minute < 60; minute += 1) {
      assert.equal(await attempts.wait(), 0);
      attempts.failedLogins.failed(OPS);
      attempts.clock.advance(MINUTE);
    }
  });

  test('a thousand failures are forgotten as soon as ten', async () => {
    const attempts = new Attempts();
    for (let guessed = 0; guessed < 1_000; guessed += 1) attempts.failedLogins.failed(OPS);
    attempts.clock.advance(10 * MINUTE);
    assert.equal(await attempts.wait(), 0);
    attempts.failedLogins.failed(OPS);
    assert.equal(await attempts.wait(), 0);
  });

  test('a client that tries many users is slowed down to one attempt a second', async () => {
    const attempts = new Attempts();
    const waits: number[] = [];
    for (let guessed = 0; guessed < 25; guessed += 1) {
      waits.push(...(await attempts.guess(1, { ...OPS, user: `user ${guessed}` })));
    }
    assert.deepEqual(waits.slice(0, 21), Array(21).fill(0));
    assert.deepEqual(waits.slice(21), [250, 500, 1_000, 1_000]);
  });

  test('attempts sent at the same time are spaced as those sent one after the other', async () => {
    const attempts = new Attempts();
    await attempts.guess(7); // 2 s apart from now on
    attempts.clock.impatient = false;
    const ended: number[] = [];
    const start = attempts.clock.now();
    const waiting = [1, 2, 3, 4].map(async () => {
      await attempts.turn();
      ended.push(attempts.clock.now() - start);
    });
    for (let second = 0; second < 10; second += 1) {
      attempts.clock.advance(1_000);
      await setImmediate();
    }
    await Promise.all(waiting);
    assert.deepEqual(ended, [2_000, 4_000, 6_000, 8_000]);
  });

  test('an attempt that would wait for more than 10 s is refused with the time when to come again', async () => {
    const attempts = new Attempts();
    await attempts.guess(9); // 8 s apart from now on
    attempts.clock.impatient = false;
    const waiting = attempts.turn();
    assert.equal(await retryAfter(attempts.turn()), 16_000);
    attempts.clock.advance(8_000);
    await waiting;
  });

  test('equal attempts share one turn, whichever of them leaves', async () => {
    const attempts = new Attempts();
    await attempts.guess(9);
    attempts.clock.impatient = false;
    const leaving = new AbortController();
    const equal = () => attempts.failedLogins.turn(OPS, 'the same', leaving.signal);
    const [first, ...others] = [
      equal(),
      ...Array.from({ length: 50 }, () => attempts.failedLogins.turn(OPS, 'the same')),
    ];
    leaving.abort();
    await assert.rejects(async () => first, { name: 'AbortError' });
    attempts.clock.advance(8_000);
    await Promise.all(others);
    await attempts.failedLogins.turn(OPS, 'the same'); // the turn is not over
  });
});

suite('requests that are held', () => {
  /** Of as many clients as it takes: one alone is refused much earlier. */
  function hold(attempts: Attempts, count: number, signal?: AbortSignal): Promise<void>[] {
    return Array.from({ length: count }, async (_, client) => {
      const login = { address: `198.51.${client >> 8}.${client & 255}`, user: 'ops' };
      for (let failed = 0; failed < 8; failed += 1) attempts.failedLogins.failed(login);
      await attempts.turn(login, signal);
    });
  }

  test('are a thousand at most; a turn that needs no waiting is given all the same', async () => {
    const attempts = new Attempts();
    attempts.clock.impatient = false;
    await attempts.guess(4);
    const held = hold(attempts, 1_000);
    await setImmediate();
    assert.ok((await retryAfter(attempts.turn())) > 0);
    assert.equal(await attempts.wait({ ...OPS, user: 'dev' }), 0);
    attempts.clock.advance(10_000);
    await Promise.all(held);
    assert.equal(await attempts.wait(), 0);
  });

  test('count equal attempts one by one', async () => {
    const attempts = new Attempts();
    await attempts.guess(8);
    attempts.clock.impatient = false;
    const held = Array.from({ length: 1_000 }, () => attempts.failedLogins.turn(OPS, 'the same'));
    await assert.rejects(attempts.failedLogins.turn(OPS, 'the same'), TooManyAttemptsError);
    attempts.clock.advance(10_000);
    await Promise.all(held);
  });

  test('give up their place when their client leaves', async () => {
    const attempts = new Attempts();
    attempts.clock.impatient = false;
    const leaving = new AbortController();
    const held = hold(attempts, 1_000, leaving.signal);
    await setImmediate();
    leaving.abort();
    for (const one of held) await assert.rejects(one, { name: 'AbortError' });
    const late = hold(attempts, 1);
    attempts.clock.advance(10_000);
    await Promise.all(late);
  });
});

test('a clock that is turned back holds nobody for longer', async () => {
  const attempts = new Attempts();
  await attempts.guess(9);
  attempts.clock.advance(-3_600_000);
  assert.equal(await attempts.wait(), 0);
});
