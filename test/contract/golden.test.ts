import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { chmod, mkdir, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { stringify } from 'yaml';
import { cleanUp } from '../helpers/cleanup.ts';
import { assertGolden } from '../helpers/golden.ts';
import { MAIN } from '../helpers/real-mirror.ts';
import { startProcess, until } from '../helpers/real-processes.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { tempDir } from '../helpers/temp-dir.ts';

/** A user who owns nothing here. */
const NOBODY = 65_534;
const IS_ROOT = process.getuid?.() === 0;

interface Outcome {
  exitCode: number;
  stdout: string;
  stderr: string;
}

/** Runs the real program in `folder`. With `asNobody` and as root, it runs as a user who owns nothing. */
function millpond(folder: string, args: string[], asNobody = false): Promise<Outcome> {
  const user = asNobody && IS_ROOT ? { uid: NOBODY, gid: NOBODY } : {};
  return new Promise((resolve) => {
    // Coverage goes to a folder that another user may not write into, and Node would say so between the lines.
    const env = asNobody ? { NODE_V8_COVERAGE: '' } : {};
    const options = { cwd: folder, env, ...user };
    execFile(process.execPath, [MAIN, ...args], options, (error, stdout, stderr) => {
      resolve({ exitCode: error === null ? 0 : Number(error.code), stdout, stderr });
    });
  });
}

/** @returns the folder that it is in, as `millpond.yaml` */
async function configured(t: TestContext, config: Record<string, unknown>): Promise<string> {
  const folder = await tempDir(t);
  const all = { server: { listen: '127.0.0.1:0' }, operations: { listen: '127.0.0.1:0' }, ...config };
  await writeFile(join(folder, 'millpond.yaml'), stringify(all));
  return folder;
}

test('doctor tells each step of the way to each upstream', async (t) => {
  const hub = await ScriptedUpstream.start(t, { auth: {} });
  hub.addImage('ratelimitpreview/test', 'latest');
  hub.script({ kind: 'manifest' }, ({ headers }) => {
    Object.assign(headers, { 'ratelimit-limit': '100;w=21600', 'ratelimit-remaining': '7;w=21600' });
  });
  const folder = await configured(t, {
    upstreams: {
      'docker.io': { url: hub.url },
      'ghcr.io': { url: 'http://127.0.0.1:1' },
      'registry.corp.example': { proxy: 'http://127.0.0.1:1' },
    },
    cache: { directory: 'data', maxSize: '1MiB', keepFree: '0B' },
  });
  const { exitCode, stdout, stderr } = await millpond(folder, ['doctor', '-c', 'millpond.yaml']);
  await assertGolden('doctor', stdout + stderr, folder);
  assert.equal(exitCode, 1);
});

test('the first start tells what runs, on what, and where it listens', async (t) => {
  const cache = await tempDir(t);
  const folder = await configured(t, {
    log: { format: 'pretty' },
    cache: { directory: join(cache, 'data') },
    upstreams: { 'docker.io': {}, 'ghcr.io': {} },
  });
  const config = join(folder, 'millpond.yaml');
  const server = startProcess(t, process.execPath, [MAIN, 'serve', '--config', config]);
  const listening = () => server.lines.filter((line) => line.includes('listening'));
  await until('the mirror', server, async () => listening().length === 2);
  await server.stop();
  await assertGolden('first-start', `${server.lines.join('\n')}\n`.replace(cache, 'CACHE'), folder);
});

test('a port in use is told in words, with the key to change', async (t) => {
  const other = createServer();
  await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve));
  cleanUp(t, () => other.close());
  const { port } = other.address() as AddressInfo;
  const folder = await configured(t, {
    sealed: true,
    log: { level: 'error' },
    server: { listen: `127.0.0.1:${port}` },
  });
  const { exitCode, stdout, stderr } = await millpond(folder, ['serve', '-c', 'millpond.yaml']);
  await assertGolden('port-in-use', stdout + stderr, folder);
  assert.equal(exitCode, 1);
});

test('a cache directory of another user is told in words, by the server and by doctor', async (t) => {
  const folder = await configured(t, { sealed: true, cache: { directory: 'data' } });
  await chmod(folder, 0o755);
  // As root, the folder of root is that of another user. Else nobody can write into it, not even its owner.
  await mkdir(join(folder, 'data'), { mode: IS_ROOT ? 0o755 : 0o555 });
  const able = await millpond(folder, ['--version'], true);
  if (able.exitCode !== 0) return t.skip('another user cannot read this checkout');
  const outcomes: Outcome[] = [];
  for (const command of ['serve', 'doctor'])
    outcomes.push(await millpond(folder, [command, '-c', 'millpond.yaml'], true));
  const text = outcomes.map(({ stdout, stderr }) => stdout + stderr).join('');
  await assertGolden('directory-of-others', text, folder);
  assert.deepEqual(
    outcomes.map(({ exitCode }) => exitCode),
    [1, 1],
  );
});

test('a wrong configuration is told with every mistake and its place', async (t) => {
  const folder = await tempDir(t);
  const lines = [
    'server: { listn: 127.0.0.1:5000 }',
    'cache: { maxSize: lots }',
    'sealed: maybe',
    'upstreams:',
    '  ghcr.io: { credentials: { username: ops, password: { file: ./secret } } }',
  ];
  await writeFile(join(folder, 'millpond.yaml'), `${lines.join('\n')}\n`);
  const { exitCode, stdout, stderr } = await millpond(folder, ['serve', '-c', 'millpond.yaml']);
  await assertGolden('wrong-configuration', stdout + stderr, folder);
  assert.equal(exitCode, 2);
});
