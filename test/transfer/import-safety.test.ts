import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { nodeFileSystem } from '../../src/cache/store/file-system.ts';
import { type Digest, digestOf } from '../../src/oci/digest.ts';
import { OCI_INDEX, OCI_MANIFEST } from '../../src/oci/manifest.ts';
import { FailingFileSystem } from '../helpers/failing-file-system.ts';
import { buildImage, type TestImage, type TestManifest } from '../helpers/images.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { type MirrorOptions, startMirror } from '../helpers/start-mirror.ts';
import { archiveOf, contentOf, importArchive, outcomes, pullImage } from '../helpers/transfers.ts';

const NAME = 'docker.io/library/alpine:3.20';

function sealedMirror(t: TestContext, options: Partial<MirrorOptions> = {}) {
  return startMirror(t, { upstreams: { 'docker.io': 'http://127.0.0.1:9' }, sealed: true, ...options });
}

function indexOf(...listed: { digest: Digest; mediaType: string; bytes: Buffer }[]): TestManifest {
  const manifests = listed.map(({ digest, mediaType, bytes }) => ({ digest, mediaType, size: bytes.length }));
  const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: OCI_INDEX, manifests }));
  return { digest: digestOf(bytes), mediaType: OCI_INDEX, bytes };
}

test('content of an archive is stored only after the disk has confirmed it', async (t) => {
  const disk = new FailingFileSystem();
  const mirror = await sealedMirror(t, { fileSystem: disk.fileSystem });
  const archive = await archiveOf({ [NAME]: buildImage({}) });
  disk.fail('sync', 'EIO');
  const last = (await importArchive(mirror, archive)).at(-1);
  assert.equal(last?.event, 'error');
  assert.equal(await mirror.metric('millpond_store_objects'), 0);
  disk.heal();
  assert.equal((await importArchive(mirror, archive)).at(-1)?.['failed'], 0);
});

test('the tag is recorded last: an import that fails before that shows no tag', async (t) => {
  const image = buildImage({ platforms: ['amd64', 'arm64'] });
  const archive = await archiveOf({ [NAME]: image });
  let renames = 0;
  let limit = 0;
  const rename: typeof nodeFileSystem.rename = async (from, to) => {
    if (renames === limit) throw Object.assign(new Error('ENOSPC: injected'), { code: 'ENOSPC' });
    renames += 1;
    await nodeFileSystem.rename(from, to);
  };
  // Everything is renamed into the store once as content of the archive; then the three manifests again, when recorded.
  const content = contentOf(image).length;
  for (const recorded of [0, 1, 2]) {
    [renames, limit] = [0, content + recorded];
    const mirror = await sealedMirror(t, { fileSystem: { ...nodeFileSystem, rename } });
    const events = outcomes(await importArchive(mirror, archive));
    assert.deepEqual([events[0]?.['outcome'], events.at(-1)?.['failed']], ['failed', 1]);
    assert.equal(renames, limit);
    assert.equal((await mirror.get('/v2/library/alpine/manifests/3.20')).status, 404, `${recorded} recorded`);
    limit = Number.POSITIVE_INFINITY;
    assert.equal((await importArchive(mirror, archive)).at(-1)?.['failed'], 0);
    await pullImage(mirror, 'library/alpine', '3.20');
  }
});

test('content that a cached image lacked is kept, even if the image that the archive lists is refused', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  const image = upstream.addImage('library/alpine', '3.20');
  await mirror.get('/v2/library/alpine/manifests/3.20');
  const other = buildImage({ seed: 'incomplete' });
  const archive = await archiveOf({ 'docker.io/org/other:1': other }, [other.top.bytes, ...image.blobs]);
  assert.equal((await importArchive(mirror, archive)).at(-1)?.['failed'], 1);
  await upstream.close();
  await pullImage(mirror, 'library/alpine', '3.20');
});

test('a name with the digest of another image is refused, and nothing is kept', async (t) => {
  const mirror = await sealedMirror(t);
  const [image, other] = [buildImage({}), buildImage({ seed: 'other' })];
  const archive = await archiveOf({ [NAME]: image });
  const named = `?name=docker.io/org/app@${other.top.digest}`;
  const [event] = outcomes(await importArchive(mirror, archive, named));
  assert.equal(
    event?.['reason'],
    `the image in the archive is ${image.top.digest}: give a name with this digest, or without one`,
  );
  assert.equal(await mirror.metric('millpond_store_objects'), 0);
});

test('an index is followed eight levels deep, and refused beyond that', async (t) => {
  const mirror = await sealedMirror(t);
  const image = buildImage({});
  const levels: TestManifest[] = [];
  for (let at = 0; at < 9; at += 1) levels.push(indexOf(levels.at(-1) ?? image.top));
  const nested = (top: TestManifest | undefined): TestImage => ({ ...image, top: top ?? image.top });
  const content = [...contentOf(image), ...levels.map(({ bytes }) => bytes)];
  const images = { 'docker.io/org/nine:1': nested(levels[8]), 'docker.io/org/eight:1': nested(levels[7]) };
  const events = outcomes(await importArchive(mirror, await archiveOf(images, content)));
  assert.deepEqual(
    events.map(({ image: name, outcome }) => [name, outcome]),
    [
      ['docker.io/org/nine:1', 'failed'],
      ['docker.io/org/eight:1', 'done'],
      [undefined, undefined],
    ],
  );
  await pullImage(mirror, 'org/eight', '1');
});

test('a manifest above 8 MiB is not read into memory: its image is refused', async (t) => {
  const mirror = await sealedMirror(t);
  const image = buildImage({});
  const bytes = Buffer.concat([image.top.bytes, Buffer.alloc(8 * 1024 * 1024, ' ')]);
  const top = { digest: digestOf(bytes), mediaType: OCI_MANIFEST, bytes };
  const events = await importArchive(mirror, await archiveOf({ [NAME]: { ...image, top, manifests: [] } }));
  const [event] = outcomes(events);
  assert.match(String(event?.['reason']), new RegExp(`has its manifest ${top.digest}: `));
  assert.equal(await mirror.metric('millpond_store_objects'), 0);
});
