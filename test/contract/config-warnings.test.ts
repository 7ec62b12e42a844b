import assert from 'node:assert/strict';
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { suite, test } from 'node:test';
import { runCommandLine } from '../../src/cli/program.ts';
import { systemClock } from '../../src/clock.ts';
import { WARNING_NAMES } from '../../src/config/check/warning.ts';
import { cleanUp } from '../helpers/cleanup.ts';
import { ConfigFolder } from '../helpers/config-folder.ts';

const readme = await readFile(new URL('../../README.md', import.meta.url), 'utf8');
const folder = await ConfigFolder.create();
const IN_MEMORY = '/dev/shm';
const TMPFS = 0x01021994;

async function check(text: string, { environment = {}, args = [] as string[] } = {}) {
  await folder.write('m.yaml', text);
  const written = { stdout: '', stderr: '' };
  const exitCode = await runCommandLine(['config', 'check', '-c', 'm.yaml', ...args], {
    version: '1.2.3',
    environment,
    cwd: folder.path,
    clock: systemClock,
    stdout: { write: (more) => void (written.stdout += more) },
    stderr: { write: (more) => void (written.stderr += more) },
    serve: async () => assert.fail('the server was started'),
  });
  return { exitCode, ...written };
}

/** The warnings of a configuration that can be used, without what they say: place, key and name. */
async function warnings(text: string, environment: Record<string, string> = {}): Promise<string[]> {
  const { exitCode, stderr } = await check(text, { environment });
  assert.equal(exitCode, 0, stderr);
  return stderr
    .split('\n')
    .slice(0, -1)
    .map((line) => line.replace(/^(.*?): warning: .+ (\[[a-z-]+\])$/, '$1 $2'));
}

/** An upstream with this line in it, as line 3. */
const upstream = (line: string) => `upstreams:\n  docker.io:\n    ${line}\n`;
const D = 'upstreams.docker.io';
const PASSWORD = 'credentials: { username: bob, password: { file: closed.txt } }';
const FLEET =
  'secret: { file: closed.txt }\n  objects: { bucket: millpond }\n  coordinator: { url: valkey://10.0.0.9:6379 }';
const RULES = 'rules: [{ who: user:a, pull: docker.io/* }], users: { htpasswd: closed.txt }';

await folder.write('closed.txt', 'swordfish\n');
await chmod(join(folder.path, 'closed.txt'), 0o640);
for (const mode of [0o644, 0o602]) {
  await folder.write(`open-${mode.toString(8)}.txt`, 'swordfish\n');
  await chmod(join(folder.path, `open-${mode.toString(8)}.txt`), mode);
}

suite('config check warns of', () => {
  for (const [what, text, ...expected] of [
    [
      'listening on all addresses without access control',
      'server: { listen: 0.0.0.0:7000 }\noperations:\n  listen: "[::]:7001"\n',
      'm.yaml:1:19: server.listen [no-access-control]',
      'm.yaml:3:11: operations.listen [no-access-control]',
    ],
    [
      '… and not of one address, or a socket',
      'server: { listen: 10.0.0.1:5000 }\noperations: { listen: "unix:/run/m.sock" }',
    ],
    ['… and not with access control', `server: { listen: 0.0.0.0:5000 }\naccess: { ${RULES} }`],
    [
      'nodes of a fleet that listen on all addresses without TLS',
      `fleet:\n  listen: 0.0.0.0:5002\n  advertise: http://10.0.0.3:5002\n  ${FLEET}\n`,
      'm.yaml:2:11: fleet.listen [fleet-without-tls]',
    ],
    ['… and not on one address', `fleet:\n  listen: 10.0.0.3:5002\n  ${FLEET}\n`],
    [
      '… and not with TLS',
      `fleet:\n  advertise: https://10.0.0.3:5002\n  tls: { certificate: closed.txt, key: closed.txt }\n  ${FLEET}\n`,
    ],
    [
      'a wait for policies that containerd does not wait for',
      'policyWait: 26s',
      'm.yaml:1:13: policyWait [long-policy-wait]',
    ],
    ['… and not one that it does', 'policyWait: 25s'],
    [
      'a tagTtl of 0, for an upstream and for some of its repositories',
      upstream(
        'freshness: { tagTtl: 0s, repositories: [{ match: "a/*", tagTtl: 0s }, { match: b, tagTtl: 1s }] }',
      ),
      `m.yaml:3:26: ${D}.freshness.tagTtl [zero-tag-ttl]`,
      `m.yaml:3:69: ${D}.freshness.repositories[0].tagTtl [zero-tag-ttl]`,
    ],
    [
      'credentials that go to an upstream over plain HTTP, by its URL or by another one',
      upstream(
        `url: http://a.example\n    fallbackUrls: [https://b.example, http://c.example]\n    ${PASSWORD}`,
      ),
      `m.yaml:3:10: ${D}.url [credentials-without-tls]`,
      `m.yaml:4:39: ${D}.fallbackUrls[1] [credentials-without-tls]`,
    ],
    ['… and not of plain HTTP without credentials', upstream('url: http://a.example')],
    [
      '… and not on this machine',
      upstream(
        `url: http://127.0.0.1:5000\n    fallbackUrls: [http://localhost, "http://[::1]:1"]\n    ${PASSWORD}`,
      ),
    ],
    [
      'the password of a proxy over plain HTTP',
      upstream('proxy: { url: http://bob@proxy.example:3128, password: { file: closed.txt } }'),
      `m.yaml:3:19: ${D}.proxy.url [credentials-without-tls]`,
    ],
    [
      'passwords of clients over plain HTTP',
      `server: { listen: 0.0.0.0:5000 }\naccess: { insecure: true, ${RULES} }`,
      'm.yaml:2:21: access.insecure [credentials-without-tls]',
    ],
    ['… and not where only this machine can connect', `access: { insecure: true, ${RULES} }`],
    [
      'a token that an issuer is asked with over plain HTTP',
      `access: { ${RULES}, oidc: [{ name: a, issuer: http://a.example, audience: m, insecure: true, token: { file: closed.txt } }] }`,
      'm.yaml:1:115: access.oidc[0].issuer [credentials-without-tls]',
    ],
    [
      'a relative directory',
      'cache: { directory: data }',
      'm.yaml:1:21: cache.directory [relative-directory]',
    ],
    ['… and not of the default, which nobody wrote', 'cache: { keepFree: 0B }'],
    [
      'a maxSize above the file system',
      'cache: { maxSize: 1000TiB }',
      'm.yaml:1:19: cache.maxSize [max-size-above-file-system]',
    ],
    ['… and not of a share of it', 'cache: { maxSize: 100% }'],
    [
      'pins of every image: no size is known, but all of them are above any maxSize',
      'cache: { pin: ["docker.io/*", "*/*:*"] }',
      'm.yaml:1:15: cache.pin [pins-everything]',
    ],
    [
      '… and of those of every upstream',
      'cache: { pin: ["docker.io/*"] }\nupstreams: { docker.io: }',
      'm.yaml:1:15: cache.pin [pins-everything]',
    ],
    ['… and not while one upstream is left', 'cache: { pin: ["docker.io/*", "ghcr.io/org/*"] }'],
    [
      'a pattern that can never match because an earlier one does',
      upstream(
        'freshness: { repositories: [{ match: "org/*" }, { match: "org/a*b" }, { match: "o*" }, { match: "org/*" }] }',
      ),
      `m.yaml:3:62: ${D}.freshness.repositories[1].match [unreachable-pattern]`,
      `m.yaml:3:101: ${D}.freshness.repositories[3].match [unreachable-pattern]`,
    ],
    [
      '… and not of one that matches more',
      upstream('freshness: { repositories: [{ match: "a.b" }, { match: "a*b" }, { match: "*" }] }'),
    ],
    [
      'secrets that others can read or change, and not of those that a group can',
      upstream(
        `credentials: { username: { file: open-644.txt }, password: { file: closed.txt } }\n    proxy: { url: https://bob@p.example, password: { file: open-602.txt } }\n`,
      ),
      `m.yaml:3:38: ${D}.credentials.username.file [exposed-secret]`,
      `m.yaml:4:60: ${D}.proxy.password.file [exposed-secret]`,
    ],
    [
      'private keys, password files and Docker configurations that others can read, and not of certificates',
      `access: { tokens: open-644.txt, users: { htpasswd: open-644.txt }, signingKey: { file: open-644.txt }, rules: [{ who: user:a, pull: docker.io/* }] }
server: { tls: { certificate: open-644.txt, key: open-644.txt } }
upstreams: { docker.io: { ca: open-644.txt, credentials: { dockerConfig: open-644.txt } } }
`,
      'm.yaml:1:19: access.tokens [exposed-secret]',
      'm.yaml:1:52: access.users.htpasswd [exposed-secret]',
      'm.yaml:1:88: access.signingKey.file [exposed-secret]',
      'm.yaml:2:50: server.tls.key [exposed-secret]',
      'm.yaml:3:74: upstreams.docker.io.credentials.dockerConfig [exposed-secret]',
    ],
    [
      'a rule that says nothing',
      'access: { users: { htpasswd: closed.txt }, rules: [{ who: user:a, observe: true, fetch: false }] }',
      'm.yaml:1:89: access.rules[0].fetch [doubtful-rule]',
    ],
  ] as const) {
    test(what, async () => {
      assert.deepEqual(await warnings(text), expected);
    });
  }

  test('a cache on tmpfs, in a folder that is not there yet, and makes nothing', async (t) => {
    if ((await statfs(IN_MEMORY).catch(() => undefined))?.type !== TMPFS)
      return t.skip(`needs a tmpfs at ${IN_MEMORY}`);
    const memory = await mkdtemp(join(IN_MEMORY, 'millpond-test-'));
    cleanUp(t, () => rm(memory, { recursive: true }));
    assert.deepEqual(await warnings(`cache: { directory: ${memory}/a/b }`), [
      'm.yaml:1:21: cache.directory [cache-in-memory]',
    ]);
    assert.deepEqual(await readdir(memory), []);
  });

  test('what a variable says, by the name of the variable', async () => {
    const environment = { MILLPOND_CACHE_MAX_SIZE: '1000TiB', MILLPOND_CACHE_DIRECTORY: 'data' };
    assert.deepEqual(await warnings('cache: { maxSize: 1GiB }', environment), [
      'environment: MILLPOND_CACHE_DIRECTORY [relative-directory]',
      'environment: MILLPOND_CACHE_MAX_SIZE [max-size-above-file-system]',
    ]);
  });
});

suite('a warning', () => {
  const TWO = 'cache: { directory: data, maxSize: 1000TiB }\n';

  test('says what happens and what to do, with its name behind it', async () => {
    assert.deepEqual(await check('cache: { directory: data }'), {
      exitCode: 0,
      stdout: 'm.yaml: no errors, 1 warning\n',
      stderr:
        'm.yaml:1:21: cache.directory: warning: is relative: another working directory means another, empty cache; write the whole path [relative-directory]\n',
    });
  });

  test('ends with 2 if --strict is given, and nothing is printed twice', async () => {
    const { exitCode, stdout, stderr } = await check(TWO, { args: ['--strict'] });
    assert.deepEqual([exitCode, stdout], [2, 'm.yaml: no errors, 2 warnings\n']);
    assert.match(stderr, /\nerror: 2 warnings, and --strict allows none\n$/);
    assert.equal(stderr.split('\n').length, 4);
    assert.equal((await check('sealed: true', { args: ['--strict'] })).exitCode, 0);
  });

  for (const [where, text] of [
    ['above', `# millpond: allow relative-directory\n${TWO}`],
    ['behind', `cache: { directory: data, maxSize: 1000TiB } # millpond: allow relative-directory\n`],
    ['below, beside another name', `${TWO}\n  #millpond:  allow zero-tag-ttl, relative-directory\n`],
  ] as const) {
    test(`is silenced by a comment ${where}, and the others are not`, async () => {
      assert.deepEqual(
        (await warnings(text)).map((line) => line.replace(/.* /, '')),
        ['[max-size-above-file-system]'],
      );
    });
  }

  test('is not silenced by a text that looks like a comment', async () => {
    const text = `cache: { directory: 'a # millpond: allow relative-directory' }\n`;
    assert.deepEqual(await warnings(text), ['m.yaml:1:21: cache.directory [relative-directory]']);
  });

  test('counts in --strict only if it is not silenced', async () => {
    const text = `${TWO}# millpond: allow relative-directory max-size-above-file-system\n`;
    const { exitCode, stdout } = await check(text, { args: ['--strict'] });
    assert.deepEqual([exitCode, stdout], [0, 'm.yaml: no problems\n']);
  });

  test('that does not exist is not silenced without a word', async () => {
    const { stderr } = await check('sealed: true\nlog: {} # millpond: allow relative-directoy\n');
    assert.equal(
      stderr,
      'm.yaml:2:9: warning: no warning is called "relative-directoy"; did you mean relative-directory? [unknown-warning]\n',
    );
  });

  for (const name of WARNING_NAMES) {
    test(`is explained in the README: ${name}`, () => {
      assert.ok(
        readme.includes(`
| \`${name}\` | `),
      );
    });
  }
});

suite('a cache directory', () => {
  test('with somebody’s files is an error, at its line', async () => {
    await folder.write('home/thesis.txt', 'words');
    assert.deepEqual(await check(`sealed: true\ncache: { directory: ${folder.path}/home }`), {
      exitCode: 2,
      stdout: '',
      stderr:
        'm.yaml:2:21: cache.directory: is neither empty nor a cache of Millpond, it holds thesis.txt: choose another folder\n',
    });
    assert.deepEqual(await readdir(join(folder.path, 'home')), ['thesis.txt']);
  });

  test('that is empty, or not there, is none, and is not made', async () => {
    await mkdir(join(folder.path, 'empty'));
    for (const name of ['empty', 'none'])
      assert.deepEqual(await warnings(`cache: { directory: ${folder.path}/${name} }`), []);
    assert.ok(!(await readdir(folder.path)).includes('none'));
    assert.deepEqual(await readdir(join(folder.path, 'empty')), []);
  });
});
