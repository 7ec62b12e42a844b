/** What operators do about policies: ask why, let in by hand, try without a running mirror. */
import assert from 'node:assert/strict';
import { appendFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { request } from 'undici';
import { runCommandLine } from '../../src/cli/program.ts';
import { basic, writeHtpasswd } from '../helpers/access-files.ts';
import { FakeClock } from '../helpers/fake-clock.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { ecKeys, pemOf } from '../helpers/signatures/cosign-signatures.ts';
import { type MirrorOptions, startMirror, type TestMirror } from '../helpers/start-mirror.ts';
import { tempDir } from '../helpers/temp-dir.ts';
import { pullImage } from '../helpers/transfers.ts';

const APP = '/v2/org/app';
const IMAGE = 'ghcr.io/org/app:1';

async function setUp(t: TestContext) {
  const directory = await tempDir(t);
  const [key, denied] = [join(directory, 'cosign.pub'), join(directory, 'denied.txt')];
  await writeFile(key, pemOf(ecKeys().publicKey));
  await writeFile(denied, '');
  const upstream = await ScriptedUpstream.start(t);
  const clock = new FakeClock();
  clock.impatient = false;
  const policies = [
    { name: 'signed-by-us', signature: { cosign: { keys: [key] } } },
    { name: 'known-bad', deny: { digests: [denied] } },
    { name: 'look-only', mode: 'audit', signature: {} },
  ];
  const start = (more: Partial<MirrorOptions> = {}) =>
    startMirror(t, { upstreams: { 'ghcr.io': upstream.url }, ...{ directory, clock, policies }, ...more });
  return { directory, denied, upstream, clock, policies, start };
}

async function run(mirror: TestMirror, ...args: string[]) {
  return command(mirror.directory, ...args, '--server', mirror.operationsUrl);
}

async function command(cwd: string, ...args: string[]) {
  const output = { stdout: '', stderr: '' };
  const exitCode = await runCommandLine(args, {
    ...{ version: 'test', environment: {}, cwd, clock: new FakeClock() },
    stdout: { write: (text) => void (output.stdout += text) },
    stderr: { write: (text) => void (output.stderr += text) },
    serve: async () => undefined,
  });
  return { exitCode, ...output };
}

async function status(mirror: TestMirror, path: string): Promise<number> {
  return (await mirror.get(path)).status;
}

test('explain says for each policy whether it lets an image in, and why not', async (t) => {
  const { upstream, start } = await setUp(t);
  const { top } = upstream.addImage('org/app', '1');
  const mirror = await start();
  const unknown = await run(mirror, 'explain', IMAGE);
  assert.equal(unknown.exitCode, 1);
  assert.match(unknown.stderr, /is not in the cache: pull it, or fetch it with millpond warm/);
  assert.equal(await status(mirror, `${APP}/manifests/1`), 403);
  const { stdout } = await run(mirror, 'explain', IMAGE);
  assert.match(stdout, new RegExp(`^${IMAGE} \\(${top.digest}\\) is refused by signed-by-us\n`));
  assert.match(stdout, /signed-by-us +\t?enforce.*no.*it has no signature; sign sha256:/);
  assert.match(stdout, /known-bad.*enforce.*yes/);
  assert.match(stdout, /look-only.*audit.*no/);
  const json = JSON.parse((await run(mirror, 'explain', IMAGE, '--json')).stdout) as Record<string, unknown>;
  assert.equal(json['digest'], top.digest);
});

test('an image that is let in by hand comes in until the end of its day, and is listed and logged', async (t) => {
  const { upstream, clock, start } = await setUp(t);
  const image = upstream.addImage('org/app', '1', { platforms: ['amd64', 'arm64'] });
  const other = upstream.addImage('org/app', '2', { seed: 'two' });
  const mirror = await start();
  assert.equal(await status(mirror, `${APP}/manifests/1`), 403);
  const named = `ghcr.io/org/app@${image.top.digest}`;
  const how = ['--policy', 'signed-by-us', '--reason', 'a hotfix', '--until', '2026-01-05'];
  const admitted = await run(mirror, 'policy', 'admit', named, ...how);
  assert.equal(admitted.stderr, '');
  assert.match(admitted.stdout, /is let in past signed-by-us until 2026-01-06T00:00:00\.000Z/);
  await pullImage(mirror, 'org/app', '1');
  assert.equal(await status(mirror, `${APP}/manifests/2`), 403);
  assert.equal(await status(mirror, `${APP}/manifests/${other.top.digest}`), 403);
  const { stdout } = await run(mirror, 'policy', 'admissions');
  assert.match(stdout, new RegExp(`${named}.*signed-by-us.*operator.*a hotfix`));
  assert.ok(mirror.log.some(({ msg, reason }) => msg === 'let in by hand' && reason === 'a hotfix'));
  await mirror.app.close();
  await appendFile(join(mirror.directory, 'data/admissions.jsonl'), '{"torn');
  const again = await start();
  await pullImage(again, 'org/app', '1');
  clock.advance(Date.parse('2026-01-06T00:00:00Z') - clock.now());
  assert.equal(await status(again, `${APP}/manifests/1`), 403);
  assert.equal((await run(again, 'policy', 'admissions', '--json')).stdout, '{\n  "admissions": []\n}\n');
});

test('what is let in by hand comes in at once for those whom a policy is about', async (t) => {
  const { directory, upstream, policies, start } = await setUp(t);
  const { top } = upstream.addImage('org/app', '1');
  const passwords = { anna: 'her password', ops: 'the password of ops' };
  const [signed] = policies;
  const mirror = await start({
    access: {
      users: { htpasswd: await writeHtpasswd(directory, passwords) },
      rules: [{ who: 'user:*', pull: 'ghcr.io/*', operate: true, observe: true }],
    },
    policies: [
      { ...signed, who: ['user:anna'] },
      { name: 'for-bert', who: ['user:bert'], deny: { repositories: ['ghcr.io/none/*'] } },
    ],
    operations: { listen: '127.0.0.1:0' },
    operator: { authorization: basic('ops', passwords.ops) },
  });
  const anna = { authorization: basic('anna', passwords.anna) };
  assert.equal((await mirror.get(`${APP}/manifests/1`, anna)).status, 403);
  const reply = await request(`${mirror.operationsUrl}/api/policy/admit`, {
    method: 'POST',
    headers: { authorization: basic('ops', passwords.ops) },
    body: JSON.stringify({
      ...{ image: `ghcr.io/org/app@${top.digest}`, policies: ['signed-by-us'] },
      ...{ reason: 'a hotfix', until: '2026-01-06T00:00:00Z' },
    }),
  });
  assert.equal(reply.statusCode, 200, await reply.body.text());
  assert.equal((await mirror.get(`${APP}/manifests/1`, anna)).status, 200);
});

test('who has let in what is shown only to those who may observe and pull it', async (t) => {
  const { directory, upstream, start } = await setUp(t);
  const { top } = upstream.addImage('org/app', '1');
  const users = ['ops', 'observer', 'puller'] as const;
  const passwords = Object.fromEntries(users.map((user) => [user, `the password of ${user}`]));
  const headersOf = (user: string) => ({ authorization: basic(user, passwords[user] ?? '') });
  const mirror = await start({
    access: {
      users: { htpasswd: await writeHtpasswd(directory, passwords) },
      rules: [
        { who: 'user:ops', pull: '*', operate: true, observe: true },
        { who: 'user:observer', pull: 'ghcr.io/other/*', observe: true },
        { who: 'user:puller', pull: '*', observe: 'ghcr.io/other/*' },
      ],
    },
    operations: { listen: '127.0.0.1:0' },
    operator: headersOf('ops'),
  });
  const ask = async (user: string, path: string, options: object = {}) => {
    const reply = await request(`${mirror.operationsUrl}/api/policy/${path}`, {
      headers: headersOf(user),
      ...options,
    });
    assert.equal(reply.statusCode, 200);
    return (await reply.body.json()) as { admissions: unknown[] };
  };
  const image = `ghcr.io/org/app@${top.digest}`;
  const admission = { image, policies: ['signed-by-us'], reason: 'a hotfix', until: '2026-01-06T00:00:00Z' };
  await ask('ops', 'admit', { method: 'POST', body: JSON.stringify(admission) });
  const shown = await Promise.all(
    users.map(async (user) => (await ask(user, 'admissions')).admissions.length),
  );
  assert.deepEqual(shown, [1, 0, 0]);
});

test('a deny list is never lifted by hand, nor is a policy that was not named', async (t) => {
  const { denied, upstream, start } = await setUp(t);
  const { top } = upstream.addImage('org/app', '1');
  await writeFile(denied, top.digest);
  const mirror = await start();
  const named = `ghcr.io/org/app@${top.digest}`;
  const how = ['--reason', 'a hotfix', '--until', '2026-01-05'];
  await run(mirror, 'policy', 'admit', named, '--policy', 'known-bad', ...how);
  await writeFile(denied, '');
  await mirror.app.close();
  const again = await start();
  const unsigned = await again.get(`${APP}/manifests/1`);
  assert.match(unsigned.body.toString(), /signed-by-us does not let this in/);
  await again.app.close();
  await writeFile(denied, top.digest);
  const last = await start();
  await run(last, 'policy', 'admit', named, '--policy', 'signed-by-us', ...how);
  const reply = await last.get(`${APP}/manifests/1`);
  assert.match(reply.body.toString(), /known-bad does not let this in/);
});

test('what cannot be let in by hand is refused with what to do', async (t) => {
  const { upstream, start } = await setUp(t);
  const { top } = upstream.addImage('org/app', '1');
  const mirror = await start();
  const named = `ghcr.io/org/app@${top.digest}`;
  const rest = ['--reason', 'a hotfix', '--until', '2026-01-05'];
  for (const [args, message] of [
    [[IMAGE, '--policy', 'signed-by-us', ...rest], /is a tag, which may move: name the image by its digest/],
    [
      [named, '--policy', 'nobody', ...rest],
      /there is no policy nobody: choose from signed-by-us, known-bad, look-only/,
    ],
    [
      [named, '--policy', 'signed-by-us', '--reason', 'x', '--until', '2026-02-30'],
      /It must be a day such as 2027-12-31/,
    ],
    [
      [named, '--policy', 'signed-by-us', '--reason', 'x', '--until', '2025-12-30'],
      /2025-12-31T00:00:00\.000Z has passed: name a day that is still to come/,
    ],
    [
      [named, '--policy', 'signed-by-us', '--reason', 'x'.repeat(501), '--until', '2026-01-05'],
      /say why in 500 characters/,
    ],
  ] as const) {
    const { exitCode, stderr } = await run(mirror, 'policy', 'admit', ...args);
    assert.notEqual(exitCode, 0);
    assert.match(stderr, message);
  }
  await mirror.app.close();
  const plain = await start({ policies: [] });
  const { stderr } = await run(plain, 'policy', 'admit', named, '--policy', 'a', ...rest);
  assert.match(stderr, /there are no policies: everything comes in/);
});

test('policy test says what would become of images, without a running mirror', async (t) => {
  const { directory, denied, upstream, policies } = await setUp(t);
  upstream.addImage('org/app', '1');
  const { top } = upstream.addImage('org/bad', '1', { seed: 'bad' });
  await writeFile(denied, top.digest);
  const config = {
    defaultUpstream: 'ghcr.io',
    upstreams: { 'ghcr.io': { url: upstream.url } },
    policies: policies.filter(({ name }) => name === 'known-bad'),
  };
  await writeFile(join(directory, 'try.yaml'), JSON.stringify(config));
  const images = [IMAGE, 'ghcr.io/org/bad:1', 'ghcr.io/org/none:1'];
  const { exitCode, stdout, stderr } = await command(
    directory,
    'policy',
    'test',
    ...images,
    '-c',
    'try.yaml',
  );
  assert.equal(exitCode, 1);
  assert.match(stdout, /^let in  ghcr\.io\/org\/app:1\n/);
  assert.match(stdout, /refused  ghcr\.io\/org\/bad:1: the policy known-bad does not let this in/);
  assert.match(stdout, /unknown  ghcr\.io\/org\/none:1: /);
  assert.match(stderr, /2 images do not come in/);
});
