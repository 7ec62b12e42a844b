import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { runCommandLine } from '../../src/cli/program.ts';
import { systemClock } from '../../src/clock.ts';
import { digestHex, digestOf } from '../../src/oci/digest.ts';
import { cleanUp } from '../helpers/cleanup.ts';
import { runMillpond } from '../helpers/run-millpond.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { startMirror } from '../helpers/start-mirror.ts';

async function setUp(t: TestContext) {
  const upstream = await ScriptedUpstream.start(t);
  const image = upstream.addImage('library/alpine', '3.20', { layers: [5_000_000] });
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  await mirror.get('/v2/alpine/manifests/3.20');
  for (const blob of image.blobs) await mirror.get(`/v2/alpine/blobs/${digestOf(blob)}`);
  await mirror.idle();
  const millpond = (...args: string[]) => runMillpond(mirror, args);
  return { upstream, image, mirror, millpond };
}

test('millpond status shows the store, the hit rate and each upstream; --json prints the answer of the API', async (t) => {
  const { millpond, mirror } = await setUp(t);
  const { exitCode, stdout, stderr } = await millpond('status');
  assert.deepEqual([exitCode, stderr], [0, '']);
  const lines = stdout.split('\n');
  assert.match(lines[0] ?? '', /^Millpond test, up for \d+ days$/);
  assert.equal(lines[1], `config     ${join(mirror.directory, 'millpond.yaml')}`);
  assert.match(lines[2] ?? '', /^directory {2}\/.*\/data, [\d.]+ \wi?B free on its file system$/);
  assert.deepEqual(lines.slice(3), [
    'store      4.78 MiB of 50 GiB (0 %), 3 objects, 0 evicted',
    'requests   3 since the start, hit rate 0 %, byte hit rate 0 %',
    '',
    'UPSTREAM\tSTATE\tREQUESTS\tRATE LIMIT\tWINDOW ENDS',
    'docker.io\tup\t3\t-\t-',
    '',
  ]);
  const json = JSON.parse((await millpond('status', '--json')).stdout) as { store: { objects: number } };
  assert.equal(json.store.objects, 3);
});

test('millpond list prints a line per image; --json prints every field', async (t) => {
  const { millpond, image, mirror } = await setUp(t);
  const usedAt = new Date(mirror.clock.now()).toISOString();
  const size = image.top.bytes.length + image.blobs.reduce((sum, blob) => sum + blob.length, 0);
  assert.deepEqual(await millpond('list', '*alpine*'), {
    exitCode: 0,
    stdout: `IMAGE\tDIGEST\tPLATFORMS\tSIZE\tLAST USED\tSTATE
docker.io/library/alpine:3.20\t${image.top.digest}\tlinux/amd64\t${size}\t${usedAt}\tcomplete
`,
    stderr: '',
  });
  const [json] = JSON.parse((await millpond('list', '--json')).stdout) as { digest: string }[];
  assert.equal(json?.digest, image.top.digest);
  assert.equal((await millpond('list', 'quay.io/*', '--json')).stdout, '[]\n');
});

test('millpond remove takes a pattern only with --yes, and says before what it would remove', async (t) => {
  const { millpond, upstream, mirror } = await setUp(t);
  upstream.addImage('library/busybox', '1', { layers: [1000] });
  await mirror.get('/v2/library/busybox/manifests/1');
  assert.deepEqual(await millpond('remove', 'docker.io/*'), {
    exitCode: 1,
    stdout: '',
    stderr:
      "millpond: docker.io/* would remove 2 images: look with millpond list 'docker.io/*', then add --yes; nothing was removed\n",
  });
  const listed = async () => (await millpond('list')).stdout.trimEnd().split('\n').length - 1;
  assert.equal(await listed(), 2);
  assert.equal((await millpond('remove', '*/alpine:*', '--yes')).exitCode, 0);
  assert.equal(await listed(), 1);
  assert.equal((await millpond('remove', 'quay.io/*', '--yes')).exitCode, 1);
});

test('millpond list goes on until the last page', async (t) => {
  const contents = { platforms: [], state: 'complete', size: 1, stored: 1, missing: { blobs: 0, of: 0 } };
  const image = (name: string) => ({ name, digest: 'sha256:00', ...contents, usedAt: '' });
  const pages: Record<string, unknown> = {
    '/api/images?pattern=a*': { images: [image('a')], next: 'b c' },
    '/api/images?pattern=a*&cursor=b+c': { images: [image('b')], next: 'd' },
    '/api/images?pattern=a*&cursor=d': { images: [image('c')] },
  };
  const server = createServer(({ url = '' }, response) => response.end(JSON.stringify(pages[url])));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  cleanUp(t, () => server.close());
  const { port } = server.address() as AddressInfo;
  const { stdout } = await runMillpond({ operationsUrl: `http://127.0.0.1:${port}` }, ['list', 'a*']);
  assert.deepEqual(
    stdout.split('\n').map((line) => line.slice(0, 1)),
    ['I', 'a', 'b', 'c', ''],
  );
});

test('millpond remove frees the bytes, names each image, and ends with 1 if one is missing', async (t) => {
  const { millpond, mirror } = await setUp(t);
  const { exitCode, stdout, stderr } = await millpond('remove', 'alpine:9', 'alpine:3.20');
  assert.equal(exitCode, 1);
  assert.equal(stdout, 'alpine:3.20: removed, 3 objects and 4.78 MiB freed\n');
  assert.equal(
    stderr,
    'alpine:9: docker.io/library/alpine has no 9 in this mirror\nmillpond: not removed: alpine:9\n',
  );
  assert.equal(await mirror.metric('millpond_store_objects'), 0);
});

test('millpond scrub reports what it found; without a terminal there is no bar', async (t) => {
  const { millpond, image, mirror } = await setUp(t);
  assert.deepEqual(await millpond('scrub'), {
    exitCode: 0,
    stdout: '3 objects checked (4.77 MiB): 0 damaged, 0 missing from the index\n',
    stderr: '',
  });
  const [, layer = Buffer.alloc(0)] = image.blobs;
  const hex = digestHex(digestOf(layer));
  await rm(join(mirror.directory, 'data/blobs/sha256', hex.slice(0, 2), hex));
  const { stdout } = await millpond('scrub');
  assert.match(stdout, new RegExp(`^sha256:${hex}: damaged and removed\\n`));
  assert.match(stdout, /: 1 damaged, /);
});

test('without a mirror a command ends with 1 and says what to do', async (t) => {
  const { mirror, millpond } = await setUp(t);
  await mirror.app.close();
  const { exitCode, stderr } = await millpond('status');
  assert.equal(exitCode, 1);
  assert.match(
    stderr,
    /^millpond: no answer from http:\/\/127\.0\.0\.1:\d+ \(connect ECONNREFUSED [\d.:]+\): is Millpond running\? Give its operations listener with --server\n$/,
  );
});

test('the error for another server differs from the error for no server', async (t) => {
  const { mirror } = await setUp(t);
  let stderr = '';
  const exitCode = await runCommandLine(['list', '--server', mirror.url], {
    version: '1.2.3',
    environment: {},
    cwd: '/',
    clock: systemClock,
    stdout: { write: () => undefined },
    stderr: { write: (text) => void (stderr += text) },
    serve: async () => undefined,
  });
  assert.equal(exitCode, 1);
  assert.match(
    stderr,
    / answered with status 404, which is not an answer of Millpond's operations listener: check --server\n$/,
  );
});
