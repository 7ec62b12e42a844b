import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import fc from 'fast-check';
import { type ClaimPattern, type ClaimPatterns, compileClaims } from '../../../src/access/rules/claims.ts';
import { compileGlob } from '../../../src/access/rules/glob.ts';

const CLAIMS = {
  sub: 'repo:acme/app:ref:refs/heads/main',
  repository_owner_id: '123456',
  project_id: 22,
  protected: true,
  groups: ['build', 'deploy'],
  levels: [1, 2],
  nobody: [],
};

function holds(claim: unknown, pattern: ClaimPattern | ClaimPattern[]): boolean {
  return compileClaims({ claim: pattern })({ claim }) === undefined;
}

suite('a claim', () => {
  test('is compared whole and with its type', () => {
    assert.equal(holds('123456', '123456'), true);
    assert.equal(holds(123456, 123456), true);
    assert.equal(holds(true, true), true);
    assert.equal(holds(123456, '123456'), false);
    assert.equal(holds('123456', 123456), false);
    assert.equal(holds('true', true), false);
    assert.equal(holds('1234567', '123456'), false);
    assert.equal(holds(['a'].toString(), 'a'), true);
    assert.equal(holds({ toString: () => 'a' }, 'a'), false);
    assert.equal(holds(null, 'null'), false);
  });

  test('that is a list matches when one element does', () => {
    assert.equal(holds(['ops', 'dev'], 'dev'), true);
    assert.equal(holds(['ops', 'dev'], 'd*'), true);
    assert.equal(holds(['ops', 'dev'], 'ops,dev'), false);
    assert.equal(holds([['dev']], 'dev'), false);
    assert.equal(holds([], '*'), false);
  });

  test('may be one of several', () => {
    assert.equal(holds('b', ['a', 'b']), true);
    assert.equal(holds('c', ['a', 'b']), false);
    assert.equal(holds('c', []), false);
  });

  test('that is missing never matches, whatever the pattern, nor does one that every object has', () => {
    for (const pattern of ['*', '', 'undefined', true, 0]) {
      assert.equal(compileClaims({ claim: pattern })({ other: 'x' }), 'claim');
    }
    for (const name of ['constructor', 'toString', '__proto__']) {
      assert.equal(compileClaims({ [name]: '*' })({}), name);
    }
  });

  test('may hold any text only where * is written', () => {
    assert.equal(holds('repo:acme/app:ref:refs/heads/main', 'repo:acme/*'), true);
    assert.equal(holds('repo:acme-evil/app', 'repo:acme/*'), false);
    assert.equal(holds('evil repo:acme/app', 'repo:acme/*'), false);
    assert.equal(holds('repo.acme', 'repo?acme'), false);
    assert.equal(holds('repo:acme/x\nrepo:evil', 'repo:acme/x'), false);
    assert.equal(holds(5, '*'), false, 'a number is not a text');
  });
});

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
] as [ClaimPatterns, boolean, string][]) {
  test(`claims ${matches ? 'match' : 'do not match'} a rule: ${why}`, () => {
    assert.equal(compileClaims(expected)(CLAIMS) === undefined, matches);
  });
}

suite('a pattern with *', () => {
  const piece = fc.string({ unit: fc.constantFrom('a', 'b', '/', '.', '\n', '+'), maxLength: 4 });

  test('matches what a regular expression with .* in the place of * matches', () => {
    fc.assert(
      fc.property(
        fc.array(piece, { minLength: 1, maxLength: 5 }),
        fc.string({ unit: fc.constantFrom('a', 'b', '/', '.', '\n', '+') }),
        (pieces, text) => {
          const escaped = pieces.map((part) => part.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&'));
          assert.equal(
            compileGlob(pieces.join('*'))(text),
            new RegExp(`^${escaped.join('.*')}$`, 's').test(text),
          );
        },
      ),
      { numRuns: 2000 },
    );
  });

  test('needs a place of its own in the text for each piece', () => {
    assert.equal(compileGlob('a*b*b')('axb'), false);
    assert.equal(compileGlob('a*b*b')('axbb'), true);
    assert.equal(compileGlob('ab*ba')('aba'), false);
  });

  test('matches every text that has its pieces with anything in between', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(piece, piece), { minLength: 1, maxLength: 5 }), piece, (pairs, end) => {
        const pattern = [...pairs.map(([part]) => part), end].join('*');
        const text = [...pairs.flat(), end].join('');
        assert.equal(compileGlob(pattern)(text), true);
      }),
    );
  });

  test('with many * takes no time that a client could choose', () => {
    const matches = compileGlob(`${'*a'.repeat(30)}b`);
    // A regular expression would need years for this.
    assert.equal(matches('a'.repeat(4000)), false);
  });
});
