import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { type TestContext, test } from 'node:test';
import { request } from 'undici';
import { digestOf } from '../../src/oci/digest.ts';
import { diskUse } from '../helpers/disk-use.ts';
import { buildImage, noise, type TestImage } from '../helpers/images.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { type MirrorOptions, startMirror, type TestMirror } from '../helpers/start-mirror.ts';
import { blobEntry, indexEntry, pieces, tarOf, VERSION_ENTRY } from '../helpers/tars.ts';
import {
  archiveOf,
  contentOf,
  entriesOf,
  eventsIn,
  importArchive,
  outcomes,
  pullImage,
  REF_NAME,
} from '../helpers/transfers.ts';

const NAME = 'docker.io/library/alpine:3.20';
const MIB = 1024 * 1024;

/** No server listens on this port, and a sealed mirror does not try to connect. */
const UPSTREAMS = { 'docker.io': 'http://127.0.0.1:9', 'quay.io': 'http://127.0.0.1:9' };

function sealedMirror(t: TestContext, options: Partial<MirrorOptions> = {}): Promise<TestMirror> {
  return startMirror(t, { upstreams: UPSTREAMS, sealed: true, ...options });
}

function multi(seed = 'multi'): TestImage {
  return buildImage({ platforms: ['amd64', 'arm64'], layers: [100_000, 50], seed });
}

async function isVisible(mirror: TestMirror, repository: string, image: TestImage): Promise<boolean> {
  const replies = await Promise.all([
    mirror.get(`/v2/${repository}/manifests/${image.top.digest}`),
    ...image.blobs.map((blob) => mirror.get(`/v2/${repository}/blobs/${digestOf(blob)}`)),
  ]);
  await mirror.idle(); // the fetches that were refused have put their files away
  return replies.some(({ status }) => status === 200);
}

async function spooled(mirror: TestMirror): Promise<string[]> {
  return readdir(join(mirror.directory, 'data/ingest'));
}

test('an archive is imported into a sealed mirror, which then serves it by tag and by digest', async (t) => {
  const mirror = await sealedMirror(t);
  const image = multi();
  const events = await importArchive(mirror, await archiveOf({ [NAME]: image }));
  assert.equal(events[0]?.event, 'progress');
  const content = contentOf(image);
  assert.deepEqual(outcomes(events), [
    {
      event: 'image',
      image: NAME,
      outcome: 'done',
      digest: image.top.digest,
      platforms: ['linux/amd64', 'linux/arm64'],
    },
    {
      event: 'done',
      images: 1,
      failed: 0,
      storedBytes: content.reduce((sum, { length }) => sum + length, 0),
      presentBytes: 0,
    },
  ]);
  for (const reference of ['3.20', image.top.digest]) {
    const pulled = await pullImage(mirror, 'library/alpine', reference);
    assert.deepEqual(pulled.get(`manifests/${reference}`), image.top.bytes);
    assert.equal(pulled.size, content.length);
  }
  assert.deepEqual(await spooled(mirror), []);
  const elsewhere = await mirror.get(
    `/v2/library/other/blobs/${digestOf(image.blobs[0] ?? Buffer.alloc(0))}`,
  );
  assert.equal(elsewhere.status, 404, 'another repository has no permission for it');
});

test('an imported tag counts as confirmed at its import: upstream is asked only when its TTL is over', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  const image = upstream.addImage('library/alpine', 'edge');
  await importArchive(mirror, await archiveOf({ 'docker.io/library/alpine:edge': image }));
  await pullImage(mirror, 'library/alpine', 'edge');
  assert.equal(upstream.requests.length, 0);
  mirror.clock.advance(3_600_000);
  await pullImage(mirror, 'library/alpine', 'edge');
  assert.deepEqual(
    upstream.requests.map(({ method, path }) => `${method} ${path}`),
    ['HEAD /v2/library/alpine/manifests/edge'],
  );
});

test('images share what they have in common, and each becomes visible under its own name', async (t) => {
  const mirror = await sealedMirror(t);
  const [one, two] = [buildImage({ seed: 'one', layers: [MIB] }), buildImage({ seed: 'two', layers: [MIB] })];
  const images = { [NAME]: one, 'quay.io/org/app:1': one, 'quay.io/org/app:2': two };
  const events = outcomes(await importArchive(mirror, await archiveOf(images)));
  assert.deepEqual(
    events.map(({ image }) => image),
    [...Object.keys(images), undefined],
  );
  for (const [repository, tag] of [
    ['library/alpine', '3.20'],
    ['quay.io/org/app', '1'],
    ['quay.io/org/app', '2'],
  ] as const)
    await pullImage(mirror, repository, tag);
  assert.equal(await mirror.metric('millpond_store_objects'), contentOf(one, two).length);
});

test('a second import of the same archive stores nothing', async (t) => {
  const mirror = await sealedMirror(t);
  const archive = await archiveOf({ [NAME]: multi() });
  await importArchive(mirror, archive);
  const blobs = join(mirror.directory, 'data/blobs');
  const before = await diskUse(blobs);
  const done = (await importArchive(mirror, archive)).at(-1);
  assert.deepEqual([done?.['storedBytes'], done?.['images'], done?.['failed']], [0, 1, 0]);
  assert.ok(Number(done?.['presentBytes']) > 200_000);
  assert.equal(await diskUse(blobs), before);
  await pullImage(mirror, 'library/alpine', '3.20');
});

test('an archive that was cut off anywhere makes nothing visible and leaves no file; the complete one continues from there', async (t) => {
  const image = multi();
  // Puts the manifests first, so that a cut leaves them without what they list.
  const archive = await archiveOf({ [NAME]: image });
  const cuts = Array.from({ length: 24 }, (_, at) => Math.floor(((at + 1) * archive.length) / 25));
  const mirror = await sealedMirror(t);
  let stored = 0;
  for (const cut of [0, 1, 511, 512, 1000, ...cuts, archive.length - 1024]) {
    const last = (await importArchive(mirror, archive.subarray(0, cut))).at(-1);
    assert.equal(last?.event, 'error', `cut at ${cut}`);
    assert.match(
      String(last?.['message']),
      /the archive ends in the middle|not a tar archive/,
      `cut at ${cut}`,
    );
    assert.equal(await isVisible(mirror, 'library/alpine', image), false, `cut at ${cut}`);
    assert.deepEqual(await spooled(mirror), []);
    const objects = await mirror.metric('millpond_store_objects');
    assert.ok(objects >= stored, 'what was verified is kept');
    stored = objects;
  }
  assert.equal(stored, contentOf(image).length);
  const done = (await importArchive(mirror, archive)).at(-1);
  assert.equal(done?.['storedBytes'], 0);
  await pullImage(mirror, 'library/alpine', '3.20');
});

test('a client that leaves in the middle of an import leaves nothing visible, and no file', async (t) => {
  const mirror = await sealedMirror(t);
  const image = buildImage({ layers: [MIB, 3 * MIB] });
  const archive = await archiveOf({ [NAME]: image });
  const half = archive.subarray(0, archive.length / 2);
  const { promise: forEver } = Promise.withResolvers<never>();
  const stop = new AbortController();
  async function* begun() {
    yield* pieces(half, 64 * 1024);
    while ((await spooled(mirror)).length === 0) await mirror.metric('millpond_store_objects');
    stop.abort();
    await forEver;
  }
  const body = Readable.from(begun()).on('error', () => undefined);
  const sent = request(`${mirror.operationsUrl}/api/import`, {
    method: 'POST',
    body,
    signal: stop.signal,
  }).then(async (reply) => reply.body.text());
  await assert.rejects(sent);
  while ((await spooled(mirror)).length > 0) await mirror.metric('millpond_store_objects');
  assert.equal(await isVisible(mirror, 'library/alpine', image), false);
});

for (const begun of ['', 'abc']) {
  test(`a client that sends nothing after ${begun.length} bytes for clientTimeout is disconnected`, async (t) => {
    const mirror = await sealedMirror(t, { server: { clientTimeout: '200ms' } });
    const { port, hostname } = new URL(mirror.operationsUrl);
    const socket = connect(Number(port), hostname);
    socket.write(`POST /api/import HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n${begun}`);
    const closed = new Promise((resolve) => socket.once('close', resolve));
    socket.on('error', () => undefined).resume();
    await closed;
    assert.deepEqual(await spooled(mirror), []);
  });
}

test('an archive with one wrong bit in any of its blobs is refused, and nothing becomes visible', async (t) => {
  const image = buildImage({ layers: [100_000] });
  const content = contentOf(image);
  for (const [at, bytes] of content.entries()) {
    const mirror = await sealedMirror(t);
    const wrong = Buffer.from(bytes);
    wrong[wrong.length - 1] = (wrong.at(-1) ?? 0) ^ 1;
    const entries = entriesOf({ [NAME]: image });
    entries[at] = blobEntry(wrong, digestOf(bytes));
    const last = (await importArchive(mirror, await tarOf(entries))).at(-1);
    assert.match(
      String(last?.['message']),
      /^the archive is damaged: the content of sha256:\w+ does not match its digest; copy it again$/,
    );
    assert.equal(await isVisible(mirror, 'library/alpine', image), false);
    assert.deepEqual(await spooled(mirror), []);
  }
});

test('an image that lacks a blob does not become visible, the others do; content of no image is not kept', async (t) => {
  const mirror = await sealedMirror(t);
  const [whole, lacking] = [buildImage({ seed: 'whole' }), buildImage({ seed: 'lacking', layers: [40, 50] })];
  const [missing] = lacking.blobs.slice(-1);
  assert.ok(missing !== undefined);
  const stray = noise(5000, 'stray');
  const content = [...contentOf(whole, lacking).filter((bytes) => bytes !== missing), stray];
  const archive = await archiveOf({ 'quay.io/org/app:1': lacking, [NAME]: whole }, content);
  const events = outcomes(await importArchive(mirror, archive));
  assert.deepEqual(
    events.map(({ event, image, outcome }) => [event, image, outcome]),
    [
      ['image', 'quay.io/org/app:1', 'failed'],
      ['image', NAME, 'done'],
      ['done', undefined, undefined],
    ],
  );
  assert.match(
    String(events[0]?.['reason']),
    new RegExp(`has the blob ${digestOf(missing)}: import the archive`),
  );
  assert.equal(await isVisible(mirror, 'quay.io/org/app', lacking), false);
  await pullImage(mirror, 'library/alpine', '3.20');
  assert.equal(await mirror.metric('millpond_store_objects'), contentOf(whole).length);
});

test('an archive may lack what the cache has already', async (t) => {
  const mirror = await sealedMirror(t);
  const [before, after] = [
    buildImage({ seed: 'a', layers: [1000] }),
    buildImage({ seed: 'b', layers: [2000] }),
  ];
  const base = after.blobs.slice(-1);
  await importArchive(mirror, await archiveOf({ [NAME]: before }, [...contentOf(before), ...base]));
  const rest = contentOf(after).filter((bytes) => !base.includes(bytes));
  const alone = await importArchive(mirror, await archiveOf({ 'quay.io/org/app:2': after }, rest));
  assert.equal(outcomes(alone)[0]?.['outcome'], 'failed', 'the stray base was not kept');
  const both = { [NAME]: before, 'quay.io/org/app:1': after };
  await importArchive(mirror, await archiveOf(both));
  const increment = await importArchive(mirror, await archiveOf({ 'quay.io/org/app:2': after }, rest));
  assert.equal(outcomes(increment)[0]?.['outcome'], 'done');
  await pullImage(mirror, 'quay.io/org/app', '2');
});

test('an index is imported with one of its platforms, and refused with none, or with an incomplete one', async (t) => {
  const mirror = await sealedMirror(t);
  const image = multi();
  const [amd64] = image.manifests;
  assert.ok(amd64 !== undefined);
  const content = [image.top.bytes, amd64.bytes, ...image.blobs.slice(0, 3)];
  const [event] = outcomes(await importArchive(mirror, await archiveOf({ [NAME]: image }, content)));
  assert.deepEqual([event?.['outcome'], event?.['platforms']], ['done', ['linux/amd64']]);
  assert.deepEqual((await mirror.get('/v2/library/alpine/manifests/3.20')).body, image.top.bytes);
  await pullImage(mirror, 'library/alpine', amd64.digest);
  const other = multi('other');
  const archive = await archiveOf({ 'quay.io/org/app:1': other }, [other.top.bytes]);
  const [failed] = outcomes(await importArchive(mirror, archive));
  assert.match(String(failed?.['reason']), /has any of its platforms/);
  const half = await archiveOf({ 'quay.io/org/app:1': other }, contentOf(other).slice(0, -1));
  const [incomplete] = outcomes(await importArchive(mirror, half));
  assert.equal(incomplete?.['outcome'], 'failed', 'a platform that is there must be whole');
});

test('a name that cannot be served is refused with advice; a name for the one image in the archive can be given', async (t) => {
  const mirror = await sealedMirror(t);
  const image = buildImage({});
  for (const [name, reason] of [
    [
      'elsewhere.test/a/b:1',
      /^elsewhere\.test, the registry of elsewhere\.test\/a\/b:1, is not a configured upstream: add it under upstreams:/,
    ],
    [
      'latest',
      /^the archive has only the tag latest, and no repository for this image: give the full name, as in --name docker\.io\/library\/alpine:latest$/,
    ],
    ['', /^the archive has no name for this image: give the full name/],
  ] as const) {
    const [event] = outcomes(await importArchive(mirror, await archiveOf({ [name]: image })));
    assert.equal(event?.['outcome'], 'failed');
    assert.match(String(event?.['reason']), reason);
    assert.equal(await mirror.metric('millpond_store_objects'), 0);
    const named = await importArchive(mirror, await archiveOf({ [name]: image }), '?name=quay.io/org/app:7');
    assert.deepEqual(outcomes(named)[0]?.['image'], 'quay.io/org/app:7');
    await pullImage(mirror, 'quay.io/org/app', '7');
    await request(`${mirror.operationsUrl}/api/images/quay.io/org/app:7`, { method: 'DELETE' });
  }
  const twice = await archiveOf({ 'a:1': image, 'a:2': image });
  const once = outcomes(await importArchive(mirror, twice, '?name=quay.io/org/app:7'));
  assert.deepEqual(
    once.map(({ event, image: name, images, failed }) => [event, name ?? images, failed]),
    [
      ['image', 'quay.io/org/app:7', undefined],
      ['done', 1, 0],
    ],
    'one image that is listed under two names is one image',
  );
  const two = await archiveOf({ a: image, b: buildImage({ seed: 'b' }) });
  const last = (await importArchive(mirror, two, '?name=alpine:1')).at(-1);
  assert.equal(last?.['message'], 'the archive holds 2 images, and --name can name only one: leave it out');
  const bad = await request(`${mirror.operationsUrl}/api/import?name=A`, { method: 'POST', body: two });
  assert.deepEqual(
    [bad.statusCode, await bad.body.json()],
    [400, { error: 'A is not an image name: write it like docker.io/library/alpine:3.20' }],
  );
});

test('an archive of docker save (Docker 25) takes its name from the containerd annotation, because ref.name is only a tag', async (t) => {
  const mirror = await sealedMirror(t);
  const { top, ...rest } = buildImage({});
  const annotations = { 'io.containerd.image.name': NAME, [REF_NAME]: '3.20' };
  const listing = { digest: top.digest, size: top.bytes.length, mediaType: top.mediaType, annotations };
  const content = contentOf({ top, ...rest }).map((bytes) => blobEntry(bytes));
  await importArchive(mirror, await tarOf([...content, indexEntry(listing), VERSION_ENTRY]));
  await pullImage(mirror, 'library/alpine', '3.20');
});

test('no room: imported images stay, and the message says what would help; a mirror that may evict them does, and never what has just come', async (t) => {
  const archive = await archiveOf({ 'quay.io/org/app:1': buildImage({ seed: 'new', layers: [MIB, MIB] }) });
  for (const [sealed, imported] of [
    [true, 'evict'],
    [false, 'keep'],
    [false, 'evict'],
  ] as const) {
    const mirror = await sealedMirror(t, { sealed, cache: { maxSize: '4MiB', keepFree: '0B', imported } });
    const old = buildImage({ seed: 'old', layers: [MIB, 2 * MIB] });
    await importArchive(mirror, await archiveOf({ [NAME]: old }));
    mirror.clock.advance(60_000);
    const last = (await importArchive(mirror, archive)).at(-1);
    if (sealed || imported === 'keep') {
      assert.equal(last?.event, 'error');
      assert.match(String(last?.['message']), /raise cache\.maxSize, pin less, remove imported images/);
      await pullImage(mirror, 'library/alpine', '3.20');
      assert.equal(
        await isVisible(mirror, 'quay.io/org/app', buildImage({ seed: 'new', layers: [MIB, MIB] })),
        false,
      );
    } else {
      assert.equal(last?.['failed'], 0);
      await pullImage(mirror, 'quay.io/org/app', '1');
    }
    assert.deepEqual(await spooled(mirror), []);
  }
});

for (const [what, spoil] of [
  ['an import of the same', (bytes: Buffer) => bytes],
  ['a damaged import of the same', (bytes: Buffer) => Buffer.concat([Buffer.from('x'), bytes.subarray(1)])],
] as const) {
  test(`while a client’s pull fetches a blob, ${what} does not spoil it`, async (t) => {
    const upstream = await ScriptedUpstream.start(t);
    const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
    const image = upstream.addImage('library/alpine', '3.20', { layers: [3 * MIB] });
    const gate = Promise.withResolvers<void>();
    upstream.script({ kind: 'blob' }, (reply) => {
      reply.stall = { after: MIB, until: gate.promise };
    });
    const [config = Buffer.alloc(0), layer = Buffer.alloc(0)] = image.blobs;
    const path = `/v2/library/alpine/blobs/${digestOf(layer)}`;
    const pulled = mirror.get(path);
    await upstream.waitForBytes(MIB);
    const entries = entriesOf({ [NAME]: image }, [image.top.bytes, config]);
    const events = await importArchive(
      mirror,
      await tarOf([blobEntry(spoil(layer), digestOf(layer)), ...entries]),
    );
    assert.equal(events.at(-1)?.event, spoil(layer).equals(layer) ? 'done' : 'error');
    gate.resolve();
    assert.deepEqual((await pulled).body, layer);
    await mirror.idle();
    assert.deepEqual((await mirror.get(path)).body, layer);
    assert.equal(upstream.count('blob', 'GET'), 1, 'and it is stored');
  });
}

test('content of an archive is not evicted before its image is visible', async (t) => {
  const cache = { maxSize: '4MiB', lowWatermark: 0.5, keepFree: '0B', imported: 'evict' };
  const mirror = await sealedMirror(t, { sealed: false, cache });
  // Is a little more than maxSize, which starts an eviction down to half of maxSize.
  const image = buildImage({ layers: [1.5 * MIB, 1.5 * MIB + 1, 1.08 * MIB].map(Math.floor) });
  const [event] = outcomes(await importArchive(mirror, await archiveOf({ [NAME]: image })));
  assert.equal(event?.['outcome'], 'done');
});

test('progress is reported while the archive arrives', async (t) => {
  const mirror = await sealedMirror(t);
  const archive = await archiveOf({ [NAME]: buildImage({ layers: [20 * MIB] }) });
  const gate = Promise.withResolvers<void>();
  async function* slowly() {
    yield* pieces(archive.subarray(0, 10 * MIB), 64 * 1024);
    await gate.promise;
    yield* pieces(archive.subarray(10 * MIB), 64 * 1024);
  }
  const body = Readable.from(slowly());
  const reply = await request(`${mirror.operationsUrl}/api/import`, { method: 'POST', body });
  let text = '';
  for await (const chunk of reply.body) {
    text += String(chunk);
    if (/"bytes":[4-9]\d{6}/.test(text)) gate.resolve();
  }
  const bytes = eventsIn(text).filter(({ event }) => event === 'progress');
  assert.ok(bytes.length >= 3);
  assert.equal(bytes.at(-1)?.['bytes'], archive.length);
});
