/** What somebody may import who may operate only some images. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { request } from 'undici';
import { digestOf } from '../../src/oci/digest.ts';
import { OCI_INDEX, OCI_MANIFEST } from '../../src/oci/manifest.ts';
import { createRobotToken } from '../helpers/access-files.ts';
import { FakeClock } from '../helpers/fake-clock.ts';
import { buildImage, type TestImage, type TestManifest } from '../helpers/images.ts';
import { startMirror, type TestMirror } from '../helpers/start-mirror.ts';
import { blobEntry, tarOf } from '../helpers/tars.ts';
import { tempDir } from '../helpers/temp-dir.ts';
import { type ApiEvent, archiveOf, entriesOf, eventsIn, outcomes } from '../helpers/transfers.ts';

const MINE = 'ghcr.io/mine/app:1';
const PRIVATE = 'ghcr.io/private/app:1';

async function setUp(t: TestContext) {
  const clock = new FakeClock();
  const directory = await tempDir(t);
  const mine = await createRobotToken(directory, 'mine', clock);
  const ops = await createRobotToken(directory, 'ops', clock);
  const mirror = await startMirror(t, {
    upstreams: { 'ghcr.io': 'http://127.0.0.1:9' },
    ...{ clock, directory, sealed: true },
    operations: { listen: '127.0.0.1:0' },
    operator: { authorization: `Bearer ${ops.secret}` },
    access: {
      tokens: ops.path,
      rules: [
        { who: 'anonymous', pull: '*' },
        { who: 'token:mine', operate: 'ghcr.io/mine/*' },
        { who: 'token:ops', operate: true, observe: true },
      ],
    },
  });
  return { mirror, mine: mine.secret, ops: ops.secret };
}

async function importAs(mirror: TestMirror, token: string, archive: Buffer): Promise<ApiEvent[]> {
  const reply = await request(`${mirror.operationsUrl}/api/import`, {
    method: 'POST',
    body: archive,
    headers: { authorization: `Bearer ${token}` },
  });
  return outcomes(eventsIn(await reply.body.text()));
}

async function statusOf(mirror: TestMirror, path: string): Promise<number> {
  return (await mirror.get(`/v2/${path}`)).status;
}

/** An archive with one manifest of the sender's own making, and `content` besides. */
function crafted(manifest: object, mediaType: string, content: Buffer[] = []): Promise<Buffer> {
  const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType, ...manifest }));
  const top: TestManifest = { digest: digestOf(bytes), mediaType, bytes };
  return archiveOf({ [MINE]: { top, manifests: [top], blobs: content } });
}

function descriptorOf(bytes: Buffer, mediaType = 'application/vnd.oci.image.layer.v1.tar') {
  return { mediaType, digest: digestOf(bytes), size: bytes.length };
}

function layerOf({ blobs }: TestImage): Buffer {
  const [, layer] = blobs;
  assert.ok(layer !== undefined);
  return layer;
}

test('an archive with a name that the sender may not operate is refused whole, and leaves nothing behind', async (t) => {
  const { mirror, mine, ops } = await setUp(t);
  const [own, foreign] = [buildImage({ seed: 'own' }), buildImage({ seed: 'foreign' })];
  const archive = await archiveOf({ [MINE]: own, [PRIVATE]: foreign });
  assert.deepEqual(await importAs(mirror, mine, archive), [
    { event: 'error', message: 'no rule of this mirror lets you operate ghcr.io/private/app' },
  ]);
  for (const repository of ['mine/app', 'private/app'])
    assert.equal(await statusOf(mirror, `${repository}/manifests/1`), 404);
  assert.equal(await mirror.metric('millpond_store_objects'), 0);
  assert.equal(mirror.log.filter(({ level }) => level === 'error').length, 0);
  assert.equal((await importAs(mirror, mine, await archiveOf({ [MINE]: own }))).at(-1)?.['failed'], 0);
  assert.equal((await importAs(mirror, ops, archive)).at(-1)?.['failed'], 0);
  assert.equal(await statusOf(mirror, 'private/app/manifests/1'), 200);
});

test('whoever knows only the digest of a private layer does not get it by an archive that names it', async (t) => {
  const { mirror, mine, ops } = await setUp(t);
  const hidden = buildImage({ seed: 'hidden' });
  await importAs(mirror, ops, await archiveOf({ [PRIVATE]: hidden }));
  const layer = layerOf(hidden);
  const config = Buffer.from('{}');
  const own = buildImage({ seed: 'own' });
  const refersToLayer = {
    config: descriptorOf(config, 'application/vnd.oci.image.config.v1+json'),
    layers: [descriptorOf(layer)],
  };
  const foreign = 'application/vnd.oci.image.layer.nondistributable.v1.tar';
  const indexed = [own.top, hidden.top].map(({ bytes, mediaType }) => descriptorOf(bytes, mediaType));
  const archives = {
    'a manifest with its digest': await crafted(refersToLayer, OCI_MANIFEST, [config]),
    'as a layer that need not be there': await crafted(
      { ...refersToLayer, layers: [descriptorOf(layer, foreign)] },
      OCI_MANIFEST,
      [config],
    ),
    'an index that lists its manifest': await crafted({ manifests: indexed }, OCI_INDEX, [
      own.top.bytes,
      ...own.blobs,
    ]),
    'its manifest itself': await archiveOf({ [MINE]: hidden }, [Buffer.from('nothing')]),
    'other bytes under its digest': await tarOf([
      blobEntry(Buffer.alloc(layer.length), digestOf(layer)),
      ...entriesOf({ [MINE]: hidden }, [hidden.top.bytes, ...hidden.blobs.filter((blob) => blob !== layer)]),
    ]),
  };
  for (const [how, archive] of Object.entries(archives)) {
    const last = (await importAs(mirror, mine, archive)).at(-1);
    assert.ok(last?.event === 'error' || last?.['failed'] === 1, `${how}: ${JSON.stringify(last)}`);
    for (const path of [`blobs/${digestOf(layer)}`, `manifests/${hidden.top.digest}`, 'manifests/1'])
      assert.equal(await statusOf(mirror, `mine/app/${path}`), 404, `${how}: ${path}`);
  }
  assert.equal(await statusOf(mirror, `private/app/blobs/${digestOf(layer)}`), 200);
});

test('an archive with everything in it is taken, even if the cache has parts of it for others', async (t) => {
  const { mirror, mine, ops } = await setUp(t);
  const image = buildImage({ seed: 'shared', platforms: ['amd64', 'arm64'] });
  await importAs(mirror, ops, await archiveOf({ [PRIVATE]: image }));
  assert.equal((await importAs(mirror, mine, await archiveOf({ [MINE]: image }))).at(-1)?.['failed'], 0);
  assert.equal(await statusOf(mirror, `mine/app/blobs/${digestOf(layerOf(image))}`), 200);
  // What the repository has already may be left out.
  const rest = await archiveOf({ 'ghcr.io/mine/app:2': image }, [image.top.bytes]);
  assert.equal((await importAs(mirror, mine, rest)).at(-1)?.['failed'], 0);
});
