import assert from 'node:assert/strict';
import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises';
import { delimiter, join, resolve } from 'node:path';
import { test } from 'node:test';
import { parse, stringify } from 'yaml';
import { cleanUp } from '../helpers/cleanup.ts';
import { MAIN, startRealMirror } from '../helpers/real-mirror.ts';
import { freePort, run } from '../helpers/real-processes.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { tempDir } from '../helpers/temp-dir.ts';

const readme = await readFile(resolve(import.meta.dirname, '../../README.md'), 'utf8');

/** The fenced blocks of one section, in order. */
function blocksOf(heading: string): { kind: string; text: string }[] {
  const start = readme.indexOf(`\n${heading}\n`);
  assert.ok(start > 0, heading);
  const section = readme.slice(start + 1, readme.indexOf('\n## ', start + 2));
  return [...section.matchAll(/^```(\w+)\n(.*?)^```$/gms)].map(([, kind = '', text = '']) => ({
    kind,
    text,
  }));
}

/** A folder with a `millpond` that uses the mirror of the test in place of the default one. */
async function programFolder(directory: string, operationsPort: number): Promise<string> {
  const folder = join(directory, 'bin');
  await mkdir(folder);
  const script = `#!/bin/sh
case "$1" in
  serve) exec "${process.execPath}" "${MAIN}" "$@" ;;
  *) exec "${process.execPath}" "${MAIN}" "$@" --server http://127.0.0.1:${operationsPort} ;;
esac
`;
  await writeFile(join(folder, 'millpond'), script);
  await chmod(join(folder, 'millpond'), 0o755);
  return folder;
}

/** Runs commands of the README in a folder. What they start in the background ends with them. */
async function runBlock(text: string, folder: string, bin: string, ports: Record<string, number>) {
  const here = Object.entries(ports).reduce(
    (all, [from, to]) => all.replaceAll(`:${from}/`, `:${to}/`),
    text,
  );
  const script = `set -e\ncd "${folder}"\ntrap 'test -z "$!" || kill "$!"; wait' EXIT\n${here}`;
  return run('sh', ['-c', script], { PATH: `${bin}${delimiter}${process.env['PATH'] ?? ''}` });
}

test('the commands of “An air-gapped mirror” lead from an online mirror to a sealed one', async (t) => {
  const [list, gather, config, serve, gatherNext, importNext, ...more] = blocksOf('## An air-gapped mirror');
  assert.deepEqual(
    [list, gather, config, serve, gatherNext, importNext].map((block) => block?.kind),
    ['text', 'sh', 'yaml', 'sh', 'sh', 'sh'],
  );
  assert.ok(list && gather && config && serve && gatherNext && importNext && more.length === 0);

  const upstream = await ScriptedUpstream.start(t);
  const platforms = ['amd64', 'arm64'];
  upstream.addImage('library/alpine', '3.20', { platforms, layers: [200_000], seed: 'alpine' });
  const app = upstream.addImage('org/app', '1.4', { platforms, layers: [100_000], seed: 'app' });
  const [online, offline] = [await tempDir(t), await tempDir(t)];
  const upstreams = { 'docker.io': { url: upstream.url }, 'ghcr.io': { url: upstream.url } };
  const mirror = await startRealMirror(t, online, { upstreams });
  const onlineBin = await programFolder(online, mirror.operationsPort);
  await writeFile(join(online, 'images.txt'), list.text);
  await runBlock(gather.text, online, onlineBin, {});
  await run('cp', [join(online, 'images-1.tar'), join(online, 'images-1.tar.sha256'), offline]);

  const [port, operationsPort] = [await freePort(), await freePort()];
  const sealedConfig = parse(config.text) as { sealed: boolean; cache: object };
  assert.equal(sealedConfig.sealed, true);
  const sealed = {
    ...sealedConfig,
    server: { listen: `127.0.0.1:${port}` },
    operations: { listen: `127.0.0.1:${operationsPort}` },
    cache: { ...sealedConfig.cache, directory: join(offline, 'data') },
  };
  await writeFile(join(offline, 'sealed.yaml'), stringify(sealed));
  const bin = await programFolder(offline, operationsPort);
  const ports = { 5000: port, 5001: operationsPort };
  await upstream.close();
  const output = await runBlock(serve.text, offline, bin, ports);
  assert.match(output, /images-1\.tar: OK/);
  assert.match(output, /ghcr\.io\/org\/app:1\.4: imported/);
  assert.match(output, /^docker\.io\/library\/alpine:3\.20\t.*\tlinux\/amd64\t/m);
  assert.deepEqual(await readFile(join(offline, 'manifest.json')), app.top.bytes);

  // Goes on to the next release, with the same mirrors.
  const next = await ScriptedUpstream.start(t);
  next.addImage('library/alpine', '3.20', { platforms, layers: [200_000], seed: 'alpine' });
  const newer = next.addImage('org/app', '1.4', { platforms, layers: [100_000, 300], seed: 'app' });
  await mirror.stop();
  const freshness = { tagTtl: '5m', immutableTags: [] };
  const again = await startRealMirror(t, online, {
    upstreams: Object.fromEntries(Object.keys(upstreams).map((name) => [name, { url: next.url, freshness }])),
    operations: { listen: `127.0.0.1:${mirror.operationsPort}` },
  });
  cleanUp(t, () => again.stop());
  await runBlock(gatherNext.text, online, onlineBin, {});
  const { length } = await readFile(join(online, 'images-2.tar'));
  assert.ok(length < 20_000, `${length} bytes: the increment has no layer of the first file`);
  await run('cp', [join(online, 'images-2.tar'), offline]);
  const [start = '', wait = ''] = serve.text.split('\n');
  await runBlock(
    `${start}\n${wait}\n${importNext.text}curl -sf -o next.json http://127.0.0.1:5000/v2/ghcr.io/org/app/manifests/1.4\n`,
    offline,
    bin,
    ports,
  );
  assert.deepEqual(await readFile(join(offline, 'next.json')), newer.top.bytes);
});
