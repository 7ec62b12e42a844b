import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { chmod, chown, lstat, open, readdir, readFile, stat, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { suite, type TestContext, test } from 'node:test';
import { promisify } from 'node:util';
import { withFileLock } from '../../../src/access/credentials/tokens/file-lock.ts';
import { addToken, listTokens, revokeToken } from '../../../src/access/credentials/tokens/token-file.ts';
import { hashOfSecret } from '../../../src/access/credentials/tokens/token-lines.ts';
import { systemClock } from '../../../src/clock.ts';
import { FileError } from '../../../src/files/errors.ts';
import { FakeClock } from '../../helpers/fake-clock.ts';
import { tempDir } from '../../helpers/temp-dir.ts';

const TIMES = { created: Date.parse('2026-11-25T10:00:00Z'), expires: Date.parse('2027-02-23T10:00:00Z') };
const LINE = `old sha256:${'ab'.repeat(32)} 2026-01-01T00:00:00Z 2027-01-01T00:00:00Z`;
const TOKEN_FILE = join(import.meta.dirname, '../../../src/access/credentials/tokens/token-file.ts');
const CLOCK = join(import.meta.dirname, '../../../src/clock.ts');

async function pathIn(t: TestContext, text?: string | Buffer): Promise<string> {
  const path = join(await tempDir(t), 'tokens');
  if (text !== undefined) await writeFile(path, text);
  return path;
}

function add(path: string, name: string, clock = new FakeClock()): Promise<string> {
  return addToken(path, name, TIMES, clock);
}

async function names(path: string): Promise<string[]> {
  return (await listTokens(path, undefined)).map(({ name }) => name);
}

/** A change leaves nothing else in the folder: no lock, no unfinished file. */
async function assertAlone(path: string): Promise<void> {
  assert.deepEqual(await readdir(dirname(path)), ['tokens']);
}

suite('a token that is added', () => {
  test('is listed with its times, and the file holds the hash of its secret and not the secret', async (t) => {
    const path = await pathIn(t);
    const secret = await add(path, 'ci-team');
    const [token] = await listTokens(path, undefined);
    assert.ok(token !== undefined);
    const { fingerprint: _, ...rest } = token;
    assert.deepEqual(rest, {
      name: 'ci-team',
      secretHash: hashOfSecret(secret),
      ...TIMES,
      lastUsed: undefined,
    });
    const text = await readFile(path, 'utf8');
    assert.ok(!text.includes(secret.slice(4)));
    assert.match(text, /^# Robot tokens/);
    await assertAlone(path);
  });

  test('makes a file that others cannot read', async (t) => {
    const path = await pathIn(t);
    await add(path, 'ci');
    assert.equal((await stat(path)).mode & 0o777, 0o600);
  });

  test('leaves every byte of the lines that are there', async (t) => {
    const before = Buffer.concat([
      Buffer.from(`# Überschrift\r\n\n${LINE}  \n`),
      Buffer.from([0x23, 0xff, 0xc3, 0x0a]),
      Buffer.from('# without a line break'),
    ]);
    const path = await pathIn(t, before);
    await add(path, 'ci');
    const after = await readFile(path);
    assert.deepEqual(after.subarray(0, before.length), before);
    assert.match(after.subarray(before.length).toString(), /^\nci sha256:[0-9a-f]{64} \S+ \S+\n$/);
  });

  test('keeps the mode and the owner of the file', async (t) => {
    const path = await pathIn(t, `${LINE}\n`);
    await chmod(path, 0o640);
    const isRoot = process.getuid?.() === 0;
    if (isRoot) await chown(path, 1234, 5678);
    const before = await stat(path);
    await add(path, 'ci');
    const { mode, uid, gid, ino } = await stat(path);
    assert.deepEqual({ mode, uid, gid }, { mode: before.mode, uid: before.uid, gid: before.gid });
    assert.notEqual(ino, before.ino, 'it was replaced and not written over');
  });

  test('changes the file that a symlink leads to, and leaves the symlink', async (t) => {
    const path = await pathIn(t, `${LINE}\n`);
    const link = join(await tempDir(t), 'link');
    await symlink(path, link);
    await add(link, 'ci');
    assert.ok((await lstat(link)).isSymbolicLink());
    assert.deepEqual(await names(path), ['old', 'ci']);
    await assertAlone(path);
  });

  for (const [what, name, about] of [
    ['a name that is taken', 'old', /there is a token old already/],
    ['a bad name', 'Old', /a token name has/],
  ] as const) {
    test(`with ${what} is refused, and the file stays as it is`, async (t) => {
      const path = await pathIn(t, `${LINE}\n`);
      await assert.rejects(add(path, name), about);
      assert.equal(await readFile(path, 'utf8'), `${LINE}\n`);
      await assertAlone(path);
    });
  }

  test('to a file with a bad line is refused with the line', async (t) => {
    const path = await pathIn(t, `${LINE}\nnonsense\n`);
    await assert.rejects(add(path, 'ci'), { name: 'FileError', line: 2 });
    await assertAlone(path);
  });

  test('where there is no folder is refused with the reason', async (t) => {
    const path = join(await tempDir(t), 'missing', 'tokens');
    await assert.rejects(add(path, 'ci'), (error) => {
      assert.ok(error instanceof FileError);
      assert.match(
        error.message,
        /cannot be changed: .*tokens\.lock cannot be created \(ENOENT\)\. There is no such folder$/,
      );
      return true;
    });
  });
});

suite('a token that is revoked', () => {
  test('is gone, and every other line is as it was', async (t) => {
    const others = [
      `# old is here for a reason\r\n`,
      `older${LINE.slice(3).replace('ab', 'cd')}\n`,
      '\n# end',
    ];
    const path = await pathIn(t, `${others[0]}\t${LINE}\r\n${others[1]}${others[2]}`);
    await revokeToken(path, 'old', new FakeClock());
    assert.equal(await readFile(path, 'utf8'), others.join(''));
    await assertAlone(path);
  });

  test('and is not there is an error, with or without a file', async (t) => {
    const path = await pathIn(t, `${LINE}\n`);
    await assert.rejects(revokeToken(path, 'ci', new FakeClock()), /there is no token ci/);
    assert.equal(await readFile(path, 'utf8'), `${LINE}\n`);
    const missing = join(await tempDir(t), 'tokens');
    await assert.rejects(revokeToken(missing, 'ci', new FakeClock()), /there is no such file/);
    assert.deepEqual(await readdir(dirname(missing)), []);
  });
});

suite('the list of tokens', () => {
  const list = async (t: TestContext, uses: string) => {
    const path = await pathIn(t, `${LINE}\n`);
    const lastUses = join(await tempDir(t), 'uses.json');
    await writeFile(lastUses, uses);
    return listTokens(path, lastUses);
  };

  test('says when each was last used', async (t) => {
    const [token] = await list(t, '{"old":"2026-06-01T12:00:00.000Z","gone":"2026-06-01T12:00:00.000Z"}');
    assert.equal(token?.lastUsed, Date.parse('2026-06-01T12:00:00Z'));
  });

  test('does not take the use of an earlier token of the same name for one of this', async (t) => {
    const [token] = await list(t, '{"old":"2025-12-31T23:59:59.000Z"}');
    assert.equal(token?.lastUsed, undefined);
  });

  for (const damaged of ['', '{', 'null', '[1]', '{"old":1}', '{"old":"soon"}']) {
    test(`names the file of last uses if it holds ${JSON.stringify(damaged)}`, async (t) => {
      await assert.rejects(list(t, damaged), /uses\.json: is damaged: remove it/);
    });
  }

  test('says why the file of last uses cannot be read, and does not call it damaged', async (t) => {
    const path = await pathIn(t, `${LINE}\n`);
    await assert.rejects(listTokens(path, await tempDir(t)), /: cannot be read \(EISDIR\)$/);
  });

  test('of a file that is not there is an error', async (t) => {
    await assert.rejects(listTokens(await pathIn(t), undefined), /there is no such file/);
  });
});

suite('several changes at the same time', () => {
  test('in several processes all take effect', async (t) => {
    const path = await pathIn(t);
    const program = `
      import { addToken, revokeToken } from ${JSON.stringify(TOKEN_FILE)};
      import { systemClock } from ${JSON.stringify(CLOCK)};
      const [path, id] = process.argv.slice(1);
      const times = ${JSON.stringify(TIMES)};
      for (let at = 0; at < 5; at += 1) await addToken(path, id + at, times, systemClock);
      await revokeToken(path, id + '0', systemClock);
    `;
    await Promise.all(
      ['a', 'b', 'c'].map((id) =>
        promisify(execFile)(process.execPath, ['--input-type=module', '-e', program, path, id]),
      ),
    );
    const expected = ['a', 'b', 'c'].flatMap((id) => [1, 2, 3, 4].map((at) => id + at));
    assert.deepEqual((await names(path)).sort(), expected);
    await assertAlone(path);
  });
});

suite('the lock', () => {
  test('is waited for, and is free again when its holder fails', async (t) => {
    const path = await pathIn(t);
    const { promise: waits, resolve } = Promise.withResolvers<void>();
    const waiting = { ...systemClock, sleep: (ms: number) => systemClock.sleep(ms).then(resolve) };
    const order: string[] = [];
    let second: Promise<unknown> = Promise.resolve();
    const first = withFileLock(path, systemClock, async () => {
      second = withFileLock(path, waiting, async () => order.push('second'));
      await waits;
      order.push('first');
      throw new Error('failed');
    });
    await assert.rejects(first, /failed/);
    await second;
    assert.deepEqual(order, ['first', 'second']);
    assert.deepEqual(await readdir(dirname(path)), []);
  });

  test('of a process that was killed is broken after 10 s', async (t) => {
    const path = await pathIn(t);
    await writeFile(`${path}.lock`, 'killed');
    const clock = new FakeClock();
    const before = clock.now();
    await add(path, 'ci', clock);
    assert.equal(clock.now() - before, 10_000);
    assert.deepEqual(await names(path), ['ci']);
    await assertAlone(path);
  });

  test('is not broken when it is another one each time', async (t) => {
    const path = await pathIn(t);
    let holders = 0;
    const clock = new FakeClock();
    clock.sleep = async () => {
      holders += 1;
      await writeFile(`${path}.lock`, `holder ${Math.floor(holders / 150)}`);
    };
    await writeFile(`${path}.lock`, 'holder 0');
    await assert.rejects(
      add(path, 'ci', clock),
      /other processes change it all the time: see who holds .*\.lock/,
    );
    assert.equal(holders, 600);
    assert.deepEqual(await readdir(dirname(path)), ['tokens.lock']);
  });

  test('that was broken meanwhile keeps a slow process from its change, and stays with its new holder', async (t) => {
    // Reading a pipe takes until somebody writes to it, so the process is as slow as the test wants.
    const path = await pathIn(t);
    const [makePipe] = ['mkfifo'];
    await promisify(execFile)(makePipe, [path]);
    const adding = add(path, 'ci');
    const pipe = await open(path, 'a'); // once it is being read
    await writeFile(`${path}.lock`, 'other');
    await pipe.close();
    await assert.rejects(adding, /another process has taken the lock/);
    assert.ok((await stat(path)).isFIFO());
    assert.equal(await readFile(`${path}.lock`, 'utf8'), 'other');
    assert.deepEqual((await readdir(dirname(path))).sort(), ['tokens', 'tokens.lock']);
  });
});
