import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { type TestContext, test } from 'node:test';
import { loadConfig } from '../../src/config/load.ts';
import { tempDir } from '../helpers/temp-dir.ts';

const ROOT = resolve(import.meta.dirname, '../..');
const dockerfile = readFileSync(join(ROOT, 'Dockerfile'), 'utf8');
const packageJson = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
  scripts: { start: string; millpond: string };
  bin: { millpond: string };
  devDependencies: { node: string };
};

/** The configuration in the image. */
async function imageConfig(t: TestContext) {
  const text = /COPY <<EOF (\S+)\n([\s\S]*?)EOF\n/.exec(dockerfile);
  assert.ok(text);
  const folder = await tempDir(t);
  const file = join(folder, 'config.yaml');
  await writeFile(file, text[2] ?? '');
  return { path: text[1], config: await loadConfig({ file, cwd: folder }) };
}

test('the image listens on every interface, at the ports that it exposes', async (t) => {
  const { config } = await imageConfig(t);
  assert.deepEqual(config.server.listen, { host: '0.0.0.0', port: 5000 });
  assert.deepEqual(config.operations.listen, { host: '0.0.0.0', port: 5001 });
  assert.match(dockerfile, /^EXPOSE 5000 5001$/m);
});

test('the image reads its own configuration and keeps its data in its volume', async (t) => {
  const { path, config } = await imageConfig(t);
  assert.match(dockerfile, new RegExp(`^ENV MILLPOND_CONFIG=${path}$`, 'm'));
  assert.match(dockerfile, new RegExp(`^VOLUME ${config.cache.directory}$`, 'm'));
});

test('the image runs as a user without privileges, which owns the volume', () => {
  const user = /^USER (\d+):(\d+)$/m.exec(dockerfile);
  assert.ok(user && Number(user[1]) > 0);
  assert.match(dockerfile, new RegExp(`chown ${user[1]}:${user[2]} /data`));
});

test('the health check of the image asks the operations side', () => {
  assert.match(dockerfile, /^HEALTHCHECK .*\n.*http:\/\/127\.0\.0\.1:5001\/healthz/m);
});

test('the image starts what the package builds, on the Node that it is developed with', () => {
  assert.match(dockerfile, new RegExp(`^ENTRYPOINT \\["node", .*"${packageJson.bin.millpond}"\\]$`, 'm'));
  const bases = [...dockerfile.matchAll(/^FROM (\S+)/gm)].map((match) => match[1]);
  const base = `node:${packageJson.devDependencies.node.split('.')[0]}-slim`;
  assert.deepEqual(bases, [base, base]);
});

test('no documented way to start makes the server start twice: each sets the limit that main.ts wants', () => {
  const main = readFileSync(join(ROOT, 'src/main.ts'), 'utf8');
  const [, flag] = /^#!\/usr\/bin\/env -S node (--max-semi-space-size=\d+)\n/.exec(main) ?? [];
  assert.ok(flag !== undefined, main.split('\n')[0]);
  assert.equal(packageJson.scripts.start, `node ${flag} src/main.ts serve`);
  assert.equal(packageJson.scripts.millpond, `node ${flag} src/main.ts`);
  assert.ok(dockerfile.includes(`ENTRYPOINT ["node", "${flag}", `));
});

test('every file that the image is built from exists', () => {
  const copied = [...dockerfile.matchAll(/^COPY (?!--from|<<)(.+) \S+$/gm)].flatMap(
    (match) => match[1]?.split(' ') ?? [],
  );
  assert.ok(copied.length > 3);
  for (const name of copied) assert.ok(existsSync(join(ROOT, name)), name);
});
