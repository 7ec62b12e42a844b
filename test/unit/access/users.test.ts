import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { hashSync, verify } from '@node-rs/bcrypt';
import { CheckQueue } from '../../../src/access/credentials/passwords/check-queue.ts';
import { FailedLogins } from '../../../src/access/credentials/passwords/failed-logins.ts';
import { parseHtpasswd } from '../../../src/access/credentials/passwords/htpasswd.ts';
import { Users } from '../../../src/access/credentials/passwords/users.ts';
import { TooManyAttemptsError } from '../../../src/access/errors.ts';
import type { CredentialIdentity } from '../../../src/access/identity.ts';
import { FakeClock } from '../../helpers/fake-clock.ts';

const MINUTE = 60_000;
const CLIENT = { address: '192.0.2.1' };
const OTHER = { address: '192.0.2.2' };
const HASHES = { right: hashSync('right', 4), new: hashSync('new', 4), dev: hashSync('dev', 5) };

class Scene {
  readonly clock = new FakeClock();
  readonly failedLogins = new FailedLogins(this.clock);
  /** The hash of each check, in order. */
  readonly checked: string[] = [];
  htpasswd = parseHtpasswd(Buffer.from(`ops:${HASHES.right}\nci:${HASHES.right}\n`), 'F');
  /** Checks wait for it. */
  gate: Promise<void> = Promise.resolve();
  verify: (password: string, hash: string) => Promise<boolean> = verify;
  readonly users = new Users({
    htpasswd: () => Promise.resolve(this.htpasswd),
    verify: async (password, hash) => {
      this.checked.push(hash);
      await this.gate;
      return this.verify(password, hash);
    },
    queue: new CheckQueue({ atATime: 1, places: 64 }),
    failedLogins: this.failedLogins,
    clock: this.clock,
  });

  change(text: string): void {
    this.htpasswd = parseHtpasswd(Buffer.from(text), 'F');
  }

  async identity(name: string, password: string, client = CLIENT): Promise<CredentialIdentity> {
    const outcome = await this.users.identify(name, password, client);
    assert.ok(typeof outcome === 'object', JSON.stringify(outcome));
    return outcome;
  }
}

suite('a user', () => {
  test('is known by name and password, with the fingerprint of the line', async () => {
    const scene = new Scene();
    assert.deepEqual(await scene.users.identify('ops', 'right', CLIENT), {
      kind: 'user',
      name: 'ops',
      fingerprint: scene.htpasswd.lineByName.get('ops')?.fingerprint,
    });
  });

  for (const [what, name, password] of [
    ['a wrong password', 'ops', 'wrong'],
    ['no password', 'ops', ''],
    ['a name in other letters', 'OPS', 'right'],
    ['an unknown name', 'nobody', 'right'],
    ['no name', '', 'right'],
  ] as const) {
    test(`with ${what} is nobody`, async () => {
      assert.equal(await new Scene().users.identify(name, password, CLIENT), 'wrong');
    });
  }

  test('that is unknown costs one check, of the cost that the file’s lines have', async () => {
    const scene = new Scene();
    await scene.users.identify('nobody', 'right', CLIENT);
    assert.equal(scene.checked.length, 1);
    assert.match(scene.checked[0] ?? '', /^\$2b\$04\$/);
  });

  test('that is unknown is refused even if a password belonged to the hash that stands in', async () => {
    const scene = new Scene();
    scene.htpasswd = { ...scene.htpasswd, dummyHash: HASHES.dev };
    assert.equal(await scene.users.identify('nobody', 'dev', CLIENT), 'wrong');
    assert.equal(await scene.users.identify('nobody', 'dev', CLIENT), 'wrong');
    // Nor does that count as a success.
    const before = scene.clock.now();
    for (let failed = 0; failed < 4; failed += 1) await scene.users.identify('nobody', `x${failed}`, CLIENT);
    assert.equal(scene.clock.now() - before, 250);
  });

  test('with a password of 73 bytes is refused, though bcrypt would take it for its first 72', async () => {
    const scene = new Scene();
    const longest = `${'ä'.repeat(35)}xy`;
    const hash = hashSync(longest, 4);
    assert.equal(await verify(`${longest}z`, hash), true);
    scene.change(`ops:${hash}`);
    assert.equal(await scene.users.identify('ops', `${longest}z`, CLIENT), 'too-long');
    assert.equal(await scene.users.identify('nobody', `${longest}z`, CLIENT), 'too-long');
    assert.deepEqual(scene.checked, []);
    assert.equal((await scene.identity('ops', longest)).name, 'ops');
  });

  test('with a name that no file can hold is refused without a check', async () => {
    const scene = new Scene();
    assert.equal(await scene.users.identify('x'.repeat(256), 'right', CLIENT), 'wrong');
    assert.deepEqual(scene.checked, []);
  });
});

suite('the outcome of a check', () => {
  test('is remembered for 5 minutes if the password was right', async () => {
    const { users, clock, checked } = new Scene();
    await users.identify('ops', 'right', CLIENT);
    clock.advance(5 * MINUTE - 1_000);
    assert.notEqual(await users.identify('ops', 'right', OTHER), 'wrong');
    assert.equal(checked.length, 1);
    clock.advance(2_000);
    assert.notEqual(await users.identify('ops', 'right', CLIENT), 'wrong');
    assert.equal(checked.length, 2);
  });

  test('is remembered for one minute if it was wrong', async () => {
    const { users, clock, checked } = new Scene();
    for (const name of ['ops', 'nobody']) await users.identify(name, 'wrong', CLIENT);
    clock.advance(MINUTE - 1_000);
    for (const name of ['ops', 'nobody']) {
      assert.equal(await users.identify(name, 'wrong', OTHER), 'wrong');
    }
    assert.equal(checked.length, 2);
    clock.advance(2_000);
    assert.equal(await users.identify('ops', 'wrong', CLIENT), 'wrong');
    assert.equal(checked.length, 3);
  });

  test('does not count for another user with the same line, nor for a name and password cut elsewhere', async () => {
    const { users, checked } = new Scene();
    await users.identify('ops', 'right', CLIENT);
    assert.equal(await users.identify('opsr', 'ight', CLIENT), 'wrong');
    assert.equal(await users.identify('op', 'sright', CLIENT), 'wrong');
    await users.identify('ci', 'right', CLIENT);
    assert.equal(checked.length, 4);
  });

  test('ends at once when the line changes', async () => {
    const scene = new Scene();
    const old = await scene.identity('ops', 'right');
    assert.equal(await scene.users.identify('ops', 'new', CLIENT), 'wrong');
    scene.change(`ops:${HASHES.new}`);
    assert.equal(await scene.users.identify('ops', 'right', CLIENT), 'wrong');
    assert.notEqual((await scene.identity('ops', 'new')).fingerprint, old.fingerprint);
    scene.change('# nobody');
    assert.equal(await scene.users.identify('ops', 'new', CLIENT), 'wrong');
  });

  test('is not remembered for the new line when the line changed during the check', async () => {
    const scene = new Scene();
    const { promise, resolve } = Promise.withResolvers<void>();
    scene.gate = promise;
    const outcome = scene.users.identify('ops', 'right', CLIENT);
    await setImmediate();
    scene.change(`ops:${HASHES.new}`);
    resolve();
    const identity = await outcome;
    assert.ok(typeof identity === 'object');
    assert.equal(await scene.users.isCurrent('ops', identity.fingerprint), false);
    assert.equal(await scene.users.identify('ops', 'right', CLIENT), 'wrong');
  });

  test('serves all who ask for it at the same time', async () => {
    const { users, checked } = new Scene();
    const outcomes = await Promise.all(
      Array.from({ length: 100 }, (_, at) => users.identify('ops', 'right', { address: `192.0.2.${at}` })),
    );
    assert.ok(outcomes.every((outcome) => typeof outcome === 'object'));
    assert.equal(checked.length, 1);
  });

  test('is not forgotten under a flood of wrong passwords', async () => {
    const scene = new Scene();
    scene.verify = (password) => Promise.resolve(password === 'right'); // ten thousand real checks take a minute
    await scene.users.identify('ops', 'right', CLIENT);
    for (let at = 0; at < 10_050; at += 1) {
      const address = `10.0.${at >> 8}.${at & 255}`;
      assert.equal(await scene.users.identify('ops', `guess ${at}`, { address }), 'wrong');
    }
    assert.equal(scene.checked.length, 10_051);
    assert.notEqual(await scene.users.identify('ops', 'right', CLIENT), 'wrong');
    assert.equal(scene.checked.length, 10_051);
  });
});

suite('an attempt after failures', () => {
  /** So that the next attempt of this user from this client waits. */
  async function fail(scene: Scene, times: number): Promise<void> {
    for (let failed = 0; failed < times; failed += 1) {
      assert.equal(await scene.users.identify('ops', `wrong ${failed}`, CLIENT), 'wrong');
    }
  }

  test('waits, but a remembered password does not', async () => {
    const scene = new Scene();
    await scene.users.identify('ops', 'right', CLIENT);
    await fail(scene, 8);
    const before = scene.clock.now();
    assert.notEqual(await scene.users.identify('ops', 'right', CLIENT), 'wrong');
    assert.equal(scene.clock.now(), before);
    await scene.users.identify('ops', 'another', CLIENT);
    assert.equal(scene.clock.now() - before, 4_000);
  });

  test('waits for an unknown user as well: the delay does not tell which users exist', async () => {
    const scene = new Scene();
    for (let failed = 0; failed < 8; failed += 1) await scene.users.identify('nobody', `x${failed}`, CLIENT);
    const before = scene.clock.now();
    await scene.users.identify('nobody', 'y', CLIENT);
    assert.equal(scene.clock.now() - before, 4_000);
  });

  test('does not wait after a success', async () => {
    const scene = new Scene();
    await fail(scene, 8);
    await scene.users.identify('ops', 'right', CLIENT);
    const before = scene.clock.now();
    assert.equal(await scene.users.identify('ops', 'wrong again', CLIENT), 'wrong');
    assert.equal(scene.clock.now(), before);
  });

  test('does not wait because of one wrong password that is sent again and again', async () => {
    const scene = new Scene();
    for (let sent = 0; sent < 100; sent += 1) await scene.users.identify('ops', 'wrong', CLIENT);
    const before = scene.clock.now();
    await scene.users.identify('ops', 'right', CLIENT);
    assert.equal(scene.clock.now(), before);
    assert.equal(scene.checked.length, 2);
  });

  test('ends when its client leaves, without a check', async () => {
    const scene = new Scene();
    await fail(scene, 8);
    scene.clock.impatient = false;
    const leaving = new AbortController();
    const waiting = scene.users.identify('ops', 'right', { ...CLIENT, signal: leaving.signal });
    await setImmediate();
    leaving.abort();
    await assert.rejects(waiting, { name: 'AbortError' });
    assert.equal(scene.checked.length, 8);
  });

  test('is checked against the file as it is after the wait', async () => {
    const scene = new Scene();
    await fail(scene, 8);
    scene.clock.impatient = false;
    const waiting = scene.users.identify('ops', 'right', CLIENT);
    await setImmediate();
    scene.change(`ops:${HASHES.new}`);
    scene.clock.advance(10_000);
    assert.equal(await waiting, 'wrong');
  });
});

test('a client that floods the queue of checks is refused; another one is still checked', async () => {
  const scene = new Scene();
  const { promise, resolve } = Promise.withResolvers<void>();
  scene.gate = promise;
  const flood = Array.from({ length: 17 }, (_, at) => scene.users.identify('ops', `guess ${at}`, CLIENT));
  await assert.rejects(scene.users.identify('ops', 'one more', CLIENT), TooManyAttemptsError);
  const other = scene.users.identify('ops', 'right', OTHER);
  resolve();
  assert.notEqual(await other, 'wrong');
  assert.deepEqual(new Set(await Promise.all(flood)), new Set(['wrong']));
});

test('an IPv6 client is all of its /64, in the queue as well', async () => {
  const scene = new Scene();
  const { promise, resolve } = Promise.withResolvers<void>();
  scene.gate = promise;
  const flood = Array.from({ length: 17 }, (_, at) =>
    scene.users.identify('ops', `guess ${at}`, { address: `2001:db8::${at + 1}` }),
  );
  const late = scene.users.identify('ops', 'one more', { address: '2001:db8::ffff' });
  await assert.rejects(late, TooManyAttemptsError);
  resolve();
  await Promise.all(flood);
});

suite('what was issued for a user', () => {
  test('holds until the line changes or goes', async () => {
    const scene = new Scene();
    const { fingerprint } = await scene.identity('ops', 'right');
    assert.equal(await scene.users.isCurrent('ops', fingerprint), true);
    assert.equal(await scene.users.isCurrent('ci', fingerprint), false);
    scene.change(`other:${HASHES.dev}\nops:${HASHES.right}`);
    assert.equal(await scene.users.isCurrent('ops', fingerprint), true);
    scene.change(`ops:${HASHES.new}`);
    assert.equal(await scene.users.isCurrent('ops', fingerprint), false);
    scene.change('');
    assert.equal(await scene.users.isCurrent('ops', fingerprint), false);
  });
});
