import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { suite, test } from 'node:test';
import * as fc from 'fast-check';
import {
  createToken,
  hashOfSecret,
  isTokenName,
  isTokenSecret,
  parseTokens,
} from '../../../src/access/credentials/tokens/token-lines.ts';
import { FileError } from '../../../src/files/errors.ts';

const HEX = 'ab'.repeat(32);
const FROM = '2026-11-25T10:00:00Z';
const UNTIL = '2027-02-23T10:00:00Z';
const TIMES = { created: Date.parse(FROM), expires: Date.parse(UNTIL) };

const name = fc.stringMatching(/^[a-z0-9][a-z0-9._-]{0,62}[a-z0-9]$/).filter((text) => text.length <= 64);
/** Whole seconds of the years 2000 to 2200. */
const time = fc.integer({ min: 946_684_800, max: 7_258_118_400 }).map((seconds) => seconds * 1_000);

suite('a new token', () => {
  test('has a secret of 256 random bits, and the line holds its SHA-256', () => {
    const { secret, line } = createToken('ci-team', TIMES);
    assert.match(secret, /^mpt_[A-Za-z0-9_-]{43}$/);
    assert.equal(Buffer.from(secret.slice(4), 'base64url').length, 32);
    const hex = createHash('sha256').update(secret).digest('hex');
    assert.equal(line, `ci-team sha256:${hex} ${FROM} ${UNTIL}`);
    assert.notEqual(createToken('ci-team', TIMES).secret, secret);
  });

  test('is read back from its line', () => {
    fc.assert(
      fc.property(name, time, time, (name, one, other) => {
        fc.pre(one !== other);
        const times = { created: Math.min(one, other), expires: Math.max(one, other) };
        const { secret, line } = createToken(name, times);
        const [token, ...more] = parseTokens(`${line}\n`, 'F');
        assert.deepEqual(more, []);
        assert.ok(token !== undefined);
        const { fingerprint, ...rest } = token;
        assert.deepEqual(rest, { name, secretHash: hashOfSecret(secret), ...times });
        assert.match(fingerprint, /^[\w-]{16}$/);
        assert.ok(isTokenSecret(secret));
      }),
    );
  });

  test('drops parts of a second', () => {
    const { line } = createToken('a', { created: TIMES.created + 999, expires: TIMES.expires + 1 });
    assert.deepEqual(line.split(' ').slice(2), [FROM, UNTIL]);
  });

  for (const [what, name, times] of [
    ['a bad name', 'CI', TIMES],
    ['no name', '', TIMES],
    ['a line break in its name', 'a\nb', TIMES],
    ['an end before its beginning', 'a', { created: TIMES.created, expires: TIMES.created - 1_000 }],
    ['an end in the second of its beginning', 'a', { created: TIMES.created, expires: TIMES.created + 999 }],
    ['an end that no date can hold', 'a', { created: TIMES.created, expires: Number.POSITIVE_INFINITY }],
    ['an end after the year 9999', 'a', { created: TIMES.created, expires: 253_402_300_800_000 }],
  ] as const) {
    test(`with ${what} is refused`, () => assert.throws(() => createToken(name, times), RangeError));
  }
});

suite('a token name', () => {
  for (const good of ['a', '0', 'ci-team', 'ci.team_2', 'a'.repeat(64)]) {
    test(`may be ${good}`, () => assert.equal(isTokenName(good), true));
  }
  for (const bad of ['', '-a', 'a-', '.', 'A', 'ä', 'a b', 'a*', 'a:b', 'a/b', 'a\n', '#a', 'a'.repeat(65)]) {
    test(`may not be ${JSON.stringify(bad)}`, () => assert.equal(isTokenName(bad), false));
  }
});

suite('the tokens file', () => {
  test('may have comments, empty lines, tabs and CR LF', () => {
    const text = `# ours\r\n\r\n  ci\tsha256:${HEX}  ${FROM}\t${UNTIL} \r\n #${FROM}`;
    const tokens = parseTokens(text, 'F');
    assert.deepEqual(
      tokens.map((token) => token.name),
      ['ci'],
    );
    assert.deepEqual(parseTokens('', 'F'), []);
  });

  for (const [what, line, about] of [
    ['a name alone', 'ci', /NAME sha256:HEX/],
    ['no times', `ci sha256:${HEX}`, /NAME sha256:HEX/],
    ['one time', `ci sha256:${HEX} ${FROM}`, /NAME sha256:HEX/],
    ['a fifth field', `ci sha256:${HEX} ${FROM} ${UNTIL} x`, /NAME sha256:HEX/],
    ['another hash', `ci sha512:${HEX} ${FROM} ${UNTIL}`, /NAME sha256:HEX/],
    ['a hash in upper case', `ci sha256:${HEX.toUpperCase()} ${FROM} ${UNTIL}`, /NAME sha256:HEX/],
    ['a hash that was cut', `ci sha256:${HEX.slice(1)} ${FROM} ${UNTIL}`, /NAME sha256:HEX/],
    ['a bad name', `CI sha256:${HEX} ${FROM} ${UNTIL}`, /a token name has/],
    ['a day that is not there', `ci sha256:${HEX} 2026-02-30T00:00:00Z ${UNTIL}`, /time/],
    ['a time of another zone', `ci sha256:${HEX} ${FROM} 2027-02-23T10:00:00+01:00`, /time/],
    ['a date alone', `ci sha256:${HEX} ${FROM} 2027-02-23`, /time/],
    ['hour 24', `ci sha256:${HEX} ${FROM} 2027-02-23T24:00:00Z`, /time/],
    ['a name twice', `first sha256:${HEX} ${FROM} ${UNTIL}`, /the name is there already, on line 2/],
    [
      'a secret twice',
      `ci sha256:${'cd'.repeat(32)} ${FROM} ${UNTIL}`,
      /the secret is there already, on line 2/,
    ],
  ] as const) {
    test(`with ${what} is an error with its line`, () => {
      const good = `# ours\nfirst sha256:${'cd'.repeat(32)} ${FROM} ${UNTIL}\n\n`;
      assert.throws(
        () => parseTokens(good + line, '/etc/tokens'),
        (error) => {
          assert.ok(error instanceof FileError);
          assert.match(error.message, about);
          assert.ok(error.message.startsWith('/etc/tokens:4: '), error.message);
          assert.ok(!error.message.includes(HEX.slice(0, 8)), 'no part of a hash is told');
          return true;
        },
      );
    });
  }

  test('of any text is read or is an FileError, and nothing else', () => {
    const pieces = fc.constantFrom(
      'ci',
      ' ',
      '\t',
      '\n',
      `sha256:${HEX}`,
      FROM,
      UNTIL,
      '#',
      '\r',
      'ä',
      '__proto__',
    );
    fc.assert(
      fc.property(fc.array(pieces), (parts) => {
        try {
          parseTokens(parts.join(''), 'F');
        } catch (error) {
          assert.ok(error instanceof FileError);
        }
      }),
    );
  });
});

suite('the fingerprint of a token', () => {
  const fingerprint = (line: string) => parseTokens(line, 'F')[0]?.fingerprint;

  test('is another one when a token of the same name is made again', () => {
    const [one, other] = [createToken('ci', TIMES), createToken('ci', TIMES)];
    assert.notEqual(fingerprint(one.line), fingerprint(other.line));
  });

  test('stays when only the end is moved', () => {
    const { line } = createToken('ci', TIMES);
    assert.equal(fingerprint(line), fingerprint(line.replace(UNTIL, '2030-01-01T00:00:00Z')));
  });
});
