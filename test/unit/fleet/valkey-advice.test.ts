/** What an operator is told of a Valkey or Redis. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { valkeyAdvice } from '../../../src/fleet/coordinator/valkey-advice.ts';

const info = (...lines: string[]) => `# Server\r\n${lines.map((line) => `${line}\r\n`).join('')}`;

test('a Redis older than 7 is named with its version', () => {
  assert.deepEqual(valkeyAdvice(info('redis_version:6.2.14', 'maxmemory_policy:noeviction')), [
    'it is Redis 6.2.14, which is too old: use Valkey, or Redis from version 7 on',
  ]);
});

test('a policy that may drop what is in use is named', () => {
  const [advice = '', ...others] = valkeyAdvice(
    info('redis_version:7.2.4', 'valkey_version:8.0.1', 'maxmemory_policy:allkeys-lru'),
  );
  assert.match(advice, /^its maxmemory-policy is allkeys-lru: .*set it to noeviction$/);
  assert.deepEqual(others, []);
});

test('what is right, or not said, is not complained of', () => {
  assert.deepEqual(valkeyAdvice(info('redis_version:7.0.15', 'maxmemory_policy:noeviction')), []);
  assert.deepEqual(valkeyAdvice(info('redis_version:10.0.0')), []);
  assert.deepEqual(valkeyAdvice(''), []);
});
