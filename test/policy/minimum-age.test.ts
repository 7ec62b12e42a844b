/** How long something must have been known before it comes in. The clock is moved, never waited for. */
import assert from 'node:assert/strict';
import { appendFile, rm, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { request } from 'undici';
import type { Digest } from '../../src/oci/digest.ts';
import { FakeClock } from '../helpers/fake-clock.ts';
import { refused } from '../helpers/policies.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { type MirrorOptions, startMirror, type TestMirror } from '../helpers/start-mirror.ts';
import { tempDir } from '../helpers/temp-dir.ts';
import { archiveOf, importArchive, pullImage } from '../helpers/transfers.ts';

const HOUR = 3_600_000;
const APP = '/v2/org/app';
const COOL_DOWN = { name: 'cool-down', match: ['ghcr.io/*'], minimumAge: '72h' };

async function setUp(t: TestContext) {
  const directory = await tempDir(t);
  const upstream = await ScriptedUpstream.start(t);
  const clock = new FakeClock();
  const start = (more: Partial<MirrorOptions> = {}) =>
    startMirror(t, {
      upstreams: { 'ghcr.io': { url: upstream.url } },
      ...{ directory, clock, policies: [COOL_DOWN] },
      ...more,
    });
  return { directory, upstream, clock, start };
}

async function meaning(mirror: TestMirror, tag: string): Promise<[digest: unknown, cache: unknown]> {
  const head = await mirror.head(`${APP}/manifests/${tag}`);
  const { status, headers } = await mirror.get(`${APP}/manifests/${tag}`);
  assert.equal(status, 200);
  assert.equal(head.headers['docker-content-digest'], headers['docker-content-digest']);
  return [headers['docker-content-digest'], headers['cache-status']];
}

function notBeforeOf(body: string): string {
  const { errors } = JSON.parse(body) as {
    errors: { message: string; detail: { notBefore: string } }[];
  };
  const [error] = errors;
  assert.ok(error !== undefined);
  assert.match(error.message, new RegExp(`it comes in from ${error.detail.notBefore}`));
  return error.detail.notBefore;
}

test('a new image waits, with the time from which it comes in, and then comes in', async (t) => {
  const { upstream, clock, start } = await setUp(t);
  const { top, blobs } = upstream.addImage('org/app', '1', { layers: [5000] });
  const mirror = await start();
  const seen = clock.now();
  const reply = await refused(mirror, `${APP}/manifests/1`);
  assert.equal(notBeforeOf(reply), new Date(seen + 72 * HOUR).toISOString());
  await refused(mirror, `${APP}/manifests/${top.digest}`);
  clock.advance(seen + 72 * HOUR - 1 - clock.now());
  await refused(mirror, `${APP}/manifests/1`);
  assert.equal(upstream.count('blob'), 0);
  clock.advance(1);
  await pullImage(mirror, 'org/app', '1');
  assert.equal(upstream.count('blob', 'GET'), blobs.length);
});

test('a tag that moved today goes on meaning what it meant, and moves when the new one is old enough', async (t) => {
  const { upstream, clock, start } = await setUp(t);
  const old = upstream.addImage('org/app', 'latest', { seed: 'old' });
  const mirror = await start();
  await refused(mirror, `${APP}/manifests/latest`);
  clock.advance(72 * HOUR);
  assert.equal((await meaning(mirror, 'latest'))[0], old.top.digest);
  const young = upstream.addImage('org/app', 'latest', { seed: 'young' });
  clock.advance(HOUR);
  const moved = clock.now();
  assert.deepEqual(await meaning(mirror, 'latest'), [old.top.digest, 'millpond; hit; detail=held']);
  await refused(mirror, `${APP}/manifests/${young.top.digest}`);
  clock.advance(moved + 72 * HOUR - 1 - clock.now());
  assert.equal((await meaning(mirror, 'latest'))[0], old.top.digest);
  clock.advance(1);
  assert.equal((await meaning(mirror, 'latest'))[0], young.top.digest);
});

test('another tag for the same image makes it no younger', async (t) => {
  const { upstream, clock, start } = await setUp(t);
  const image = upstream.addImage('org/app', '1');
  const mirror = await start();
  await refused(mirror, `${APP}/manifests/1`);
  clock.advance(71 * HOUR);
  upstream.addManifest('org/app', image.top.bytes, image.top.mediaType, 'stable');
  await refused(mirror, `${APP}/manifests/stable`);
  clock.advance(HOUR);
  assert.equal((await meaning(mirror, 'stable'))[0], image.top.digest);
  await mirror.app.close();
  assert.equal((await meaning(await start(), '1'))[0], image.top.digest);
});

test('a nightly tag ripens: each night comes in three days later, although the tag moves again', async (t) => {
  const { upstream, clock, start } = await setUp(t);
  const mirror = await start();
  const nights: Digest[] = [];
  for (let night = 0; night < 6; night += 1) {
    nights.push(upstream.addImage('org/app', 'nightly', { seed: `night ${night}` }).top.digest);
    const reply = await mirror.get(`${APP}/manifests/nightly`);
    const expected = nights[night - 3];
    if (expected === undefined)
      assert.equal(
        notBeforeOf(reply.body.toString()),
        new Date(clock.now() + (72 - 24 * night) * HOUR).toISOString(),
      );
    else assert.equal(reply.headers['docker-content-digest'], expected);
    clock.advance(24 * HOUR);
  }
});

test('day one on a warm cache stops nothing that is in it, by tag, digest or layer', async (t) => {
  const { upstream, clock, start } = await setUp(t);
  const image = upstream.addImage('org/app', '1', { layers: [5000], platforms: ['amd64', 'arm64'] });
  const plain = await start({ policies: [] });
  await pullImage(plain, 'org/app', '1');
  await plain.app.close();
  const mirror = await start();
  await pullImage(mirror, 'org/app', '1');
  for (const { digest } of [image.top, ...image.manifests])
    assert.equal((await mirror.get(`${APP}/manifests/${digest}`)).status, 200);
  // What comes later waits, and so does what comes while the mirror is down.
  await mirror.app.close();
  upstream.addImage('org/app', '2', { seed: 'two' });
  clock.advance(HOUR);
  await refused(await start(), `${APP}/manifests/2`);
});

test('a platform manifest is as old as the first sighting of an index that lists it', async (t) => {
  const { upstream, clock, start } = await setUp(t);
  const image = upstream.addImage('org/app', '1', { platforms: ['amd64', 'arm64'] });
  const mirror = await start();
  await refused(mirror, `${APP}/manifests/1`);
  clock.advance(72 * HOUR);
  await pullImage(mirror, 'org/app', '1');
  for (const { digest } of image.manifests)
    assert.equal((await mirror.get(`${APP}/manifests/${digest}`)).status, 200);
});

test('what one repository has seen makes nothing older in another', async (t) => {
  const { upstream, clock, start } = await setUp(t);
  const { top } = upstream.addImage('org/app', '1');
  upstream.addManifest('org/other', top.bytes, top.mediaType, '1');
  const mirror = await start();
  await refused(mirror, `${APP}/manifests/1`);
  clock.advance(72 * HOUR);
  await meaning(mirror, '1');
  await refused(mirror, '/v2/org/other/manifests/1');
  await refused(mirror, `/v2/org/other/manifests/${top.digest}`);
});

test('neither a restart, nor the loss of the index, nor an eviction makes anything younger', async (t) => {
  const { upstream, clock, directory, start } = await setUp(t);
  const { top } = upstream.addImage('org/app', '1');
  const first = await start();
  await refused(first, `${APP}/manifests/1`);
  clock.advance(71 * HOUR);
  await first.app.close();
  await rm(join(directory, 'data/index'), { recursive: true });
  await rm(join(directory, 'data/blobs'), { recursive: true });
  const second = await start();
  assert.equal(
    notBeforeOf(await refused(second, `${APP}/manifests/1`)),
    new Date(clock.now() + HOUR).toISOString(),
  );
  clock.advance(HOUR);
  assert.equal((await meaning(second, '1'))[0], top.digest);
});

test('a line that a crash has torn is skipped, and the next one is read', async (t) => {
  const { upstream, clock, directory, start } = await setUp(t);
  upstream.addImage('org/app', '1');
  upstream.addImage('org/app', '2', { seed: 'two' });
  const file = join(directory, 'data/first-seen.jsonl');
  const first = await start();
  await refused(first, `${APP}/manifests/1`);
  await first.app.close();
  await appendFile(file, '{"seen":0,"in":"ghcr.io/org/app","dig');
  const second = await start();
  await refused(second, `${APP}/manifests/2`);
  await second.app.close();
  clock.advance(72 * HOUR);
  const third = await start();
  await meaning(third, '1');
  await meaning(third, '2');
  await truncate(file); // what is known stays in memory
  await meaning(third, '1');
});

test('a clock that goes back makes nothing older', async (t) => {
  const { upstream, clock, start } = await setUp(t);
  upstream.addImage('org/app', '1');
  const mirror = await start();
  await refused(mirror, `${APP}/manifests/1`);
  const right = clock.now();
  clock.advance(-1000 * HOUR);
  upstream.addImage('org/app', '2', { seed: 'two' });
  await refused(mirror, `${APP}/manifests/2`);
  clock.advance(right + HOUR - clock.now());
  await refused(mirror, `${APP}/manifests/2`);
});

test('an imported image counts as let in by whoever imported it, and only in its repository', async (t) => {
  const { upstream, clock, start } = await setUp(t);
  const image = upstream.addImage('org/app', '1', { layers: [5000], platforms: ['amd64', 'arm64'] });
  upstream.addManifest('org/other', image.top.bytes, image.top.mediaType, '1');
  const mirror = await start();
  await refused(mirror, `${APP}/manifests/1`);
  clock.advance(31_000);
  await importArchive(mirror, await archiveOf({ 'ghcr.io/org/app:1': image }));
  clock.advance(31_000);
  await pullImage(mirror, 'org/app', '1');
  await refused(mirror, '/v2/org/other/manifests/1');
});

test('to warm an image counts as seeing it', async (t) => {
  const { upstream, clock, start } = await setUp(t);
  upstream.addImage('org/app', '1');
  const mirror = await start();
  const body = JSON.stringify({ images: ['ghcr.io/org/app:1'] });
  const warmed = await request(`${mirror.operationsUrl}/api/warm`, { method: 'POST', body });
  assert.match(await warmed.body.text(), /it is too new/);
  clock.advance(72 * HOUR);
  await pullImage(mirror, 'org/app', '1');
});

test('an excepted image does not wait, and the other policies still count for it', async (t) => {
  const { upstream, start } = await setUp(t);
  upstream.addImage('org/app', '1');
  upstream.addImage('team/app', '1');
  const except = [{ image: 'ghcr.io/org/*', reason: 'ours', until: '2099-12-31' }];
  const mirror = await start({ policies: [{ ...COOL_DOWN, except }] });
  await meaning(mirror, '1');
  await refused(mirror, '/v2/team/app/manifests/1');
});

test('a policy that only looks holds nothing back', async (t) => {
  const { upstream, start } = await setUp(t);
  upstream.addImage('org/app', '1');
  const mirror = await start({ policies: [{ ...COOL_DOWN, mode: 'audit' }] });
  await pullImage(mirror, 'org/app', '1');
  const labels = { policy: 'cool-down', decision: 'deny', mode: 'audit' };
  assert.ok((await mirror.metric('millpond_policy_decisions_total', labels)) > 0);
});
