/** Images that an operator has pinned, besides those of the configuration. */
import assert from 'node:assert/strict';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { nodeFileSystem } from '../../src/cache/store/file-system.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { runMillpond } from '../helpers/run-millpond.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { type MirrorOptions, startMirror, type TestMirror } from '../helpers/start-mirror.ts';

const MIB = 1024 * 1024;
const HOST = 'registry.test';

async function setUp(t: TestContext, options: Partial<MirrorOptions> = {}) {
  const upstream = await ScriptedUpstream.start(t);
  const upstreams = { [HOST]: { url: upstream.url } };
  const cache = { maxSize: '10MiB', keepFree: '0B', pin: [`${HOST}/base/*`] };
  const mirror = await startMirror(t, { upstreams, cache, ...options });
  return { upstream, upstreams, cache, mirror };
}

async function pull(
  upstream: ScriptedUpstream,
  mirror: TestMirror,
  repository: string,
  layers = [3 * MIB],
): Promise<void> {
  const { blobs } = upstream.addImage(repository, '1', { layers, seed: repository });
  for (const path of ['manifests/1', ...blobs.map((blob) => `blobs/${digestOf(blob)}`)])
    assert.equal((await mirror.get(`/v2/${repository}/${path}`)).status, 200);
  await mirror.idle();
  mirror.clock.advance(1);
}

async function coldPulls(upstream: ScriptedUpstream, mirror: TestMirror, seed: string): Promise<void> {
  for (let at = 0; at < 4; at += 1) await pull(upstream, mirror, `cold/${seed}${at}`);
}

const images = async ({ operationsUrl }: TestMirror) => {
  const reply = await fetch(`${operationsUrl}/api/images`);
  const json = (await reply.json()) as { images: { repository: string; pinned: boolean }[] };
  return new Map(json.images.map(({ repository, pinned }) => [repository, pinned]));
};

test('what millpond pin names stays whatever comes by, also after a restart without its index, until it is unpinned', async (t) => {
  const { upstream, upstreams, cache, mirror } = await setUp(t);
  await pull(upstream, mirror, 'hot/app');
  const { exitCode, stdout } = await runMillpond(mirror, ['pin', `${HOST}/hot/*`]);
  assert.deepEqual([exitCode, stdout], [0, `${HOST}/hot/*: pinned\n`]);
  await coldPulls(upstream, mirror, 'a');
  assert.deepEqual(
    [(await images(mirror)).get('hot/app'), (await images(mirror)).get('cold/a3')],
    [true, false],
  );

  const { directory, clock } = mirror;
  await mirror.app.close();
  await rm(join(directory, 'data/index'), { recursive: true });
  const second = await startMirror(t, { upstreams, cache, directory, clock });
  await pull(upstream, second, 'hot/app'); // its tag was in the index
  await coldPulls(upstream, second, 'b');
  assert.equal((await images(second)).get('hot/app'), true);

  assert.equal((await runMillpond(second, ['unpin', `${HOST}/hot/*`])).exitCode, 0);
  await coldPulls(upstream, second, 'c');
  assert.equal((await images(second)).has('hot/app'), false);
});

test('millpond pins tells apart what the configuration has pinned, and only there that can be changed', async (t) => {
  const { mirror } = await setUp(t);
  await runMillpond(mirror, ['pin', `${HOST}/b/*`, `${HOST}/a:1`]);
  await runMillpond(mirror, ['pin', `${HOST}/b/*`]); // once more changes nothing
  assert.equal(
    (await runMillpond(mirror, ['pins'])).stdout,
    `PATTERN\tPINNED BY\n${HOST}/base/*\tconfiguration\n${HOST}/b/*\toperator\n${HOST}/a:1\toperator\n`,
  );
  const json = JSON.parse((await runMillpond(mirror, ['pins', '--json'])).stdout) as unknown[];
  assert.deepEqual(json.at(-1), { pattern: `${HOST}/a:1`, source: 'operator' });
  for (const [pattern, why] of [
    [`${HOST}/base/*`, /pinned by the configuration: take it out of cache\.pin/],
    [`${HOST}/none`, /is not pinned: millpond pins lists what is/],
  ] as const) {
    const { exitCode, stderr } = await runMillpond(mirror, ['unpin', pattern]);
    assert.equal(exitCode, 1);
    assert.match(stderr, why);
  }
});

test('pins that would be larger than the cache are refused with the figures, and nothing has changed', async (t) => {
  const { upstream, mirror } = await setUp(t, { cache: { maxSize: '10MiB', keepFree: '0B', pin: [] } });
  for (const name of ['a', 'b', 'c']) await pull(upstream, mirror, name);
  const before = await runMillpond(mirror, ['pins']);
  // A smaller cache than what is stored: what was pulled before it was made smaller.
  const directory = mirror.directory;
  await mirror.app.close();
  const small = await startMirror(t, {
    upstreams: { [HOST]: { url: upstream.url } },
    cache: { maxSize: '7MiB', keepFree: '0B' },
    directory,
    clock: mirror.clock,
  });
  assert.equal((await runMillpond(small, ['pin', `${HOST}/a:1`])).exitCode, 0);
  const { exitCode, stderr } = await runMillpond(small, ['pin', `${HOST}/*`]);
  assert.equal(exitCode, 1);
  assert.match(stderr, /all that is pinned would take 9\d{6} bytes, and cache\.maxSize is 7340032: raise it/);
  assert.equal((await runMillpond(small, ['pins'])).stdout, `${before.stdout}${HOST}/a:1\toperator\n`);
});

test('a pattern that means no image is refused', async (t) => {
  const { mirror } = await setUp(t);
  const { exitCode, stderr } = await runMillpond(mirror, ['pin', 'alpine']);
  assert.equal(exitCode, 1);
  assert.match(stderr, /a pattern of image names with their host/);
});

test('a pin that cannot be written does not hold, and the old file stays', async (t) => {
  let isFull = false;
  const writeFull: typeof nodeFileSystem.writeFile = async (...args) => {
    if (isFull) throw Object.assign(new Error('full'), { code: 'ENOSPC' });
    return nodeFileSystem.writeFile(...args);
  };
  const { mirror } = await setUp(t, { fileSystem: { ...nodeFileSystem, writeFile: writeFull } });
  await runMillpond(mirror, ['pin', `${HOST}/a:1`]);
  const file = join(mirror.directory, 'data/pins.json');
  const before = await readFile(file, 'utf8');
  isFull = true;
  const { exitCode, stderr } = await runMillpond(mirror, ['pin', `${HOST}/b:1`]);
  isFull = false;
  assert.equal(exitCode, 1);
  assert.match(stderr, /ENOSPC/);
  assert.equal(await readFile(file, 'utf8'), before);
  assert.doesNotMatch((await runMillpond(mirror, ['pins'])).stdout, /b:1/);
});

test('a file of pins that cannot be read stops the start, and says what to do: what is pinned must not be lost', async (t) => {
  const { upstreams, mirror } = await setUp(t);
  const { directory } = mirror;
  await mirror.app.close();
  await writeFile(join(directory, 'data/pins.json'), '["a');
  await assert.rejects(
    startMirror(t, { upstreams, directory }),
    /mend or remove .*pins\.json, which lists what is pinned/,
  );
});
