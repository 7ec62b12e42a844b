import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { SingleFlight } from '../../src/single-flight.ts';

test('in every interleaving all waiters of one flight share its outcome, and no two flights of a key overlap', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.scheduler(),
      fc.array(fc.record({ key: fc.constantFrom('a', 'b'), fails: fc.boolean() }), {
        minLength: 1,
        maxLength: 12,
      }),
      async (scheduler, callers) => {
        const flights = new SingleFlight<number>();
        const running = new Map<string, number>();
        let started = 0;
        const work = async (key: string, fails: boolean): Promise<number> => {
          started += 1;
          const flight = started;
          assert.equal(running.get(key), undefined, 'one flight a key at a time');
          running.set(key, flight);
          await scheduler.schedule(Promise.resolve());
          running.delete(key);
          if (fails) throw new Error(`flight ${flight}`);
          return flight;
        };
        const calls = callers.map(async ({ key, fails }) => {
          await scheduler.schedule(Promise.resolve());
          const { result, joined } = flights.run(key, () => work(key, fails));
          const flight = running.get(key);
          await result.then(
            (value) => assert.equal(value, flight),
            (error: Error) => assert.equal(error.message, `flight ${flight}`),
          );
          return joined;
        });
        await scheduler.waitAll();
        const joined = await Promise.all(calls);
        assert.equal(
          started,
          joined.filter((one) => !one).length,
          'the work ran once for each who did not join',
        );
      },
    ),
  );
});
