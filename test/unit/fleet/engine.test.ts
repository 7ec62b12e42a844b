/** An engine that fails costs a pull at most its deadline, and soon nothing. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Engine } from '../../../src/fleet/engines/engine.ts';
import { EngineError } from '../../../src/fleet/engines/errors.ts';
import { createLogger } from '../../../src/telemetry/log.ts';
import { Metrics } from '../../../src/telemetry/metrics.ts';
import { FakeClock } from '../../helpers/fake-clock.ts';

function setUp() {
  const clock = new FakeClock();
  clock.impatient = false;
  const lines: Record<string, unknown>[] = [];
  const destination = {
    write: (line: string) => void lines.push(JSON.parse(line) as Record<string, unknown>),
  };
  const logger = createLogger({ level: 'info', destination, now: () => clock.now() });
  const metrics = new Metrics({ version: 'test', processMetrics: false });
  const engine = new Engine('objects', { clock, logger, metrics, random: () => 0 });
  let asked = 0;
  const ask = (answer: () => Promise<unknown>) =>
    engine.ask('get', 1_000, () => {
      asked += 1;
      return answer();
    });
  const up = async () => (await metrics.fleetUp.get()).values[0]?.value;
  return { clock, engine, lines, ask, up, asked: () => asked };
}

const fails = () => Promise.reject(new EngineError('unavailable', 'gone'));

test('after three failures in a row nothing is asked for a second, and then one request tries', async () => {
  const { clock, ask, asked, up } = setUp();
  for (let at = 0; at < 3; at += 1) await assert.rejects(ask(fails), { code: 'unavailable' });
  assert.equal(await up(), 0);
  await assert.rejects(ask(fails), { code: 'unavailable' });
  assert.equal(asked(), 3);
  clock.advance(750);
  const trial = Promise.withResolvers<string>();
  const tried = ask(() => trial.promise);
  await assert.rejects(ask(fails), { code: 'unavailable' });
  assert.equal(asked(), 4);
  trial.resolve('here');
  assert.equal(await tried, 'here');
  assert.equal(await up(), 1);
  assert.equal(await ask(async () => 'again'), 'again');
});

test('the pause grows from one second to ten', async () => {
  const { clock, ask, asked } = setUp();
  for (let at = 0; at < 3; at += 1) await assert.rejects(ask(fails));
  const pauses: number[] = [];
  for (let at = 0; at < 6; at += 1) {
    const before = asked();
    let ms = 0;
    while (asked() === before) {
      clock.advance(50);
      ms += 50;
      await assert.rejects(ask(fails));
    }
    pauses.push(ms);
  }
  assert.deepEqual(pauses, [750, 1500, 3000, 6000, 7500, 7500]);
});

test('an answer that does not begin in time is given up, and what it was asked for is stopped', async () => {
  const { clock, engine } = setUp();
  const stopped: unknown[] = [];
  const asking = engine.ask('get', 1_000, (signal) => {
    signal.addEventListener('abort', () => {
      stopped.push(signal.reason);
    });
    return new Promise(() => undefined);
  });
  clock.advance(999);
  assert.deepEqual(stopped, []);
  clock.advance(1);
  await assert.rejects(asking, { code: 'timeout' });
  assert.equal(stopped.length, 1);
});

test('a refusal is an answer: it does not stop what comes after it', async () => {
  const { ask, up } = setUp();
  for (let at = 0; at < 5; at += 1)
    await assert.rejects(
      ask(() => Promise.reject(new EngineError('denied', 'no'))),
      { code: 'denied' },
    );
  assert.equal(await up(), 1);
});

test('failures are told once a minute', async () => {
  const { clock, ask, lines } = setUp();
  for (let at = 0; at < 100; at += 1) {
    await assert.rejects(ask(fails));
    clock.advance(1_000);
  }
  assert.equal(lines.filter(({ level }) => level === 'warn').length, 2);
});

test('what is shut is not asked until a check succeeds', async () => {
  const { engine, ask, asked, up } = setUp();
  engine.shut('another fleet');
  await assert.rejects(ask(fails), { code: 'misconfigured', message: 'another fleet' });
  assert.equal(asked(), 0);
  await assert.rejects(engine.check(1_000, fails));
  assert.equal(engine.trouble, 'gone');
  await engine.check(1_000, async () => undefined);
  assert.equal(engine.trouble, undefined);
  assert.equal(await up(), 1);
});
