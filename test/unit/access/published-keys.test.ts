import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { PublishedKeys } from '../../../src/access/oidc/published-keys.ts';
import { createLogger } from '../../../src/telemetry/log.ts';
import { FakeClock } from '../../helpers/fake-clock.ts';
import { TestKey } from '../../helpers/test-issuer.ts';

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;

const first = new TestKey('key-1');
const second = new TestKey('key-2');
const headerOf = ({ kid }: { kid: string }) => ({ alg: 'ES256', kid });
const unknownKey = { name: 'JwtError', code: 'unknown-key' };
const unavailable = { name: 'IssuerError', code: 'unavailable', issuer: 'ci' };
const sealed = { name: 'IssuerError', code: 'sealed', issuer: 'ci' };

function setUp() {
  const clock = new FakeClock();
  const lines: string[] = [];
  const issuer = {
    clock,
    lines,
    fetches: 0,
    sealed: false,
    publishes: async (_signal: AbortSignal): Promise<unknown> => ({ keys: [first.jwk] }),
  };
  const keys = new PublishedKeys(
    { issuer: 'ci', staleKeysMs: 24 * HOUR },
    {
      fetch: (signal) => {
        issuer.fetches += 1;
        return issuer.publishes(signal);
      },
      sealed: () => issuer.sealed,
      clock,
      logger: createLogger({
        level: 'info',
        destination: { write: (line) => void lines.push(line) },
        now: () => 0,
      }),
    },
  );
  return { issuer, keys, clock };
}

const down = () => Promise.reject(new Error('connect ECONNREFUSED'));

test('the keys of an issuer are fetched when they are first needed, and then kept for ten minutes', async () => {
  const { issuer, keys, clock } = setUp();
  assert.equal(issuer.fetches, 0);
  await keys.find(headerOf(first));
  clock.advance(10 * MINUTE - 1);
  await keys.find(headerOf(first));
  assert.equal(issuer.fetches, 1);
  clock.advance(1);
  await keys.find(headerOf(first));
  assert.equal(issuer.fetches, 2);
});

test('one fetch serves all who wait for it', async () => {
  const { issuer, keys } = setUp();
  const answer = Promise.withResolvers<unknown>();
  issuer.publishes = () => answer.promise;
  const waiting = Array.from({ length: 50 }, () => keys.find(headerOf(first)));
  answer.resolve({ keys: [first.jwk] });
  await Promise.all(waiting);
  assert.equal(issuer.fetches, 1);
});

test('a new key is accepted at once, and costs one fetch', async () => {
  const { issuer, keys, clock } = setUp();
  await keys.find(headerOf(first));
  clock.advance(MINUTE);
  issuer.publishes = async () => ({ keys: [second.jwk] });
  await Promise.all([keys.find(headerOf(second)), keys.find(headerOf(second))]);
  assert.equal(issuer.fetches, 2);
  await assert.rejects(keys.find(headerOf(first)), unknownKey, 'the old one is gone with it');
});

test('a key that is gone is refused after ten minutes', async () => {
  const { issuer, keys, clock } = setUp();
  await keys.find(headerOf(first));
  issuer.publishes = async () => ({ keys: [second.jwk] });
  clock.advance(10 * MINUTE);
  await assert.rejects(keys.find(headerOf(first)), unknownKey);
});

test('whatever comes in, the issuer is asked at most once in 30 seconds', async () => {
  const { issuer, keys, clock } = setUp();
  const guess = (index: number) =>
    assert.rejects(keys.find({ alg: 'ES256', kid: `guess-${index}` }), unknownKey);
  for (let index = 0; index < 100; index += 1) await guess(index);
  assert.equal(issuer.fetches, 1);
  clock.advance(30 * SECOND - 1);
  await guess(100);
  assert.equal(issuer.fetches, 1);
  clock.advance(1);
  await guess(101);
  assert.equal(issuer.fetches, 2);
});

test('an issuer that is down is asked at most once in 30 seconds, too', async () => {
  const { issuer, keys, clock } = setUp();
  issuer.publishes = down;
  for (let index = 0; index < 20; index += 1) await assert.rejects(keys.find(headerOf(first)), unavailable);
  assert.equal(issuer.fetches, 1);
  clock.advance(30 * SECOND);
  issuer.publishes = async () => ({ keys: [first.jwk] });
  await keys.find(headerOf(first));
  assert.equal(issuer.fetches, 2);
});

test('while the issuer is down the last keys hold for staleKeys', async () => {
  const { issuer, keys, clock } = setUp();
  await keys.find(headerOf(first));
  issuer.publishes = down;
  clock.advance(24 * HOUR - 1);
  await keys.find(headerOf(first));
  clock.advance(1);
  await assert.rejects(keys.find(headerOf(first)), unavailable);
  issuer.publishes = async () => ({ keys: [first.jwk] });
  clock.advance(30 * SECOND);
  await keys.find(headerOf(first));
});

test('while the issuer is down a key that nobody knows is an outage and not a bad JWT: it may be a new one', async () => {
  const { issuer, keys, clock } = setUp();
  await keys.find(headerOf(first));
  issuer.publishes = down;
  clock.advance(MINUTE);
  await assert.rejects(keys.find(headerOf(second)), unavailable);
  await keys.find(headerOf(first));
});

test('a sealed mirror asks no issuer; the keys that it has hold for staleKeys', async () => {
  const { issuer, keys, clock } = setUp();
  issuer.sealed = true;
  await assert.rejects(keys.find(headerOf(first)), sealed);
  assert.equal(issuer.fetches, 0);
  issuer.sealed = false;
  await keys.find(headerOf(first));
  issuer.sealed = true;
  await assert.rejects(keys.find(headerOf(second)), sealed);
  clock.advance(24 * HOUR - 1);
  await keys.find(headerOf(first));
  clock.advance(1);
  await assert.rejects(keys.find(headerOf(first)), sealed);
  assert.equal(issuer.fetches, 1);
  issuer.sealed = false;
  await keys.find(headerOf(first));
  assert.equal(issuer.fetches, 2, 'unsealed, it asks without delay');
});

test('a clock that is turned back stops neither the fetches nor the end of old keys', async () => {
  const { issuer, keys, clock } = setUp();
  await keys.find(headerOf(first));
  clock.advance(-HOUR);
  await keys.find(headerOf(first));
  assert.equal(issuer.fetches, 2);
  issuer.publishes = down;
  clock.advance(-48 * HOUR);
  await assert.rejects(keys.find(headerOf(first)), unavailable);
});

for (const document of [null, 7, 'keys', [], {}, { keys: 'all' }, { keys: [1] }]) {
  test(`an answer of ${JSON.stringify(document)} is not a key set: an outage, and the last keys hold`, async () => {
    const { issuer, keys, clock } = setUp();
    await keys.find(headerOf(first));
    issuer.publishes = async () => document;
    clock.advance(10 * MINUTE);
    await keys.find(headerOf(first));
    assert.equal(issuer.fetches, 2);
  });
}

test('an issuer that publishes no key any more has taken all of them back', async () => {
  const { issuer, keys, clock } = setUp();
  await keys.find(headerOf(first));
  issuer.publishes = async () => ({ keys: [] });
  clock.advance(10 * MINUTE);
  await assert.rejects(keys.find(headerOf(first)), unknownKey);
});

const damaged = { kty: 'EC', crv: 'P-256', x: 'AAAA', y: 'AAAA', kid: 'key-1', alg: 'ES256' };
const secret = { ...first.privateKey.export({ format: 'jwk' }), kid: 'key-1' };
const unusable: Record<string, unknown[]> = {
  'a damaged one': [damaged],
  'one with its private part': [secret],
  'one for encryption': [{ ...first.jwk, use: 'enc' }],
  'one for another algorithm': [{ ...first.jwk, alg: 'ES384' }],
  'a symmetric one': [{ kty: 'oct', k: 'c2VjcmV0', kid: 'key-1' }],
  'two of the same name': [first.jwk, { ...second.jwk, kid: 'key-1' }],
};

for (const [what, published] of Object.entries(unusable)) {
  test(`a key that cannot be used is like none: ${what}`, async () => {
    const { issuer, keys } = setUp();
    issuer.publishes = async () => ({ keys: published });
    await assert.rejects(keys.find(headerOf(first)), unknownKey);
  });
}

test('a JWT that names no key is checked by the only one, and refused if there are several', async () => {
  const { issuer, keys, clock } = setUp();
  await keys.find({ alg: 'ES256' });
  issuer.publishes = async () => ({ keys: [first.jwk, second.jwk] });
  clock.advance(10 * MINUTE);
  await assert.rejects(keys.find({ alg: 'ES256' }), unknownKey);
});

test('an issuer that does not answer is given up after five seconds', async (t: TestContext) => {
  t.mock.timers.enable({ apis: ['AbortSignal.timeout' as never] }); // not in the type definitions yet
  const { issuer, keys } = setUp();
  const asked = Promise.withResolvers<AbortSignal>();
  issuer.publishes = (signal) => {
    asked.resolve(signal);
    return new Promise((_resolve, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason as Error));
    });
  };
  const found = assert.rejects(keys.find(headerOf(first)), unavailable);
  const signal = await asked.promise;
  t.mock.timers.tick(4999);
  assert.equal(signal.aborted, false);
  t.mock.timers.tick(1);
  await found;
});

test('an outage of an issuer is in the log with its reason, and not in what the client sees', async () => {
  const { issuer, keys } = setUp();
  issuer.publishes = down;
  await assert.rejects(keys.find(headerOf(first)), (error: Error) => {
    assert.ok(!error.message.includes('ECONNREFUSED'));
    return true;
  });
  assert.equal(issuer.lines.length, 1);
  const line = JSON.parse(issuer.lines[0] ?? '') as Record<string, unknown>;
  assert.deepEqual([line['level'], line['issuer'], line['reason']], ['warn', 'ci', 'connect ECONNREFUSED']);
});
