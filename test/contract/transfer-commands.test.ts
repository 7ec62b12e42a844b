import assert from 'node:assert/strict';
import { chmod, readdir, readFile, truncate, writeFile } from 'node:fs/promises';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { digestHex, digestOf } from '../../src/oci/digest.ts';
import { cleanUp } from '../helpers/cleanup.ts';
import { buildImage } from '../helpers/images.ts';
import { type CommandOutcome, runMillpond } from '../helpers/run-millpond.ts';
import { errorReply, ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { startMirror } from '../helpers/start-mirror.ts';
import { tempDir } from '../helpers/temp-dir.ts';
import { archiveOf, pullImage, readArchive } from '../helpers/transfers.ts';

const MIB = 1024 * 1024;

async function setUp(t: TestContext) {
  const upstream = await ScriptedUpstream.start(t);
  const alpine = upstream.addImage('library/alpine', '3.20', {
    platforms: ['amd64', 'arm64'],
    layers: [MIB],
  });
  const upstreams = { 'docker.io': upstream.url };
  const mirror = await startMirror(t, { upstreams });
  const sealed = await startMirror(t, { upstreams, sealed: true });
  const folder = await tempDir(t);
  const online = (...args: string[]) => runMillpond(mirror, args, folder);
  const offline = (...args: string[]) => runMillpond(sealed, args, folder);
  return { upstream, alpine, mirror, sealed, folder, online, offline };
}

test('millpond warm reports what it fetched for each image, also for those in a list file', async (t) => {
  const { online, folder, upstream } = await setUp(t);
  upstream.addImage('org/app', '1', { layers: [500], seed: 'app' });
  await writeFile(join(folder, 'images.txt'), '# all that we run\nalpine:3.20   # the base\n\n');
  const first = await online('warm', '--file', 'images.txt', '--platform', 'linux/amd64', '--no-referrers');
  assert.deepEqual(first, {
    exitCode: 0,
    stdout: 'docker.io/library/alpine:3.20: done, 1 MiB fetched, 0 B already cached\n',
    stderr: '',
  });
  const again = await online('warm', 'alpine:3.20', '--platform', 'linux/amd64', 'org/app:1');
  assert.match(again.stdout, /^docker\.io\/library\/alpine:3\.20: done, 0 B fetched, 1 MiB already cached$/m);
  assert.match(again.stdout, /^docker\.io\/org\/app:1: done, \d+ B fetched, 0 B already cached$/m);
});

test('millpond warm ends with 1 and names each image that failed; --json prints every outcome', async (t) => {
  const { online, alpine } = await setUp(t);
  const { exitCode, stdout, stderr } = await online('warm', '--json', 'none:1', 'alpine:3.20', 'Bad');
  assert.equal(exitCode, 1);
  const outcomes = JSON.parse(stdout) as { image: string; outcome: string; digest?: string }[];
  const byImage = Object.fromEntries(outcomes.map(({ image, outcome }) => [image, outcome]));
  const [none, fine] = ['docker.io/library/none:1', 'docker.io/library/alpine:3.20'];
  assert.deepEqual(byImage, { [none]: 'failed', [fine]: 'done', Bad: 'failed' });
  assert.equal(outcomes.find(({ image }) => image === fine)?.digest, alpine.top.digest);
  assert.match(stderr, new RegExp(`^${none}: failed: docker\\.io: `, 'm'));
  assert.match(
    stderr,
    /^millpond: not complete: (docker\.io\/library\/none:1, Bad|Bad, docker\.io\/library\/none:1)$/m,
  );
});

test('millpond warm without images is wrong usage', async (t) => {
  const { online } = await setUp(t);
  const { exitCode, stderr } = await online('warm');
  assert.deepEqual(
    [exitCode, stderr],
    [2, 'error: no images given: name them, or give --file with a list of names\n'],
  );
});

test('millpond export writes a file that millpond import adds to another mirror', async (t) => {
  const { online, offline, sealed, folder, alpine } = await setUp(t);
  await online('warm', 'alpine:3.20');
  const written = await online('export', '--output', 'images.tar', 'alpine:3.20');
  assert.deepEqual(written, { exitCode: 0, stdout: 'images.tar: 2.01 MiB written\n', stderr: '' });
  assert.deepEqual(await readdir(folder), ['images.tar']);
  assert.deepEqual(await offline('import', 'images.tar'), {
    exitCode: 0,
    stdout: `docker.io/library/alpine:3.20: imported, ${alpine.top.digest}\nimages.tar: 2 MiB stored, 0 B already cached\n`,
    stderr: '',
  });
  await pullImage(sealed, 'library/alpine', '3.20');
});

test('millpond export --since leaves out the content of earlier exports', async (t) => {
  const { online, offline, sealed, folder, upstream } = await setUp(t);
  upstream.addImage('org/app', '1', { layers: [MIB, 10], seed: 'app' });
  upstream.addImage('org/app', '2', { layers: [MIB, 10, 2 * MIB], seed: 'app' });
  const third = upstream.addImage('org/app', '3', { layers: [MIB, 10, 2 * MIB, 30], seed: 'app' });
  await online('warm', 'org/app:1', 'org/app:2', 'org/app:3');
  await online('export', '--output', '1.tar', 'org/app:1');
  await online('export', '--output', '2.tar', '--since', '1.tar', 'org/app:2');
  await online('export', '--output', '3.tar', '--since', '1.tar', '--since', '2.tar', 'org/app:3');
  const { blobs } = await readArchive(await readFile(join(folder, '3.tar')));
  const newest = third.blobs.at(-1) ?? Buffer.alloc(0);
  assert.deepEqual([...blobs.keys()].toSorted(), [third.top.digest, digestOf(newest)].toSorted());
  for (const file of ['1.tar', '2.tar', '3.tar']) assert.equal((await offline('import', file)).exitCode, 0);
  await pullImage(sealed, 'org/app', '3');

  await truncate(join(folder, '1.tar'), 5000);
  const cut = await online('export', '--output', 'x.tar', '--since', '1.tar', 'org/app:2');
  assert.equal(cut.exitCode, 1);
  assert.match(cut.stderr, /1\.tar: the archive ends in the middle: copy it again\n$/);
});

test('an export that fails writes no file, and leaves an earlier one as it was', async (t) => {
  const { online, folder } = await setUp(t);
  await writeFile(join(folder, 'images.tar'), 'the earlier one');
  const refused = await online('export', '--output', 'images.tar', 'alpine:3.20');
  assert.deepEqual(refused, {
    exitCode: 1,
    stdout: '',
    stderr: 'millpond: docker.io/library/alpine:3.20 is not in the cache: fetch it with millpond warm\n',
  });
  await online('warm', 'alpine:3.20');
  const unwritable = await online('export', '-o', 'nowhere/images.tar', 'alpine:3.20');
  assert.equal(unwritable.exitCode, 1);
  assert.match(unwritable.stderr, /nowhere\/images\.tar was not written: ENOENT: no such file or directory/);
  assert.deepEqual(await readdir(folder), ['images.tar']);
  assert.equal(await readFile(join(folder, 'images.tar'), 'utf8'), 'the earlier one');
});

test('an export that the mirror cuts because stored content is damaged leaves an earlier file as it was', async (t) => {
  const { online, folder, alpine, mirror } = await setUp(t);
  await online('warm', 'alpine:3.20');
  const hex = digestHex(digestOf(alpine.blobs[1] ?? Buffer.alloc(0)));
  const path = join(mirror.directory, 'data/blobs/sha256', hex.slice(0, 2), hex);
  await chmod(path, 0o644);
  await writeFile(path, Buffer.alloc(MIB));
  await writeFile(join(folder, 'images.tar'), 'the earlier one');
  const { exitCode, stderr } = await online('export', '-o', 'images.tar', 'alpine:3.20');
  assert.equal(exitCode, 1);
  assert.match(stderr, /images\.tar was not written: the mirror stopped sending it, and its log says why\n$/);
  assert.deepEqual(await readdir(folder), ['images.tar']);
  assert.equal(await readFile(join(folder, 'images.tar'), 'utf8'), 'the earlier one');
});

test('millpond import names each image that it could not import, and ends with 1', async (t) => {
  const { offline, folder } = await setUp(t);
  const images = {
    'elsewhere.test/a:1': buildImage({ seed: 'a' }),
    'docker.io/org/app:1': buildImage({ seed: 'b' }),
  };
  await writeFile(join(folder, 'mixed.tar'), await archiveOf(images));
  const { exitCode, stdout, stderr } = await offline('import', 'mixed.tar');
  assert.equal(exitCode, 1);
  assert.match(stdout, /^docker\.io\/org\/app:1: imported, sha256:\w+$/m);
  assert.match(
    stderr,
    /^elsewhere\.test\/a:1: failed: elsewhere\.test, the registry of .* is not a configured upstream/m,
  );
  assert.match(stderr, /^millpond: not imported: elsewhere\.test\/a:1$/m);
});

test('millpond import --name names an image without a name', async (t) => {
  const { offline, folder, sealed } = await setUp(t);
  await writeFile(join(folder, 'app.tar'), await archiveOf({ latest: buildImage({}) }));
  assert.match(
    (await offline('import', 'app.tar')).stderr,
    /as in --name docker\.io\/library\/alpine:latest$/m,
  );
  const named = await offline('import', 'app.tar', '--name', 'org/app:1');
  assert.match(named.stdout, /^docker\.io\/org\/app:1: imported/);
  await pullImage(sealed, 'org/app', '1');
  const bad = await offline('import', 'app.tar', '--name', 'A');
  assert.equal(bad.stderr, 'millpond: A is not an image name: write it like docker.io/library/alpine:3.20\n');
});

test('millpond import of a file that is not an archive says so while the file is still being sent', async (t) => {
  const { offline, folder, sealed } = await setUp(t);
  await writeFile(join(folder, 'junk.tar'), Buffer.alloc(64 * MIB, 'no tar '));
  const { exitCode, stderr } = await offline('import', 'junk.tar');
  assert.equal(exitCode, 1);
  assert.match(stderr, /^millpond: not a tar archive, or a damaged one/);
  await sealed.app.close();
  assert.match((await offline('import', 'junk.tar')).stderr, /^millpond: no answer from /);
});

test('a file that cannot be read is named, with the reason', async (t) => {
  const { online, folder } = await setUp(t);
  const missing = 'millpond: missing cannot be read: no such file\n';
  for (const args of [
    ['import', 'missing'],
    ['warm', '--file', 'missing'],
    ['export', '-o', 'images.tar', '--since', 'missing', 'alpine:3.20'],
  ]) {
    assert.deepEqual(await online(...args), { exitCode: 1, stdout: '', stderr: missing });
  }
  assert.deepEqual(await readdir(folder), []);
});

test('a mirror that stops while a command runs is an error', async (t) => {
  const { online, mirror, upstream } = await setUp(t);
  upstream.script({ kind: 'blob' }, (reply) => {
    reply.stall = { after: 0, until: new Promise(() => undefined) };
  });
  const warming = online('warm', 'alpine:3.20');
  await upstream.waitFor(({ kind }) => kind === 'blob');
  await mirror.app.close();
  const { exitCode, stderr } = await warming;
  assert.equal(exitCode, 1);
  assert.match(stderr, /^millpond: /);
});

for (const [when, answer, message] of [
  ['before it has answered', '', /^millpond: no answer from /],
  [
    'after it has begun to',
    '{"event":"progress","bytes":0}\n',
    / closed the connection before it was done: see its log, then run the command again\n$/,
  ],
] as const) {
  test(`a mirror that dies during an import, ${when}, is an error`, async (t) => {
    const { exitCode, stderr } = await runAgainst(t, ['import', 'images.tar'], (request, response) => {
      if (answer !== '') response.write(answer);
      request.once('data', () => setImmediate(() => request.socket.destroy()));
    });
    assert.equal(exitCode, 1);
    assert.match(stderr, message);
  });
}

for (const [last, answer, expected] of [
  ['done', '{"event":"done","storedBytes":0,"presentBytes":0}\n', [0, '']],
  ['an error', '{"event":"error","message":"no tar archive"}\n', [1, 'millpond: no tar archive\n']],
] as const) {
  for (const args of [
    ['import', 'images.tar'],
    ['warm', '--json', 'alpine:3.20'],
  ]) {
    test(`millpond ${args[0]} ends at the event ${last}, even if the reply has not ended yet`, async (t) => {
      const { exitCode, stderr } = await runAgainst(t, args, (_request, response) => {
        response.write(answer);
      });
      assert.deepEqual([exitCode, stderr], expected);
    });
  }
}

/** Runs a command against a scripted server, in a folder with an images.tar of 20 MiB. */
async function runAgainst(
  t: TestContext,
  args: readonly string[],
  answer: RequestListener,
): Promise<CommandOutcome> {
  const server = createServer(answer);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  cleanUp(t, () => {
    server.close();
    server.closeAllConnections();
  });
  const folder = await tempDir(t);
  await writeFile(join(folder, 'images.tar'), Buffer.alloc(20 * MIB));
  const { port } = server.address() as AddressInfo;
  return runMillpond({ operationsUrl: `http://127.0.0.1:${port}` }, args, folder);
}

test('the reason of a failure names the upstream that refused', async (t) => {
  const { online, upstream } = await setUp(t);
  upstream.script({ kind: 'manifest' }, (reply) =>
    Object.assign(reply, errorReply(429, 'TOOMANYREQUESTS', { 'retry-after': '100' })),
  );
  const { stderr } = await online('warm', 'alpine:3.20');
  assert.match(stderr, /^docker\.io\/library\/alpine:3\.20: failed: docker\.io: .*429/);
});
