import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  type Claims,
  claimsMatcher,
  type ExpectedClaims,
  keepClaims,
} from '../../../src/access/oidc/claims.ts';

const CLAIMS: Claims = {
  sub: 'repo:acme/app:ref:refs/heads/main',
  repository_owner_id: '123456',
  project_id: 22,
  protected: true,
  groups: ['build', 'deploy'],
  levels: [1, 2],
  nobody: [],
};

for (const [expected, matches, why] of [
  [{}, true, 'nothing is asked'],
  [{ repository_owner_id: '123456' }, true, 'the same text'],
  [{ repository_owner_id: '12345' }, false, 'a part of it'],
  [{ repository_owner_id: '1234567' }, false, 'more than it'],
  [{ repository_owner_id: 123456 }, false, 'a number is not a text'],
  [{ project_id: 22 }, true, 'the same number'],
  [{ project_id: '22' }, false, 'a text is not a number'],
  [{ project_id: '*' }, false, 'a pattern is for texts'],
  [{ protected: true }, true, 'the same boolean'],
  [{ protected: 'true' }, false, 'a text is not a boolean'],
  [{ groups: 'deploy' }, true, 'one element of a list'],
  [{ groups: 'de*' }, true, 'one element of a list by pattern'],
  [{ groups: 'build,deploy' }, false, 'the list as a text'],
  [{ groups: 'admin' }, false, 'no element of a list'],
  [{ levels: 2 }, true, 'one number of a list'],
  [{ levels: '2' }, false, 'a text among numbers'],
  [{ nobody: '*' }, false, 'an empty list'],
  [{ environment: '*' }, false, 'a missing claim'],
  [{ constructor: '*' }, false, 'what every object has'],
  [{ sub: 'repo:acme/*' }, true, '* at the end, across slashes'],
  [{ sub: '*:refs/heads/main' }, true, '* at the beginning'],
  [{ sub: 'repo:acme/*:ref:refs/heads/*' }, true, '* twice'],
  [{ sub: 'repo:acme/app:ref:refs/heads/main*' }, true, '* for nothing'],
  [{ sub: '*' }, true, '* for everything'],
  [{ sub: 'repo:acme/*/main*/main' }, false, 'parts that would overlap'],
  [{ sub: 'repo:acme/app:ref:refs/heads/main*main' }, false, 'beginning and end would overlap'],
  [{ sub: 'repo:evil/*' }, false, 'another beginning'],
  [{ sub: '*:refs/heads/dev' }, false, 'another end'],
  [{ sub: 'repo:*:tag:*' }, false, 'a part that is not in it'],
  [{ sub: 'repo.acme/*' }, false, '. is only a dot'],
  [{ sub: 'repo:acme/app:ref:refs/heads/main', project_id: 23 }, false, 'one of two claims'],
  [{ sub: 'repo:acme/app:ref:refs/heads/main', project_id: 22 }, true, 'both claims'],
] as [ExpectedClaims, boolean, string][]) {
  test(`claims ${matches ? 'match' : 'do not match'} a rule: ${why}`, () => {
    assert.equal(claimsMatcher(expected)(CLAIMS), matches);
  });
}

test('a pattern with many * takes no time that a client could choose', () => {
  const matches = claimsMatcher({ sub: `${'*a'.repeat(30)}b` });
  // A regular expression would need years for this.
  assert.equal(matches({ sub: 'a'.repeat(4000) }), false);
});

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
