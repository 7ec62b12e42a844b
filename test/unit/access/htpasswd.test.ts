import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { suite, test } from 'node:test';
import { hash, verify } from '@node-rs/bcrypt';
import * as fc from 'fast-check';
import { parseHtpasswd } from '../../../src/access/credentials/passwords/htpasswd.ts';
import { FileError } from '../../../src/files/errors.ts';

const HASH = '$2y$05$ZQ0KTEAsbV9pPiV4kGu.EudWF71k7ThMPqwguoHboFx/OPt7IfTkG'; // of `pä`
const REST = HASH.slice('$2y$05$'.length);

function parse(text: string) {
  return parseHtpasswd(Buffer.from(text), '/etc/htpasswd');
}

function assertWrong(text: string, line: number, about: RegExp): void {
  assert.throws(
    () => parse(text),
    (error) => {
      assert.ok(error instanceof FileError);
      assert.equal(error.line, line);
      assert.match(error.message, about);
      assert.ok(error.message.startsWith(`/etc/htpasswd:${line}: `), error.message);
      assert.ok(!error.message.includes(REST), 'no part of a hash is told');
      return true;
    },
  );
}

suite('a password file', () => {
  test('is read as Apache reads it: comments, empty lines, spaces around a line and CR LF do not count', () => {
    const text = `# users\r\n\r\n  ops:${HASH}  \r\n\t# old\r\nä b:${HASH}`;
    assert.deepEqual([...parse(text).lineByName.keys()], ['ops', 'ä b']);
    assert.equal(parse(text).lineByName.get('ops')?.hash, HASH);
  });

  test('may begin with a byte order mark, and may hold nobody', () => {
    assert.deepEqual([...parse(`\uFEFFops:${HASH}`).lineByName.keys()], ['ops']);
    assert.equal(parse('# nobody yet\n').lineByName.size, 0);
  });

  for (const prefix of ['$2a$', '$2b$', '$2y$']) {
    for (const cost of ['04', '10', '14']) {
      test(`takes ${prefix} of cost ${cost}`, () => {
        assert.equal(parse(`ops:${prefix}${cost}$${REST}`).lineByName.size, 1);
      });
    }
  }

  for (const [what, line, about] of [
    ['MD5 of Apache', 'ops:$apr1$kK7HkVZ.$T5a4DnZ5mZTT8Yd9UpGhs/', /not bcrypt/],
    ['SHA-1', 'ops:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=', /not bcrypt/],
    ['a password that is not hashed', 'ops:secret', /not bcrypt/],
    ['bcrypt with the sign bug', `ops:$2x$05$${REST}`, /not bcrypt/],
    ['bcrypt without a letter', `ops:$2$05$${REST}`, /not bcrypt/],
    ['a hash that was cut', `ops:${HASH.slice(0, -1)}`, /not bcrypt/],
    ['a hash that goes on', `ops:${HASH}x`, /not bcrypt/],
    ['a third field', `ops:${HASH}:ops@example.com`, /not bcrypt/],
    ['a salt that no password can match', `ops:${HASH.slice(0, 28)}v${HASH.slice(29)}`, /not bcrypt/],
    ['a hash that no password can match', `ops:${HASH.slice(0, -1)}H`, /not bcrypt/],
    ['cost 3', `ops:$2y$03$${REST}`, /cost 3/],
    ['cost 15', `ops:$2y$15$${REST}`, /cost 15/],
    ['cost 31', `ops:$2y$31$${REST}`, /cost 31/],
    ['no name', `:${HASH}`, /NAME:HASH/],
    ['no colon', 'ops', /NAME:HASH/],
    ['a control character in the name', `o\u0007ps:${HASH}`, /control character/],
    ['a name of 256 bytes', `${'ä'.repeat(128)}:${HASH}`, /255 bytes/],
    ['a name twice', `a:${HASH}\nops:${HASH}\nops:$2y$06$${REST}`, /already/],
  ] as const) {
    test(`with ${what} is an error with its line`, () => {
      const good = `# users\nfirst:${HASH}\n`;
      assertWrong(good + line, 2 + line.split('\n').length, about);
    });
  }

  test('that is not UTF-8 is an error', () => {
    const latin1 = Buffer.from(`caf\xe9:${HASH}`, 'latin1');
    assert.throws(() => parseHtpasswd(latin1, 'F'), { name: 'FileError', message: 'F: not UTF-8' });
  });

  test('of any names is read back, and nothing else is in it', () => {
    const name = fc
      .string({ unit: 'grapheme', minLength: 1, maxLength: 40 })
      .filter((text) => !/[:\p{Cc}]/u.test(text) && text.trim() === text && !text.startsWith('#'))
      .filter((text) => text.isWellFormed() && !text.startsWith('\uFEFF'));
    const filler = fc.constantFrom('', '# a:b', '   ', '#');
    fc.assert(
      fc.property(fc.uniqueArray(name), filler, filler, (names, before, after) => {
        const text = names.map((one) => `${before}\n${one}:${HASH}\n${after}\n`).join('');
        assert.deepEqual([...parse(text).lineByName.keys()], names);
      }),
    );
  });

  test('of any bytes is read or is an FileError, and nothing else', () => {
    const pieces = ['a', ':', '#', '$', '2', 'y', '05', ' ', '\n', '\r', '\\', HASH, '\0', 'ä'];
    const text = fc.string({ unit: fc.constantFrom(...pieces) }).map((made) => Buffer.from(made));
    const bytes = fc.uint8Array().map((made) => Buffer.from(made));
    fc.assert(
      fc.property(fc.oneof(text, bytes), (content) => {
        try {
          parseHtpasswd(content, 'F');
        } catch (error) {
          assert.ok(error instanceof FileError);
        }
      }),
    );
  });
});

suite('the fingerprint of a line', () => {
  const fingerprint = (text: string, name = 'ops') => parse(text).lineByName.get(name)?.fingerprint;

  test('stays when other lines change', () => {
    assert.equal(fingerprint(`ops:${HASH}`), fingerprint(`# new\nother:${HASH}\nops:${HASH}\n`));
  });

  test('changes with the hash, and is another one for another name', () => {
    const other = HASH.replace('ZQ0', 'ZQ1');
    assert.notEqual(fingerprint(`ops:${HASH}`), fingerprint(`ops:${other}`));
    assert.notEqual(fingerprint(`ops:${HASH}`), fingerprint(`dev:${HASH}`, 'dev'));
  });
});

suite('the hash that stands in for an unknown user', () => {
  test('has the cost that most lines have', () => {
    const text = `a:$2y$12$${REST}\nb:$2y$05$${REST}\nc:$2y$12$${REST}\n`;
    assert.match(parse(text).dummyHash, /^\$2b\$12\$/);
    assert.match(parse(`a:${HASH}`).dummyHash, /^\$2b\$05\$/);
  });

  test('is one that the library really checks, and that no line of a file could do without', () => {
    const { dummyHash } = parse(`a:${HASH}`);
    assert.equal(parse(`b:${dummyHash}`).lineByName.size, 1);
  });
});

/** Apache's tool. @returns undefined where it is not installed */
function htpasswd(password: string): string | undefined {
  const [tool, flags] = ['htpasswd', ['-niB', '-C', '4', 'ops']];
  try {
    return execFileSync(tool, flags, { input: password, encoding: 'utf8' });
  } catch {
    return undefined;
  }
}

suite('what htpasswd writes', () => {
  const skip = htpasswd('probe') === undefined && 'no htpasswd here';

  test('is read, and its password is right', { skip }, async () => {
    for (const password of ['secret', 'pä:ss wörd', 'x'.repeat(72)]) {
      const found = parse(htpasswd(password) ?? '').lineByName.get('ops')?.hash ?? '';
      assert.equal(await verify(password, found), true);
      assert.equal(await verify(`${password.slice(1)}y`, found), false);
    }
  });

  test('and what the library writes is read as well', async () => {
    const made = await hash('secret', 4);
    assert.equal(parse(`ops:${made}\n`).lineByName.get('ops')?.hash, made);
  });
});
