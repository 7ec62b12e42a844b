/** Pulls of real clients with a login, while tokens expire and the mirror is started again. */
import assert from 'node:assert/strict';
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { basic, createRobotToken, writeHtpasswd } from '../helpers/access-files.ts';
import { missingEngines } from '../helpers/engines.ts';
import { FakeClock } from '../helpers/fake-clock.ts';
import { startDockerLogin } from '../helpers/login-clients.ts';
import { containerd2, daemonDir, startContainerdProcess } from '../helpers/real-clients.ts';
import { startRealMirror } from '../helpers/real-mirror.ts';
import { freePort, missingPrograms, run } from '../helpers/real-processes.ts';
import { makeImage, pushImage, RealRegistry } from '../helpers/real-registry.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { startMirror } from '../helpers/start-mirror.ts';
import { tempDir } from '../helpers/temp-dir.ts';

const MINUTE = 60_000;
const PASSWORD = 'a password of anna';

/** Fetches an image with containerd 2, without unpacking it. @param hosts lines of hosts.toml */
async function prepareContainerd(t: Parameters<typeof daemonDir>[0], port: string, hosts: string[] = []) {
  const programs = containerd2();
  const directory = await daemonDir(t);
  const { socket } = await startContainerdProcess(t, directory, programs);
  const folder = join(directory, 'certs.d', 'docker.io');
  await mkdir(folder, { recursive: true });
  const host = `http://127.0.0.1:${port}`;
  const lines = [`server = "${host}"`, `[host."${host}"]`, '  capabilities = ["pull", "resolve"]', ...hosts];
  await writeFile(join(folder, 'hosts.toml'), lines.join('\n'));
  return (image: string, ...options: string[]) =>
    run(programs.ctr, [
      '-a',
      socket,
      'content',
      'fetch',
      '--hosts-dir',
      join(directory, 'certs.d'),
      ...options,
      image,
    ]);
}

test('containerd 2: a token that expires in the middle of a pull is renewed, and the pull goes on', {
  skip: missingEngines('containerd'),
}, async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const image = upstream.addImage('library/team', '1', { layers: [5000, 6000, 7000, 8000, 9000, 10_000] });
  const clock = new FakeClock();
  // The manifest is on its way: every blob comes after it, with a token that is too old.
  upstream.script({ kind: 'manifest', method: 'GET' }, () => clock.advance(61 * MINUTE), { times: 1 });
  const directory = await tempDir(t);
  const mirror = await startMirror(t, {
    ...{ clock, directory, upstreams: { 'docker.io': upstream.url } },
    access: {
      users: { htpasswd: await writeHtpasswd(directory, { anna: PASSWORD }) },
      rules: [{ who: 'user:anna', pull: '*' }],
    },
  });
  const fetchImage = await prepareContainerd(t, mirror.app.registryAddress.split(':')[1] ?? '');
  await fetchImage('docker.io/library/team:1', '--user', `anna:${PASSWORD}`);
  assert.equal(upstream.count('blob', 'GET'), image.blobs.length);
  const renewed = mirror.log.filter(({ path, status }) => path === '/token' && status === 200).length;
  assert.ok(renewed >= 2, `${renewed} tokens were given out`);
  const refused = mirror.log.filter(({ status, kind }) => status === 401 && kind === 'blob');
  assert.ok(
    refused.length >= 1 ||
      mirror.log.some(({ status, path }) => status === 401 && String(path).includes('/blobs/')),
  );
});

test('containerd 2: the header in hosts.toml lets a node in, as the documents say', {
  skip: missingEngines('containerd'),
}, async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  upstream.addImage('library/team', '1', { layers: [5000] });
  const clock = new FakeClock();
  const directory = await tempDir(t);
  const robot = await createRobotToken(directory, 'nodes', clock);
  const mirror = await startMirror(t, {
    ...{ clock, directory, upstreams: { 'docker.io': upstream.url } },
    access: { tokens: robot.path, rules: [{ who: 'token:nodes', pull: '*' }] },
  });
  const port = mirror.app.registryAddress.split(':')[1] ?? '';
  const header = (secret: string) => [
    `  [host."http://127.0.0.1:${port}".header]`,
    `    Authorization = ["Bearer ${secret}"]`,
  ];
  await (await prepareContainerd(t, port, header(robot.secret)))('docker.io/library/team:1');
  const wrong = await prepareContainerd(t, port, header(`mpt_${'A'.repeat(43)}`));
  await assert.rejects(wrong('docker.io/library/team:1'), /401|not known here|unauthorized/i);
});

test('a token from before a restart pulls after it, and dockerd ends a pull of whose blobs the first had come before it', {
  skip: missingPrograms('dockerd', 'docker-registry', 'busybox', 'skopeo'),
}, async (t) => {
  const directory = await tempDir(t);
  const registry = await RealRegistry.start(t);
  await pushImage(await makeImage(directory), registry, 'library/team:1');
  const port = await freePort();
  const htpasswd = await writeHtpasswd(directory, { anna: PASSWORD });
  const start = async () =>
    startRealMirror(t, directory, {
      server: { listen: `127.0.0.1:${port}`, drainTimeout: '1ms' },
      upstreams: { 'docker.io': { url: registry.url } },
      access: {
        users: { htpasswd },
        rules: [{ who: 'user:anna', pull: '*' }],
      },
    });
  const before = await start();
  const client = await startDockerLogin(t, { name: `127.0.0.1:${port}` });
  await client.login({ user: 'anna', password: PASSWORD });
  const granted = await fetch(`http://127.0.0.1:${port}/token`, {
    headers: { authorization: basic('anna', PASSWORD) },
  });
  const { token } = (await granted.json()) as { token: string };
  const pulling = client.pull('docker.io/library/team');
  while (!before.process.lines.some((line) => line.includes('"kind":"blob"')))
    await new Promise((resolve) => setImmediate(resolve));
  await before.stop();
  await start();
  await pulling;
  const manifest = `http://127.0.0.1:${port}/v2/docker.io/library/team/manifests/1`;
  const reply = await fetch(manifest, { headers: { authorization: `Bearer ${token}` } });
  assert.equal(reply.status, 200);
  assert.ok((await readdir(join(directory, 'data'))).includes('signing-key.pem'));
});
