import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { join, resolve } from 'node:path';
import { suite, test } from 'node:test';
import { promisify } from 'node:util';
import { runCommandLine } from '../../src/cli/program.ts';
import { systemClock } from '../../src/clock.ts';
import { ConfigFolder } from '../helpers/config-folder.ts';

const folder = await ConfigFolder.create();
await folder.write('users', '');
await folder.write('ca.pem', '');
await folder.write(
  'm.yaml',
  `server: { tls: { certificate: ca.pem, key: ca.pem, clientCa: ca.pem } }
upstreams: { ghcr.io: { aliases: [ghcr.corp] }, docker.io: {} }
access:
  users: { htpasswd: users }
  tokens: users
  oidc: [{ name: github, issuer: https://token.actions.githubusercontent.com, audience: millpond }]
  rules:
    - { who: anonymous, network: 10.0.0.0/8, pull: 'docker.io/library/*' }
    - { who: 'user:*', pull: 'ghcr.io/org/*', fetch: false }
    - { who: 'oidc:github', claims: { repository_owner_id: '123456', ref: ['refs/heads/*', true] }, pull: 'ghcr.io/org/*' }
    - { who: 'user:ops', operate: true, observe: 'ghcr.io/org/*' }
    - { who: 'certificate:DNS:build-*', pull: 'ghcr.io/org/app' }
`,
);
await folder.write('open.yaml', 'upstreams: { docker.io: {} }\n');
await folder.write(
  'loose.yaml',
  `access:
  oidc: [{ name: github, issuer: https://token.actions.githubusercontent.com, audience: millpond }]
  rules:
    - who: oidc:github
      claims: { repository: 'acme*' }
      pull: '*'
`,
);

async function explain(...args: string[]) {
  return run('access', 'explain', ...(args.includes('--config') ? [] : ['--config', 'm.yaml']), ...args);
}

async function run(...args: string[]) {
  let [stdout, stderr] = ['', ''];
  const exitCode = await runCommandLine(args, {
    version: '1.2.3',
    environment: {},
    cwd: folder.path,
    clock: systemClock,
    stdout: { write: (text) => (stdout += text) },
    stderr: { write: (text) => (stderr += text) },
    serve: async () => undefined,
  });
  return { exitCode, stdout, stderr };
}

suite('access explain', () => {
  test('says which rule decides, and why each other one does not', async () => {
    assert.deepEqual(await explain('--as', 'user:ops', '--pull', 'ghcr.io/org/app'), {
      exitCode: 0,
      stdout: `allowed by access.rules[1]: user:ops may pull ghcr.io/org/app, but only what is cached (fetch: false)

RULE             ALLOWS   WHY NOT
access.rules[0]  no       it needs a network, and the client's address is not known
access.rules[1]  decides
access.rules[2]  no       it does not name user:ops or anonymous
access.rules[3]  no       it has no pull
access.rules[4]  no       it does not name user:ops or anonymous
`,
      stderr: '',
    });
  });

  test('ends with 1 when no rule allows it', async () => {
    const { exitCode, stdout, stderr } = await explain('--pull', 'ghcr.io/org/app');
    assert.deepEqual([exitCode, stderr], [1, 'millpond: refused: no rule allows it\n']);
    assert.match(stdout, /^refused: no rule says that anonymous may pull ghcr\.io\/org\/app\n/);
  });

  test('prints JSON, with the places of the rules as config check names them', async () => {
    const { exitCode, stdout } = await explain('--as', 'user:ops', '--operate', '--json');
    const json = JSON.parse(stdout) as { rules: unknown[] };
    assert.equal(exitCode, 0);
    assert.equal(json.rules.length, 5);
    assert.deepEqual(json.rules[3], { rule: 'access.rules[3]', allows: true, decides: true });
    const { as, right, allowed, rule } = json as unknown as Record<string, unknown>;
    assert.deepEqual([as, right, allowed, rule], [['user:ops'], 'operate', true, 'access.rules[3]']);
  });

  const github = ['--as', 'oidc:github', '--claim'];
  for (const [args, exitCode] of [
    [['--network', '10.1.2.3', '--pull', 'alpine'], 0],
    [['--network', '::ffff:10.1.2.3', '--pull', 'alpine:3.20'], 0],
    [['--network', '11.1.2.3', '--pull', 'alpine'], 1],
    [['--as', 'user:ops', '--pull', 'ghcr.corp/org/app'], 0],
    [['--as', 'user:ops', '--observe'], 1],
    [['--as', 'user:ops', '--observe', 'ghcr.io/org/app'], 0],
    [['--as', 'user:ops', '--observe', 'ghcr.io/other/app'], 1],
    [['--as', 'user:anna', '--operate', 'ghcr.io/org/app'], 1],
    [['--as', 'certificate:DNS:build-7', '--as', 'certificate:CN=x', '--pull', 'ghcr.io/org/app'], 0],
    [['--as', 'token:ci', '--as', 'certificate:DNS:build-7', '--pull', 'ghcr.io/org/app'], 0],
    [['--as', 'token:ci', '--pull', 'ghcr.io/org/app'], 1],
    [
      [...github, 'repository_owner_id=123456', '--claim', 'ref=refs/heads/x', '--pull', 'ghcr.io/org/app'],
      0,
    ],
    [[...github, 'repository_owner_id=123456', '--claim', 'ref:=true', '--pull', 'ghcr.io/org/app'], 0],
    [[...github, 'repository_owner_id=123456', '--claim', 'ref=true', '--pull', 'ghcr.io/org/app'], 1],
    [[...github, 'repository_owner_id:=123456', '--claim', 'ref:=true', '--pull', 'ghcr.io/org/app'], 1],
    [[...github, 'ref=refs/heads/x', '--pull', 'ghcr.io/org/app'], 1],
    [['--config', 'open.yaml', '--as', 'user:ops', '--operate'], 0],
  ] as [string[], number][]) {
    test(`ends with ${exitCode}: ${args.join(' ')}`, async () => {
      const outcome = await explain(...args);
      assert.equal(outcome.exitCode, exitCode, outcome.stderr);
      assert.match(outcome.stdout, exitCode === 0 ? /^allowed/ : /^refused/);
    });
  }

  for (const [args, message] of [
    [[], 'give one of --pull, --operate and --observe'],
    [['--pull', 'alpine', '--operate'], 'give one of --pull, --operate and --observe'],
    [['--pull', 'ghcr.io/Org'], 'ghcr.io/Org is not an image name'],
    [['--pull', 'quay.io/org/app'], 'quay.io is not one of the configured upstreams'],
    [['--pull', 'alpine', '--network', '10.0.0.0/8'], '10.0.0.0/8 is not an IP address'],
    [['--pull', 'alpine', '--as', 'ops'], '--as ops is not one identity'],
    [['--pull', 'alpine', '--as', 'user:*'], '--as user:* is not one identity'],
    [['--pull', 'alpine', '--as', '*'], '--as * is not one identity'],
    [['--pull', 'alpine', '--as', 'certificate:build'], '--as certificate:build is not one identity'],
    [['--pull', 'alpine', '--as', 'oidc:gitlab'], 'oidc:gitlab is not one of the issuers'],
    [['--pull', 'alpine', '--as', 'user:a', '--as', 'token:b'], 'a request has credentials of one kind'],
    [['--pull', 'alpine', '--claim', 'sub=x'], 'only tokens of an issuer have claims'],
    [['--pull', 'alpine', '--as', 'oidc:github', '--claim', 'sub'], '--claim sub is not a claim'],
    [['--pull', 'alpine', '--as', 'oidc:github', '--claim', 'sub:=x'], '--claim sub:=x: after := comes JSON'],
  ] as [string[], string][]) {
    test(`is wrong usage: ${args.join(' ')}`, async () => {
      const { exitCode, stdout, stderr } = await explain(...args);
      assert.deepEqual([exitCode, stdout], [2, '']);
      assert.ok(stderr.startsWith(`error: ${message}`), stderr);
    });
  }
});

test('config check prints rules that let in more than was meant as warnings, and ends with 0', async () => {
  const { exitCode, stdout, stderr } = await run('config', 'check', '--config', 'loose.yaml');
  assert.deepEqual([exitCode, stdout], [0, 'loose.yaml: no errors, 1 warning\n']);
  assert.match(
    stderr,
    /^loose\.yaml:5:29: access\.rules\[0\]\.claims\.repository: warning: "acme\*" also matches longer names.*\n$/,
  );
});

test('other commands load no access control', async () => {
  const root = resolve(import.meta.dirname, '../..');
  const program = join(root, 'src/cli/program.ts');
  const script = `
    import { registerHooks } from 'node:module';
    const loaded = [];
    registerHooks({ load: (url, context, next) => (loaded.push(url), next(url, context)) });
    const { runCommandLine } = await import(${JSON.stringify(program)});
    const surroundings = { version: '1', environment: {}, cwd: '/', stdout: { write() {} }, stderr: { write() {} } };
    await runCommandLine(['config', 'check'], surroundings);
    console.log(loaded.filter((url) => url.includes('/src/access/')).join());
  `;
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '--eval', script]);
  assert.equal(stdout, '\n');
});
