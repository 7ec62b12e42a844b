import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ContentError, StorageError } from '../../../src/cache/store/errors.ts';
import { toRegistryError } from '../../../src/http/registry/errors.ts';
import { digestOf } from '../../../src/oci/digest.ts';
import { RegistryError } from '../../../src/oci/errors.ts';
import { UpstreamError, type UpstreamErrorCode } from '../../../src/upstream/errors.ts';

// Every code that an upstream error can have.
const UPSTREAM: Record<UpstreamErrorCode, [status: number, code: string]> = {
  'not-found': [404, 'MANIFEST_UNKNOWN'],
  denied: [403, 'DENIED'],
  'rate-limited': [429, 'TOOMANYREQUESTS'],
  unavailable: [502, 'UNAVAILABLE'],
  timeout: [504, 'UNAVAILABLE'],
  'invalid-response': [502, 'UNAVAILABLE'],
  sealed: [404, 'MANIFEST_UNKNOWN'],
};

for (const [code, expected] of Object.entries(UPSTREAM)) {
  test(`an upstream that is ${code} is told as ${expected.join(' ')}`, () => {
    const error = toRegistryError(
      new UpstreamError(code as UpstreamErrorCode, 'docker.io', 'why'),
      'manifest',
    );
    assert.deepEqual([error.status, error.code], expected);
    assert.match(error.message, /docker\.io: why/);
  });
}

test('what is not found has the code of its kind', () => {
  const missing = new UpstreamError('not-found', 'docker.io', 'why');
  assert.equal(toRegistryError(missing, 'blob').code, 'BLOB_UNKNOWN');
  assert.equal(toRegistryError(missing, 'tags').code, 'NAME_UNKNOWN');
  assert.notEqual(
    toRegistryError(missing, 'referrers').code,
    'NAME_UNKNOWN',
    'oras would take it for a failure',
  );
});

test('Retry-After is in whole seconds, rounded up, and at least one', () => {
  for (const [retryAfterMs, seconds] of [
    [1, '1'],
    [30_000, '30'],
    [30_001, '31'],
  ] as const) {
    const error = toRegistryError(
      new UpstreamError('rate-limited', 'docker.io', 'why', { retryAfterMs }),
      'manifest',
    );
    assert.equal(error.headers['Retry-After'], seconds);
  }
});

test('wrong content is upstream’s fault, and an unknown error tells the client nothing', () => {
  const wrong = new ContentError('digest-mismatch', digestOf(Buffer.from('x')), 'a', 'b');
  assert.equal(toRegistryError(wrong, 'blob').status, 502);
  const unknown = toRegistryError(new Error('at /secret/path'), 'blob');
  assert.deepEqual([unknown.status, unknown.code], [500, 'UNKNOWN']);
  assert.ok(!unknown.message.includes('secret'));
  assert.equal(toRegistryError(new StorageError('read', new Error('x')), 'blob').status, 500);
  const own = new RegistryError('TAG_INVALID');
  assert.equal(toRegistryError(own, 'blob'), own);
});
