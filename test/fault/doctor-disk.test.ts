import assert from 'node:assert/strict';
import { mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { runDoctor } from '../helpers/doctor.ts';
import { MAIN, startRealMirror } from '../helpers/real-mirror.ts';
import { missingPrograms, run } from '../helpers/real-processes.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { tempDir } from '../helpers/temp-dir.ts';

/** What the doctor says about a cache directory. */
async function diskLine(t: TestContext, cache: Record<string, unknown>): Promise<string> {
  const { about } = await runDoctor(t, { sealed: true, cache });
  return about('disk').join('\n');
}

test('a cache directory that is there, one that a file is in the way of, and one where no folder can be', async (t) => {
  const folder = await tempDir(t);
  const plenty = { maxSize: '1MiB', keepFree: '0B' };
  assert.match(
    await diskLine(t, { directory: folder, ...plenty }),
    new RegExp(`^ok disk: ${folder} can be written, .* free$`),
  );
  const file = join(folder, 'file');
  await writeFile(file, '');
  const message = `failed disk: ${file} is no folder: choose another cache.directory`;
  assert.equal(await diskLine(t, { directory: file }), message);
  assert.equal(await diskLine(t, { directory: join(file, 'data') }), message);
  assert.equal(
    await diskLine(t, { directory: '/proc/x' }),
    'failed disk: the file system of /proc keeps no files: choose another cache.directory',
  );
});

test('limits that the file system of the cache cannot keep are warned of', async (t) => {
  const directory = await tempDir(t);
  assert.match(
    await diskLine(t, { directory, maxSize: '5000TiB', keepFree: '0B' }),
    /^warning disk: .* free, but cache\.maxSize \(.*\) and cache\.keepFree are more than its file system has \(.*\): choose a smaller/,
  );
  assert.match(
    await diskLine(t, { directory, keepFree: '5000TiB' }),
    /^warning disk: .* free, less than cache\.keepFree \(.*\): free some space/,
  );
});

test('a file system without space left is told', { skip: missingPrograms('unshare') }, async (t) => {
  const folder = await tempDir(t);
  const mount = join(folder, 'full');
  await mkdir(mount);
  const config = join(folder, 'millpond.yaml');
  await writeFile(config, `sealed: true\ncache: { directory: ${mount} }\n`);
  const script = `
    mount -t tmpfs -o size=64k none '${mount}'
    dd if=/dev/zero of='${mount}/file' bs=4k 2>/dev/null
    '${process.execPath}' '${MAIN}' doctor -c '${config}' || true`;
  const output = await run('unshare', ['-m', 'sh', '-c', script]);
  assert.match(
    output,
    new RegExp(`^failed +disk: ${mount} has no space left: free some, or choose another`, 'm'),
  );
});

test('beside a running server, doctor opens and changes nothing of the cache directory', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const directory = await tempDir(t);
  const config = { upstreams: { 'docker.io': { url: upstream.url } } };
  const mirror = await startRealMirror(t, directory, config);
  const data = join(directory, 'data');
  const seen = async () => {
    const names = (await readdir(data, { recursive: true })).toSorted();
    return Promise.all(names.map(async (name) => [name, (await stat(join(data, name))).mtimeMs]));
  };
  const before = await seen();
  const { exitCode, about } = await runDoctor(t, {
    ...config,
    cache: { directory: data, maxSize: '1MiB', keepFree: '0B' },
  });
  assert.match(about('disk').join(), /^ok disk: .* can be written/);
  assert.deepEqual([exitCode, await seen()], [0, before]);
  assert.equal(await readFile(join(data, 'pid'), 'utf8'), String(mirror.process.pid));
  await mirror.stop();
});
