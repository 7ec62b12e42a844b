import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { digestOf } from '../../src/oci/digest.ts';
import { cleanUp } from '../helpers/cleanup.ts';
import { ConfigFolder } from '../helpers/config-folder.ts';
import { MAIN, startRealMirror } from '../helpers/real-mirror.ts';
import { until } from '../helpers/real-processes.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { tempDir } from '../helpers/temp-dir.ts';

const folder = await ConfigFolder.create();
await folder.write('good.yaml', 'sealed: true\n');
await folder.write('bad.yaml', 'sealed: maybe\n');

interface Outcome {
  exitCode: number;
  stdout: string;
  stderr: string;
}

/** Runs the real program in the folder, with nothing but `environment` in its environment. */
function millpond(args: string[], environment: Record<string, string> = {}): Promise<Outcome> {
  return new Promise((resolve) => {
    const options = { cwd: folder.path, env: environment };
    execFile(process.execPath, [MAIN, ...args], options, (error, stdout, stderr) => {
      resolve({ exitCode: error === null ? 0 : Number(error.code), stdout, stderr });
    });
  });
}

test('the program takes paths from its working directory and MILLPOND_CONFIG from its environment', async () => {
  assert.deepEqual(await millpond(['config', 'check'], { MILLPOND_CONFIG: 'good.yaml' }), {
    exitCode: 0,
    stdout: 'good.yaml: no problems\n',
    stderr: '',
  });
});

test('the program ends with the exit code of the command, and writes errors to stderr', async () => {
  assert.deepEqual(await millpond(['serve', '--config', 'bad.yaml']), {
    exitCode: 2,
    stdout: '',
    stderr: 'bad.yaml:1:9: sealed: must be true or false, got "maybe"\n',
  });
});

test('a server takes its settings from the environment, before those of its file', async (t) => {
  const variables = { MILLPOND_LOG_ACCESS: 'none', MILLPOND_OPERATIONS_HOSTS: '', MILLPOND_SEALED: 'true' };
  const mirror = await startRealMirror(t, await tempDir(t), { sealed: false }, variables);
  const status = await fetch(`http://127.0.0.1:${mirror.operationsPort}/api/status`);
  assert.equal(((await status.json()) as { sealed: boolean }).sealed, true);
  await mirror.stop();
});

test('a server does not start with a variable that means no key', async () => {
  assert.deepEqual(await millpond(['serve', '--config', 'good.yaml'], { MILLPOND_CACHE_MAXSIZE: '1GiB' }), {
    exitCode: 2,
    stdout: '',
    stderr: 'environment: MILLPOND_CACHE_MAXSIZE: means no key; did you mean MILLPOND_CACHE_MAX_SIZE?\n',
  });
});

test('--version prints the version of the package', async () => {
  const { version } = JSON.parse(await readFile(new URL('../../package.json', import.meta.url), 'utf8'));
  assert.deepEqual(await millpond(['--version']), { exitCode: 0, stdout: `${version}\n`, stderr: '' });
});

test('however it is started, the server limits its young generation, unless its user has set another limit', async (t) => {
  const optionsOf = async (environment: Record<string, string>) => {
    const mirror = await startRealMirror(t, await tempDir(t), {}, environment);
    const line = await readFile(`/proc/${mirror.process.pid}/cmdline`, 'utf8');
    await mirror.stop();
    return line.split('\0').filter((word) => word.startsWith('--max-semi'));
  };
  assert.deepEqual(await optionsOf({}), ['--max-semi-space-size=4']);
  assert.deepEqual(await optionsOf({ NODE_OPTIONS: '--max-semi-space-size=16' }), []);
});

test('whatever its umask is, the server writes nothing into the cache directory that others can read or enter', async (t) => {
  const before = process.umask(0);
  cleanUp(t, () => process.umask(before));
  const upstream = await ScriptedUpstream.start(t);
  const image = upstream.addImage('a/b', '1', { layers: [2_000_000] });
  const directory = await tempDir(t);
  const mirror = await startRealMirror(t, directory, { upstreams: { 'docker.io': { url: upstream.url } } });
  for (const path of ['manifests/1', ...image.blobs.map((blob) => `blobs/${digestOf(blob)}`)])
    assert.ok((await (await fetch(`http://127.0.0.1:${mirror.port}/v2/a/b/${path}`)).bytes()).length > 0);
  await mirror.stop(); // what still comes in would move while it is looked at
  const data = join(directory, 'data');
  const names = ['.', ...(await readdir(data, { recursive: true }))];
  const modes = await Promise.all(
    names.map(async (name) => [name, (await stat(join(data, name))).mode] as const),
  );
  assert.ok(
    names.some((name) => name.startsWith('index/')) && names.some((name) => name.startsWith('blobs/sha256/')),
  );
  assert.deepEqual(
    modes.filter(([, mode]) => (mode & 0o077) !== 0),
    [],
  );
});

test('SIGHUP and `millpond reload` take over a changed file; mistakes are told as FILE:LINE:COL, and the old one goes on', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  upstream.addImage('a/b', '1');
  const directory = await tempDir(t);
  const settings = { watchConfig: false, upstreams: { 'docker.io': { url: upstream.url } } };
  const mirror = await startRealMirror(t, directory, settings);
  const file = join(directory, 'millpond.yaml');
  const written = await readFile(file, 'utf8');
  const server = `http://127.0.0.1:${mirror.operationsPort}`;
  const reload = () => millpond(['reload', '--server', server]);
  const statusOf = async (host: string) => {
    const path = `/v2/${host}/a/b/manifests/1`;
    return (await fetch(`http://127.0.0.1:${mirror.port}${path}`)).status;
  };

  await writeFile(file, written.replace('docker.io:', 'docker.io: {}\n  new.test:'));
  process.kill(mirror.process.pid, 'SIGHUP');
  await until('the reload', mirror.process, async () => (await statusOf('new.test')) === 200);

  await writeFile(file, written);
  const { exitCode, stdout } = await reload();
  assert.equal(exitCode, 0);
  const [first, second] = stdout.split('\n');
  assert.equal(first, `upstreams.docker.io.url: https://registry-1.docker.io → ${upstream.url}`);
  assert.match(second ?? '', /^upstreams\.new\.test: \{.*\} → \(not set\)$/);
  assert.equal(await statusOf('new.test'), 404);

  await writeFile(file, written.replace('docker.io:', 'docker.io: { tagTTL: 5m }\n  bad.test:'));
  const refused = await reload();
  assert.equal(refused.exitCode, 2);
  assert.match(refused.stderr, /^.*millpond\.yaml:\d+:\d+: upstreams\.docker\.io\.tagTTL: /);
  assert.equal(await statusOf('docker.io'), 200);
});
