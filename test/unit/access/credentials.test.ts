import assert from 'node:assert/strict';
import { chmod, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { suite, type TestContext, test } from 'node:test';
import { hashSync } from '@node-rs/bcrypt';
import { Credentials } from '../../../src/access/credentials/credentials.ts';
import { LAST_USES_FILE } from '../../../src/access/credentials/tokens/last-uses.ts';
import { addToken, listTokens, revokeToken } from '../../../src/access/credentials/tokens/token-file.ts';
import type { CredentialIdentity } from '../../../src/access/identity.ts';
import { createLogger } from '../../../src/telemetry/log.ts';
import { cleanUp } from '../../helpers/cleanup.ts';
import { FakeClock } from '../../helpers/fake-clock.ts';
import { tempDir } from '../../helpers/temp-dir.ts';

const CLIENT = { address: '192.0.2.1' };
const DAY = 86_400_000;

/** A server with a password file and a tokens file. */
async function openAll(t: TestContext) {
  const folder = await tempDir(t);
  const [htpasswd, file, lastUses] = ['htpasswd', 'tokens', LAST_USES_FILE].map((name) =>
    join(folder, name),
  ) as [string, string, string];
  await writeFile(htpasswd, `ops:${hashSync('right', 4)}\n`);
  const clock = new FakeClock();
  const times = { created: clock.now(), expires: clock.now() + 90 * DAY };
  const secret = await addToken(file, 'ci-team', times, clock);
  const log: string[] = [];
  const logger = createLogger({
    level: 'debug',
    destination: { write: (line) => void log.push(line) },
    now: () => 0,
  });
  const open = async () => {
    const opened = await Credentials.open({ htpasswd, tokens: { file, lastUses } }, { clock, logger });
    cleanUp(t, () => opened.close());
    return opened;
  };
  return { htpasswd, file, lastUses, clock, secret, log, open, times };
}

function known(outcome: CredentialIdentity | string | undefined): CredentialIdentity {
  assert.ok(typeof outcome === 'object', JSON.stringify(outcome));
  return outcome;
}

suite('without a restart, 5 s after its line is gone or changed', () => {
  test('a robot token is refused, and so is what was issued for it', async (t) => {
    const { file, clock, secret, open } = await openAll(t);
    const credentials = await open();
    const identity = known(await credentials.tokens?.identify(secret));
    assert.deepEqual({ kind: identity.kind, name: identity.name }, { kind: 'token', name: 'ci-team' });
    assert.equal(await credentials.isCurrent(identity), true);
    await revokeToken(file, 'ci-team', clock);
    clock.advance(5_000);
    assert.equal(await credentials.tokens?.identify(secret), 'unknown');
    assert.equal(await credentials.isCurrent(identity), false);
  });

  test('a token of the same name that was made anew does not bring back what was issued for the old one', async (t) => {
    const { file, clock, secret, open, times } = await openAll(t);
    const credentials = await open();
    const identity = known(await credentials.tokens?.identify(secret));
    await revokeToken(file, 'ci-team', clock);
    const newSecret = await addToken(file, 'ci-team', times, clock);
    clock.advance(5_000);
    assert.equal(await credentials.tokens?.identify(secret), 'unknown');
    assert.equal(await credentials.isCurrent(identity), false);
    assert.equal(await credentials.isCurrent(known(await credentials.tokens?.identify(newSecret))), true);
  });

  test('a password is refused, remembered or not, and so is what was issued for it', async (t) => {
    const { htpasswd, clock, open } = await openAll(t);
    const credentials = await open();
    const identity = known(await credentials.users?.identify('ops', 'right', CLIENT));
    assert.equal(await credentials.isCurrent(identity), true);
    await writeFile(`${htpasswd}.new`, `ops:${hashSync('new', 4)}\n`);
    await rename(`${htpasswd}.new`, htpasswd);
    clock.advance(5_000);
    assert.equal(await credentials.isCurrent(identity), false);
    assert.equal(await credentials.users?.identify('ops', 'right', CLIENT), 'wrong');
    assert.equal(known(await credentials.users?.identify('ops', 'new', CLIENT)).name, 'ops');
  });

  test('a file that cannot be used changes nothing, and neither it nor a secret is in the log', async (t) => {
    const { htpasswd, file, clock, secret, open, log } = await openAll(t);
    const credentials = await open();
    await writeFile(htpasswd, 'ops:right\n');
    await rm(file);
    clock.advance(5_000);
    known(await credentials.users?.identify('ops', 'right', CLIENT));
    known(await credentials.tokens?.identify(secret));
    const text = log.join('');
    assert.match(text, /htpasswd:1: the hash is not bcrypt/);
    assert.match(text, /tokens: cannot be read: ENOENT/);
    assert.ok(!text.includes('right') && !text.includes(secret));
  });
});

suite('a robot token', () => {
  for (const other of ['', 'mpt_', `mpt_${'A'.repeat(43)}`, 'right', 'ci-team']) {
    test(`is not what ${JSON.stringify(other)} says`, async (t) => {
      const { open, secret } = await openAll(t);
      const { tokens } = await open();
      assert.equal(await tokens?.identify(other), 'unknown');
      assert.equal(await tokens?.identify(secret.slice(0, -1)), 'unknown');
      assert.equal(await tokens?.identify(`${secret} `), 'unknown');
    });
  }

  test('is refused from the moment at which it expires, and so is what was issued for it', async (t) => {
    const { clock, secret, open, times } = await openAll(t);
    const credentials = await open();
    clock.advance(times.expires - clock.now() - 1);
    const identity = known(await credentials.tokens?.identify(secret));
    assert.equal(await credentials.isCurrent(identity), true);
    clock.advance(1);
    assert.equal(await credentials.tokens?.identify(secret), 'expired');
    assert.equal(await credentials.isCurrent(identity), false);
  });
});

suite('the last use of a token', () => {
  test('can be listed without the server a minute later, and is written once a minute', async (t) => {
    const { file, lastUses, clock, secret, open } = await openAll(t);
    const { tokens } = await open();
    await tokens?.identify('mpt_wrong');
    clock.advance(60_000);
    assert.equal((await listTokens(file, lastUses))[0]?.lastUsed, undefined);
    await tokens?.identify(secret);
    const used = clock.now();
    clock.advance(60_000);
    const written = await appears(lastUses);
    assert.equal((await listTokens(file, lastUses))[0]?.lastUsed, used);
    clock.advance(60_000); // nothing was used
    await tokens?.identify(secret);
    clock.advance(59_000);
    assert.equal((await stat(lastUses)).ino, written.ino);
    assert.equal(written.mode & 0o777, 0o600);
  });

  test('is written when the server stops, and the next server goes on from there', async (t) => {
    const { file, lastUses, clock, secret, open, times } = await openAll(t);
    const other = await addToken(file, 'other', times, clock);
    const first = await open();
    await first.tokens?.identify(secret);
    await first.close();
    clock.advance(1_000);
    const second = await open();
    await second.tokens?.identify(other);
    await second.close();
    const uses = (await listTokens(file, lastUses)).map(({ name, lastUsed }) => [name, lastUsed]);
    assert.deepEqual(uses, [
      ['ci-team', clock.now() - 1_000],
      ['other', clock.now()],
    ]);
  });

  test('that cannot be read or written is logged, and nothing else comes of it', async (t) => {
    const { lastUses, secret, open, log } = await openAll(t);
    await writeFile(lastUses, 'damaged');
    const first = await open();
    await rm(lastUses);
    await rm(join(lastUses, '..'), { recursive: true });
    known(await first.tokens?.identify(secret));
    await first.close();
    assert.match(log.join(''), /last uses of robot tokens are lost and are counted anew/);
    assert.match(log.join(''), /last uses of robot tokens cannot be written/);
  });
});

suite('at the start', () => {
  test('what is not configured is not there', async (t) => {
    const { htpasswd, file, lastUses, clock, secret, open } = await openAll(t);
    const all = await open();
    const user = known(await all.users?.identify('ops', 'right', CLIENT));
    const token = known(await all.tokens?.identify(secret));
    const logger = createLogger({ level: 'silent', destination: { write: () => {} }, now: () => 0 });
    const context = { clock, logger };
    const usersOnly = await Credentials.open({ htpasswd }, context);
    const tokensOnly = await Credentials.open({ tokens: { file, lastUses } }, context);
    cleanUp(t, () => tokensOnly.close());
    assert.equal(usersOnly.tokens, undefined);
    assert.equal(tokensOnly.users, undefined);
    // What was issued before a kind of identity was taken out of the configuration does not hold.
    assert.deepEqual([await usersOnly.isCurrent(user), await usersOnly.isCurrent(token)], [true, false]);
    assert.deepEqual([await tokensOnly.isCurrent(user), await tokensOnly.isCurrent(token)], [false, true]);
  });

  test('a file with secrets that every user of the machine can read or change is used, with a warning', async (t) => {
    const { htpasswd, file, log, open } = await openAll(t);
    for (const [mode, warnings] of [
      [0o640, 0], // a group may be meant
      [0o604, 1],
      [0o602, 1],
    ] as const) {
      for (const path of [htpasswd, file]) {
        for (const each of [htpasswd, file]) await chmod(each, each === path ? mode : 0o600);
        log.length = 0;
        await (await open()).close();
        const logged = log.map((line) => JSON.parse(line) as Record<string, unknown>);
        const msg = `a file with secrets can be read or changed by every user of this machine: chmod o-rwx ${path}`;
        assert.deepEqual(
          logged.map((line) => [line['level'], line['file'], line['msg']]),
          warnings === 0 ? [] : [['warn', path, msg]],
        );
      }
    }
  });

  test('a bad line is an error', async (t) => {
    const { htpasswd, file, open } = await openAll(t);
    await writeFile(file, `${await readFile(file, 'utf8')}nonsense\n`);
    await assert.rejects(open(), { name: 'FileError', file, line: 4 });
    await writeFile(htpasswd, 'ops:secret');
    await assert.rejects(open(), { name: 'FileError', file: htpasswd, line: 1 });
  });
});

/** The file is written in the background, after the clock was moved. */
async function appears(path: string): Promise<{ ino: number; mode: number }> {
  for (;;) {
    try {
      return await stat(path);
    } catch {
      await new Promise(setImmediate);
    }
  }
}
