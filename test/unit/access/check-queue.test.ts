import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { CheckQueue } from '../../../src/access/credentials/passwords/check-queue.ts';
import { TooManyAttemptsError } from '../../../src/access/errors.ts';

/** Checks that end when the test says so, in the order in which they began. */
class ManualChecks {
  readonly begun: string[] = [];
  readonly #ends: (() => void)[] = [];
  readonly #queue: CheckQueue;

  constructor(atATime: number, places: number) {
    this.#queue = new CheckQueue({ atATime, places });
  }

  run(client: string, name = client): Promise<string> {
    return this.#queue.run(client, () => {
      this.begun.push(name);
      return new Promise((resolve) => {
        this.#ends.push(() => resolve(name));
      });
    });
  }

  async endNext(): Promise<void> {
    this.#ends.shift()?.();
    await setImmediate();
  }
}

suite('the queue of password checks', () => {
  test('runs as many at a time as it may, and goes on with the next when one ends', async () => {
    const checks = new ManualChecks(2, 64);
    const all = ['a', 'b', 'c', 'd'].map((client) => checks.run(client));
    await setImmediate();
    assert.deepEqual(checks.begun, ['a', 'b']);
    await checks.endNext();
    assert.deepEqual(checks.begun, ['a', 'b', 'c']);
    await checks.endNext();
    await checks.endNext();
    await checks.endNext();
    assert.deepEqual(await Promise.all(all), ['a', 'b', 'c', 'd']);
    // All places are free again.
    void checks.run('e');
    void checks.run('f');
    await setImmediate();
    assert.deepEqual(checks.begun.slice(4), ['e', 'f']);
  });

  test('gives a client a quarter of its places and not one more', async () => {
    const checks = new ManualChecks(1, 64);
    void checks.run('running');
    const waiting = Array.from({ length: 16 }, () => checks.run('flood'));
    await assert.rejects(checks.run('flood'), (error) => {
      assert.ok(error instanceof TooManyAttemptsError);
      assert.ok(error.retryAfterMs > 0);
      return true;
    });
    const other = checks.run('other'); // has a place
    for (let ended = 0; ended < 18; ended += 1) await checks.endNext();
    await Promise.all([...waiting, other]);
  });

  test('refuses when all places are taken', async () => {
    const checks = new ManualChecks(1, 8);
    void checks.run('running');
    for (const client of ['a', 'b', 'c', 'd']) {
      void checks.run(client);
      void checks.run(client);
    }
    await assert.rejects(checks.run('e'), TooManyAttemptsError);
    await checks.endNext();
    const late = checks.run('e'); // a place is free again
    for (let ended = 0; ended < 9; ended += 1) await checks.endNext();
    assert.equal(await late, 'e');
  });

  test('lets clients take turns: behind a flood a client waits for one check of it', async () => {
    const checks = new ManualChecks(1, 64);
    void checks.run('running');
    for (let sent = 0; sent < 16; sent += 1) void checks.run('flood', `flood ${sent}`);
    void checks.run('other');
    for (let ended = 0; ended < 4; ended += 1) await checks.endNext();
    assert.deepEqual(checks.begun, ['running', 'flood 0', 'other', 'flood 1', 'flood 2']);
  });

  test('goes on after a check that fails', async () => {
    const queue = new CheckQueue({ atATime: 1, places: 8 });
    const failing = queue.run('a', () => Promise.reject(new Error('broken')));
    const next = queue.run('b', () => Promise.resolve('fine'));
    await assert.rejects(failing, /broken/);
    assert.equal(await next, 'fine');
  });
});
