import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { promisify } from 'node:util';
import { tokenList } from '../../src/access/credentials/tokens/robot-tokens.ts';
import { hashOfSecret } from '../../src/access/credentials/tokens/token-lines.ts';
import { runCommandLine } from '../../src/cli/program.ts';
import { FakeClock } from '../helpers/fake-clock.ts';
import { MAIN } from '../helpers/real-mirror.ts';
import { tempDir } from '../helpers/temp-dir.ts';

const SECRET = /^mpt_[\w-]{43}\n$/;
const START = Date.parse('2026-11-25T10:00:00.500Z');
const READ_ONLY_FOLDER = '/sys';

/** Commands in a folder, at a time that the test moves. */
async function setUp(t: TestContext) {
  const folder = await tempDir(t);
  const clock = new FakeClock();
  clock.advance(START - clock.now());
  const millpond = async (...args: string[]) => {
    let stdout = '';
    let stderr = '';
    const exitCode = await runCommandLine(['token', ...args], {
      version: '1.2.3',
      environment: {},
      cwd: folder,
      clock,
      stdout: { write: (text) => (stdout += text) },
      stderr: { write: (text) => (stderr += text) },
      serve: async () => undefined,
    });
    return { exitCode, stdout, stderr };
  };
  const create = (name: string, expires: string) =>
    millpond('create', name, '--expires', expires, '--file', 'tokens');
  return { folder, clock, millpond, create, tokens: join(folder, 'tokens') };
}

function lineOf(secret: string): string {
  const hash = createHash('sha256').update(secret.trimEnd()).digest('hex');
  return `ci-team sha256:${hash} 2026-11-25T10:00:00Z 2027-02-23T10:00:00Z`;
}

test('millpond token create prints the secret, alone, and adds a line with its hash to a file that others cannot read', async (t) => {
  const { create, tokens } = await setUp(t);
  const { exitCode, stdout, stderr } = await create('ci-team', '90d');
  assert.deepEqual([exitCode, stderr], [0, '']);
  assert.match(stdout, SECRET);
  const text = await readFile(tokens, 'utf8');
  assert.equal(text.trimEnd().split('\n').at(-1), lineOf(stdout));
  assert.ok(!text.includes(stdout.trimEnd()));
  assert.equal((await stat(tokens)).mode & 0o777, 0o600);
});

test('millpond token create --print-line changes no file: the line goes to stdout, the secret to stderr', async (t) => {
  const { millpond, folder } = await setUp(t);
  const { exitCode, stdout, stderr } = await millpond(
    'create',
    'ci-team',
    '--expires',
    '90d',
    '--print-line',
  );
  assert.equal(exitCode, 0);
  assert.match(stderr, SECRET);
  assert.equal(stdout, `${lineOf(stderr)}\n`);
  assert.deepEqual(await readdir(folder), []);
});

test('the printed line, added to the file by a shell, lets the printed secret in', async (t) => {
  const { folder } = await setUp(t);
  const command = `"$0" "$1" token create ci --expires 12h --print-line >> tokens 2> secret`;
  const options = { cwd: folder };
  await promisify(execFile)('sh', ['-c', command, process.execPath, MAIN], options);
  const secret = await readFile(join(folder, 'secret'), 'utf8');
  assert.match(secret, SECRET);
  const robots = tokenList(await readFile(join(folder, 'tokens')), 'tokens');
  assert.equal(robots.byHash.get(hashOfSecret(secret.trim()))?.name, 'ci');
  const { stdout } = await promisify(execFile)(
    process.execPath,
    [MAIN, 'token', 'list', '--json', '--file', 'tokens'],
    options,
  );
  const [token, ...others] = JSON.parse(stdout) as Record<string, string>[];
  assert.deepEqual([token?.['name'], token?.['usedAt'], others], ['ci', null, []]);
  const lifetime = Date.parse(token?.['expiresAt'] ?? '') - Date.parse(token?.['createdAt'] ?? '');
  assert.equal(lifetime, 12 * 3_600_000);
});

test('millpond token list shows times, last uses at the server of the configuration, and what has expired', async (t) => {
  const { create, millpond, clock, folder } = await setUp(t);
  await create('ci-team', '90d');
  await create('short', '1h');
  await mkdir(join(folder, 'cache'));
  await writeFile(join(folder, 'cache', 'token-uses.json'), '{"ci-team":"2026-11-25T11:30:00.123Z"}\n');
  await writeFile(join(folder, 'other.json'), '{"short":"2026-11-25T10:30:00.000Z"}\n');
  await writeFile(join(folder, 'config.yaml'), 'cache: { directory: cache }\n');
  clock.advance(3_600_000);
  assert.deepEqual(await millpond('list', '--file', 'tokens', '--config', 'config.yaml'), {
    exitCode: 0,
    stdout: `NAME     CREATED               EXPIRES                        LAST USED
ci-team  2026-11-25T10:00:00Z  2027-02-23T10:00:00Z           2026-11-25T11:30:00Z
short    2026-11-25T10:00:00Z  2026-11-25T11:00:00Z, expired  -
`,
    stderr: '',
  });
  const { stdout } = await millpond('list', '--file', 'tokens', '--last-uses', 'other.json', '--json');
  const usedAt = (JSON.parse(stdout) as { usedAt: string | null }[]).map((token) => token.usedAt);
  assert.deepEqual(usedAt, [null, '2026-11-25T10:30:00Z']);
});

test('millpond token revoke removes the line, and nothing else', async (t) => {
  const { create, millpond, tokens } = await setUp(t);
  await writeFile(tokens, '# of the platform team\n', { mode: 0o640 });
  await create('old', '90d');
  const before = await readFile(tokens, 'utf8');
  await create('ci-team', '90d');
  assert.deepEqual(await millpond('revoke', 'ci-team', '--file', 'tokens'), {
    exitCode: 0,
    stdout: 'ci-team: revoked\n',
    stderr: '',
  });
  assert.equal(await readFile(tokens, 'utf8'), before);
  assert.equal((await stat(tokens)).mode & 0o777, 0o640);
});

for (const [what, args, exitCode, message] of [
  [
    'a wrong name',
    ['create', 'CI', '--expires', '90d', '--file', 'tokens'],
    2,
    /a token name has 1 to 64 of/,
  ],
  [
    'a name that is taken',
    ['create', 'old', '--expires', '90d', '--file', 'tokens'],
    1,
    /there is a token old/,
  ],
  ['a time without a unit', ['create', 'ci', '--expires', '90', '--file', 'tokens'], 2, /such as 12h or 90d/],
  ['no time at all', ['create', 'ci', '--expires', '0s', '--file', 'tokens'], 2, /must expire later than/],
  [
    'a time beyond all years',
    ['create', 'ci', '--expires', '99999999d', '--file', 'tokens'],
    2,
    /years 0 and 9999/,
  ],
  ['no time given', ['create', 'ci', '--file', 'tokens'], 2, /--expires <duration>' not specified/],
  ['no file given', ['create', 'ci', '--expires', '90d'], 2, /'--file <file>' not specified/],
  [
    'a file and --print-line',
    ['create', 'ci', '--expires', '90d', '--file', 'tokens', '--print-line'],
    2,
    /'--print-line' cannot be used with/,
  ],
  [
    'a missing folder',
    ['create', 'ci', '--expires', '90d', '--file', 'no/tokens'],
    1,
    /There is no such folder/,
  ],
  [
    'a read-only folder',
    ['create', 'ci', '--expires', '90d', '--file', join(READ_ONLY_FOLDER, 'tokens')],
    1,
    /mounted read-only, .* --print-line/,
  ],
  ['a missing file to list', ['list', '--file', 'nothing'], 1, /nothing: there is no such file/],
  ['no file to list', ['list'], 2, /'--file <file>' not specified/],
  [
    'a missing file to revoke in',
    ['revoke', 'old', '--file', 'nothing'],
    1,
    /nothing: there is no such file/,
  ],
  ['an unknown name to revoke', ['revoke', 'ci', '--file', 'tokens'], 1, /there is no token ci/],
] as const) {
  test(`millpond token says what is wrong with ${what}, prints no secret, and changes nothing`, async (t) => {
    const { create, millpond, tokens, folder } = await setUp(t);
    await create('old', '90d');
    const before = await readFile(tokens, 'utf8');
    const outcome = await millpond(...args);
    assert.deepEqual([outcome.exitCode, outcome.stdout], [exitCode, '']);
    assert.match(outcome.stderr, message);
    assert.doesNotMatch(outcome.stderr, /mpt_/);
    assert.deepEqual(await readdir(folder), ['tokens']);
    assert.equal(await readFile(tokens, 'utf8'), before);
  });
}
