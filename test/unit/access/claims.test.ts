import assert from 'node:assert/strict';
import { test } from 'node:test';
import { keepClaims } from '../../../src/access/oidc/claims.ts';

test('of a JWT only the claims that rules ask for are kept, and the subject', () => {
  const payload = {
    iss: 'https://issuer',
    sub: 'job',
    email: 'somebody@example.com',
    project_id: 22,
    groups: ['a', { b: 1 }, null, 7],
    'kubernetes.io': { namespace: 'build' },
    empty: null,
  };
  const names = ['project_id', 'groups', 'kubernetes.io', 'empty', 'missing', 'toString'];
  assert.deepEqual(keepClaims(payload, names), { sub: 'job', project_id: 22, groups: ['a', 7] });
});

test('a claim called __proto__ is a claim like any other', () => {
  const payload = JSON.parse('{"sub":"job","__proto__":"x"}') as Record<string, unknown>;
  assert.deepEqual(Object.entries(keepClaims(payload, ['__proto__'])), [
    ['__proto__', 'x'],
    ['sub', 'job'],
  ]);
});

for (const payload of [{}, { sub: '' }, { sub: 7 }, { sub: ['job'] }]) {
  test(`a JWT with the claims ${JSON.stringify(payload)} has no subject and is refused`, () => {
    assert.throws(() => keepClaims(payload, []), { name: 'JwtError', code: 'malformed' });
  });
}

test('claims that are too large for a token are refused, not cut', () => {
  const groups = Array.from({ length: 200 }, (_, index) => `group-${index}-${'x'.repeat(20)}`);
  assert.throws(() => keepClaims({ sub: 'job', groups }, ['groups']), {
    name: 'JwtError',
    code: 'too-large',
  });
  assert.deepEqual(keepClaims({ sub: 'job', groups }, []), { sub: 'job' }, 'only what is kept counts');
});
