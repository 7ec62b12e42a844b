import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { toUpstreamError, UpstreamError } from '../../../src/upstream/errors.ts';
import { SpecialAddressError } from '../../../src/upstream/network/address-rule.ts';

function failure(code: string, message = 'low-level words'): Error {
  return Object.assign(new Error(message), { code });
}

suite('every failure of the connection has an error code and a plain reason', () => {
  for (const [errno, code, words] of [
    ['UND_ERR_HEADERS_TIMEOUT', 'timeout', 'no reply in time'],
    ['UND_ERR_BODY_TIMEOUT', 'timeout', 'the reply stalled'],
    ['UND_ERR_CONNECT_TIMEOUT', 'timeout', 'no connection in time'],
    ['ETIMEDOUT', 'timeout', 'no connection in time'],
    ['ENOTFOUND', 'unavailable', 'its name cannot be resolved (ENOTFOUND)'],
    ['EAI_AGAIN', 'unavailable', 'its name cannot be resolved (EAI_AGAIN)'],
    ['ECONNREFUSED', 'unavailable', 'the connection was refused'],
    ['ECONNRESET', 'unavailable', 'the connection broke'],
    ['EPIPE', 'unavailable', 'the connection broke'],
    ['UND_ERR_SOCKET', 'unavailable', 'the connection broke'],
    [
      'UND_ERR_RES_CONTENT_LENGTH_MISMATCH',
      'unavailable',
      'the reply was shorter or longer than its Content-Length',
    ],
    ['UND_ERR_HEADERS_OVERFLOW', 'invalid-response', 'the headers of the reply are too large'],
    ['HPE_INVALID_CONSTANT', 'invalid-response', 'the reply is not HTTP'],
    ['CERT_HAS_EXPIRED', 'unavailable', 'low-level words'],
  ] as const) {
    test(errno, () => {
      const cause = failure(errno);
      const error = toUpstreamError(cause, 'quay.io', 'cdn.quay.io:443');
      assert.equal(error.code, code);
      assert.equal(error.message, `quay.io: ${words} (cdn.quay.io:443)`);
      assert.equal(error.upstream, 'quay.io');
      assert.equal(error.status, undefined);
      assert.equal(error.cause, cause);
    });
  }
});

test('the error says which name does not resolve, because it may be that of a CDN', () => {
  const cause = Object.assign(failure('ENOTFOUND'), { hostname: 'cdn.quay.io' });
  assert.equal(
    toUpstreamError(cause, 'quay.io').message,
    'quay.io: its name cdn.quay.io cannot be resolved (ENOTFOUND)',
  );
});

test('an address that must not be asked is not an outage, and the error says why', () => {
  const error = toUpstreamError(
    new SpecialAddressError('x resolves to 10.0.0.1, which is not public'),
    'quay.io',
  );
  assert.equal(error.code, 'invalid-response');
  assert.equal(error.message, 'quay.io: x resolves to 10.0.0.1, which is not public');
});

test('a failure without a message is reported by its code', () => {
  const error = toUpstreamError(Object.assign(new AggregateError([]), { code: 'EPROTO' }), 'quay.io');
  assert.equal(error.code, 'unavailable');
  assert.equal(error.message, 'quay.io: EPROTO');
});

test('an error that is already an UpstreamError stays the same', () => {
  const error = new UpstreamError('rate-limited', 'quay.io', 'slow down', {
    status: 429,
    retryAfterMs: 1000,
  });
  assert.equal(toUpstreamError(error, 'docker.io', 'host'), error);
});

test('a thrown value that is not an Error becomes an UpstreamError', () => {
  for (const thrown of ['text', undefined, null, 5]) {
    const error = toUpstreamError(thrown, 'quay.io');
    assert.equal(error.code, 'unavailable');
    assert.equal(error.message, `quay.io: ${String(thrown)}`);
  }
});
