/** Commands against a mirror that wants to know who sends them. */
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { request } from 'undici';
import { createRobotToken } from '../helpers/access-files.ts';
import { selfSigned } from '../helpers/certificates.ts';
import { cleanUp } from '../helpers/cleanup.ts';
import { FakeClock } from '../helpers/fake-clock.ts';
import { buildImage } from '../helpers/images.ts';
import { runMillpond } from '../helpers/run-millpond.ts';
import { startMirror } from '../helpers/start-mirror.ts';
import { tempDir } from '../helpers/temp-dir.ts';
import { archiveOf } from '../helpers/transfers.ts';

async function setUp(t: TestContext, operations: Record<string, unknown> = {}) {
  const clock = new FakeClock();
  const directory = await tempDir(t);
  const ops = await createRobotToken(directory, 'ops', clock);
  const watcher = await createRobotToken(directory, 'watcher', clock);
  const mirror = await startMirror(t, {
    upstreams: { 'docker.io': 'http://127.0.0.1:9' },
    ...{ clock, directory, sealed: true },
    operations: { listen: '127.0.0.1:0', ...operations },
    operator: { authorization: `Bearer ${ops.secret}` },
    access: {
      tokens: ops.path,
      rules: [
        { who: 'token:watcher', observe: true },
        { who: 'token:ops', operate: true, observe: true, pull: '*' },
      ],
    },
  });
  const image = 'docker.io/org/app:1';
  await writeFile(join(directory, 'images.tar'), await archiveOf({ [image]: buildImage({}) }));
  const millpond = (args: readonly string[], environment: Record<string, string> = {}) =>
    runMillpond(mirror, args, directory, undefined, environment);
  return { mirror, directory, millpond, ops: ops.secret, watcher: watcher.secret };
}

const COMMANDS = [
  ['import', 'images.tar'],
  ['status'],
  ['list'],
  ['export', '--output', 'out.tar', 'org/app:1'],
  ['warm', 'org/app:1'],
  ['scrub'],
  ['remove', 'org/app:1'],
  ['seal'],
  ['unseal'],
];

test('every command sends MILLPOND_TOKEN, or --token before it', async (t) => {
  const { millpond, ops } = await setUp(t);
  for (const args of COMMANDS) {
    const byEnvironment = await millpond(args, { MILLPOND_TOKEN: ops });
    assert.equal(byEnvironment.exitCode, 0, byEnvironment.stderr);
    assert.equal(byEnvironment.stdout.includes(ops), false);
  }
  const byOption = await millpond(['status', '--token', ops], { MILLPOND_TOKEN: 'another' });
  assert.equal(byOption.exitCode, 0, byOption.stderr);
});

test('a command without a token, with a wrong one, and without the right says what to do', async (t) => {
  const { millpond, watcher } = await setUp(t);
  for (const args of COMMANDS) {
    const { exitCode, stdout, stderr } = await millpond(args);
    assert.deepEqual([exitCode, stdout], [1, ''], args[0]);
    assert.match(stderr, /log in to use the operations side of this mirror: set MILLPOND_TOKEN to a token/);
  }
  const wrong = await millpond(['status'], { MILLPOND_TOKEN: `mpt_${'A'.repeat(43)}` });
  assert.match(wrong.stderr, /the robot token is not known here, or was revoked: set MILLPOND_TOKEN/);
  const refused = await millpond(['seal'], { MILLPOND_TOKEN: watcher });
  assert.deepEqual(refused, {
    exitCode: 1,
    stdout: '',
    stderr:
      'millpond: this needs a rule with operate: true, and no rule gives you that: ask for a rule in its configuration, or use another token\n',
  });
});

test('a command by a name that the mirror does not know says which key to set', async (t) => {
  const { mirror } = await setUp(t);
  // Stands in for a name in DNS, which no test can count on.
  const renamed = createServer((_incoming, response) => {
    void request(`${mirror.operationsUrl}/api/status`, { headers: { host: 'ops.corp.example' } }).then(
      async ({ statusCode, body }) => response.writeHead(statusCode).end(await body.text()),
    );
  });
  await new Promise<void>((resolve) => renamed.listen(0, '127.0.0.1', resolve));
  cleanUp(t, () => renamed.close());
  const operationsUrl = `http://127.0.0.1:${(renamed.address() as AddressInfo).port}`;
  assert.deepEqual(await runMillpond({ operationsUrl }, ['status']), {
    exitCode: 1,
    stdout: '',
    stderr:
      'millpond: "ops.corp.example" is not a name of this operations listener: add it to operations.hosts in the configuration, or use localhost or an IP address\n',
  });
});

test('a command reaches a mirror over HTTPS with the authority in --ca, and not without', async (t) => {
  const folder = await tempDir(t);
  const { cert, key } = selfSigned('localhost');
  await writeFile(join(folder, 'cert.pem'), cert);
  await writeFile(join(folder, 'key.pem'), key);
  const { mirror, ops, directory } = await setUp(t, {
    tls: { certificate: join(folder, 'cert.pem'), key: join(folder, 'key.pem') },
  });
  await writeFile(join(directory, 'ca.pem'), cert);
  const operationsUrl = mirror.operationsUrl.replace('127.0.0.1', 'localhost');
  const run = (...args: string[]) =>
    runMillpond({ operationsUrl }, args, directory, undefined, { MILLPOND_TOKEN: ops });
  for (const args of COMMANDS.slice(0, 4)) {
    const done = await run(...args, '--ca', 'ca.pem');
    assert.equal(done.exitCode, 0, done.stderr);
  }
  assert.match((await run('status')).stderr, /no answer from https:.*self-signed certificate/);
  assert.equal(
    (await run('status', '--ca', 'nowhere.pem')).stderr,
    `millpond: ${join(directory, 'nowhere.pem')} cannot be read: no such file\n`,
  );
});

test('a command reaches a mirror over its Unix socket, without a token', async (t) => {
  const { mirror, millpond } = await setUp(t, { listen: `unix:${join(await tempDir(t), 'ops.sock')}` });
  assert.match(mirror.operationsUrl, /^unix:\//);
  for (const args of COMMANDS) {
    const { exitCode, stderr } = await millpond(args);
    assert.deepEqual([exitCode, stderr], [0, ''], args[0]);
  }
  const gone = await runMillpond({ operationsUrl: 'unix:/nowhere.sock' }, ['status']);
  assert.match(gone.stderr, /no answer from unix:\/nowhere\.sock \(.*ENOENT.*\): is Millpond running\?/);
});
