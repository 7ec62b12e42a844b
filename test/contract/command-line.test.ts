import assert from 'node:assert/strict';
import { join } from 'node:path';
import { suite, test } from 'node:test';
import type { Surroundings } from '../../src/cli/io/surroundings.ts';
import { runCommandLine } from '../../src/cli/program.ts';
import { systemClock } from '../../src/clock.ts';
import type { Config } from '../../src/config/schema.ts';
import { ConfigFolder } from '../helpers/config-folder.ts';

const folder = await ConfigFolder.create();
await folder.write('good.yaml', 'sealed: true\n');
await folder.write('bad.yaml', 'sealed: maybe\nlgo: {}\n');
await folder.write(
  'secret.yaml',
  'upstreams:\n  docker.io:\n    credentials: { username: bob, password: { env: HUB_TOKEN } }\n',
);

const BAD =
  'bad.yaml:1:9: sealed: must be true or false, got "maybe"\nbad.yaml:2:1: lgo: unknown key; did you mean log?\n';

interface Outcome {
  exitCode: number;
  stdout: string;
  stderr: string;
}

/** Runs a command line in this process, in the folder, with `serve` in place of the server. */
async function run(
  args: string[],
  environment: Surroundings['environment'] = {},
  serve: Surroundings['serve'] = async () => assert.fail('the server was started'),
): Promise<Outcome> {
  let stdout = '';
  let stderr = '';
  const exitCode = await runCommandLine(args, {
    version: '1.2.3',
    environment,
    cwd: folder.path,
    clock: systemClock,
    stdout: { write: (text) => (stdout += text) },
    stderr: { write: (text) => (stderr += text) },
    serve,
  });
  return { exitCode, stdout, stderr };
}

suite('the configuration', () => {
  test('config check ends with 0 for a valid configuration', async () => {
    assert.deepEqual(await run(['config', 'check', '--config', 'good.yaml']), {
      exitCode: 0,
      stdout: 'good.yaml: no problems\n',
      stderr: '',
    });
  });

  for (const command of [['config', 'check'], ['config', 'print'], ['serve']]) {
    test(`${command.join(' ')} ends with 2 for an invalid configuration, and reports all of its problems`, async () => {
      assert.deepEqual(await run([...command, '--config', 'bad.yaml']), {
        exitCode: 2,
        stdout: '',
        stderr: BAD,
      });
    });
  }

  test('MILLPOND_CONFIG names the configuration, unless --config does', async () => {
    const environment = { MILLPOND_CONFIG: 'bad.yaml' };
    assert.deepEqual(await run(['config', 'check'], environment), {
      exitCode: 2,
      stdout: '',
      stderr: BAD,
    });
    const { exitCode, stdout } = await run(['config', 'check', '-c', 'good.yaml'], environment);
    assert.deepEqual([exitCode, stdout], [0, 'good.yaml: no problems\n']);
  });

  test('an empty MILLPOND_CONFIG means the defaults', async () => {
    const { exitCode, stdout } = await run(['config', 'check'], { MILLPOND_CONFIG: '' });
    assert.deepEqual([exitCode, stdout], [0, 'built-in defaults: no problems\n']);
  });

  for (const command of ['check', 'print']) {
    test(`config ${command} ends with 2 for a missing file`, async () => {
      assert.deepEqual(await run(['config', command, '--config', 'nowhere.yaml']), {
        exitCode: 2,
        stdout: '',
        stderr: 'nowhere.yaml:1:1: configuration file cannot be read: no such file\n',
      });
    });
  }

  test('config check needs the secrets, and config print neither needs nor shows them', async () => {
    const unset =
      'secret.yaml:3:52: upstreams.docker.io.credentials.password.env: environment variable HUB_TOKEN is not set\n';
    const checked = await run(['config', 'check', '--config', 'secret.yaml']);
    assert.deepEqual(checked, { exitCode: 2, stdout: '', stderr: unset });
    for (const environment of [{}, { HUB_TOKEN: 'swordfish' }]) {
      const printed = await run(['config', 'print', '--config', 'secret.yaml'], environment);
      assert.equal(printed.exitCode, 0);
      assert.match(printed.stdout, /password: '\[redacted\]'/);
      assert.doesNotMatch(printed.stdout, /swordfish|HUB_TOKEN/);
    }
  });

  test('the output of config print is a configuration with the same output', async () => {
    const printed = await run(['config', 'print', '--config', 'good.yaml']);
    await folder.write('printed.yaml', printed.stdout);
    const again = await run(['config', 'print', '--config', 'printed.yaml']);
    const values = ({ stdout }: Outcome) => stdout.replace(/ +# \S+$/gm, '');
    assert.equal(values(again), values(printed));
    assert.match(values(printed), /^sealed: true$/m);
  });
});

test('config print, access explain and token list take variables, too', async () => {
  const printed = await run(['config', 'print', '-c', 'good.yaml'], { MILLPOND_CACHE_MAX_SIZE: '1TiB' });
  assert.match(printed.stdout, /^ {2}maxSize: 1TiB {6,}# MILLPOND_CACHE_MAX_SIZE$/m);
  assert.match(printed.stdout, /^sealed: true {6,}# good\.yaml:1$/m);
  assert.match(printed.stdout, /^defaultUpstream: docker\.io {6,}# default$/m);
  for (const command of [
    ['access', 'explain', '--pull', 'docker.io/library/alpine'],
    ['token', 'list', '--file', 'tokens'],
  ])
    assert.match(
      (await run(command, { MILLPOND_SEALED: 'maybe' })).stderr,
      /^environment: MILLPOND_SEALED: must be true or false, got "maybe"\n$/,
    );
});

test('the help says how a variable sets a key, and how a warning is silenced', async () => {
  assert.match((await run(['config', '--help'])).stdout, /MILLPOND_CACHE_MAX_SIZE for cache\.maxSize/);
  assert.match((await run(['serve', '--help'])).stdout, /millpond config --help/);
  const { stdout } = await run(['config', 'check', '--help']);
  assert.match(stdout, /--strict/);
  assert.match(stdout, /# millpond: allow NAME/);
});

suite('the command line', () => {
  for (const args of [
    [],
    ['config'],
    ['brew'],
    ['config', 'chek'],
    ['--brew'],
    ['serve', '--brew'],
    ['serve', 'now'],
    ['config', 'check', 'a.yaml'],
    ['config', 'check', '--config'],
    ['status', '--server', 'millpond'],
    ['import', '--server', 'ftp://127.0.0.1', 'images.tar'],
  ]) {
    test(`ends with 2 and an explanation on stderr: millpond ${args.join(' ')}`, async () => {
      const outcome = await run(args);
      assert.equal(outcome.exitCode, 2);
      assert.equal(outcome.stdout, '');
      assert.notEqual(outcome.stderr, '');
    });
  }

  for (const args of [
    [],
    ['serve'],
    ['config'],
    ['config', 'check'],
    ['config', 'print'],
    ['access'],
    ['access', 'explain'],
    ['status'],
    ['list'],
    ['remove'],
    ['warm'],
    ['export'],
    ['import'],
    ['scrub'],
    ['seal'],
    ['unseal'],
    ['token'],
    ['token', 'create'],
    ['token', 'list'],
    ['token', 'revoke'],
  ]) {
    test(`has help for: millpond ${args.join(' ')}`, async () => {
      const outcome = await run([...args, '--help']);
      assert.equal(outcome.exitCode, 0);
      assert.match(outcome.stdout, new RegExp(`^Usage: ${['millpond', ...args].join(' ')} `));
      assert.equal(outcome.stderr, '');
    });
  }

  test('serve gives the server its configuration, and ends with 0 when the server has stopped', async () => {
    const served: Config[] = [];
    const outcome = await run(['serve', '--config', 'good.yaml'], {}, async (config) => {
      served.push(config);
    });
    assert.deepEqual(outcome, { exitCode: 0, stdout: '', stderr: '' });
    assert.deepEqual(
      served.map(({ sealed, cache }) => [sealed, cache.directory]),
      [[true, join(folder.path, 'millpond-data')]],
    );
  });

  test('serve does not start a server whose secrets are missing', async () => {
    const outcome = await run(['serve', '--config', 'secret.yaml']);
    assert.equal(outcome.exitCode, 2);
    assert.match(outcome.stderr, /^secret\.yaml:3:52: .* HUB_TOKEN is not set\n$/);
  });

  test('ends with 1 when the server fails', async () => {
    const outcome = await run(['serve'], {}, async () => {
      throw new Error('port 5000 is taken');
    });
    assert.deepEqual(outcome, { exitCode: 1, stdout: '', stderr: 'millpond: port 5000 is taken\n' });
  });
});
