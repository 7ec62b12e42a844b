/** Mirrors that share an object store: what one has fetched, all have. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { digestOf } from '../../src/oci/digest.ts';
import { type FleetNode, TestFleet } from '../helpers/fleet-nodes.ts';
import { noise, type TestImage } from '../helpers/images.ts';
import { freePort } from '../helpers/real-processes.ts';
import { startMirror, type TestMirror } from '../helpers/start-mirror.ts';
import { tempDir } from '../helpers/temp-dir.ts';

const LAYERS = [100_000, 300_000];
const PREFIX = 'millpond/';
/** Longer than the pauses between tries at upstream, and shorter than any deadline of the object store. */
const BETWEEN_TRIES_MS = 900;
/** Until the first byte of the object store. */
const DEADLINE_MS = 1_000;
/** Between tries to upload, and shorter than the deadline of an upload. */
const PAUSE_MS = 20_000;

/** A fleet with one image at upstream, which node `a` has pulled and brought into the store. */
async function withImage(t: TestContext): Promise<{ fleet: TestFleet; a: FleetNode; image: TestImage }> {
  const fleet = await TestFleet.start(t);
  const image = fleet.upstream.addImage('org/app', '1', { layers: LAYERS, platforms: ['amd64', 'arm64'] });
  const a = await fleet.node();
  await pull(a, image);
  await a.uploaded();
  return { fleet, a, image };
}

/** A fleet whose node `a` has pulled an image while the object store refuses everything. */
async function withStoreAway(t: TestContext): Promise<{ fleet: TestFleet; a: FleetNode; image: TestImage }> {
  const fleet = await TestFleet.start(t);
  const image = fleet.upstream.addImage('org/app', '1', { layers: LAYERS });
  const a = await fleet.node();
  fleet.bucket.script((_, reply) => {
    reply.fails = { status: 503, code: 'SlowDown' };
  });
  await pull(a, image);
  await a.idle();
  return { fleet, a, image };
}

/** @returns what `Cache-Status` said of each blob */
async function pull(node: TestMirror, image: TestImage): Promise<unknown[]> {
  const top = await node.get('/v2/org/app/manifests/1');
  assert.equal(top.status, 200, top.body.toString());
  assert.ok(top.body.equals(image.top.bytes));
  for (const { digest, bytes } of image.manifests)
    assert.ok((await node.get(`/v2/org/app/manifests/${digest}`)).body.equals(bytes));
  const said: unknown[] = [];
  for (const blob of image.blobs) {
    const reply = await node.get(`/v2/org/app/blobs/${digestOf(blob)}`);
    assert.equal(reply.status, 200, reply.body.toString());
    assert.ok(reply.body.equals(blob));
    said.push(reply.headers['cache-status']);
  }
  return said;
}

/** Moves the clock to whatever is waited for no longer than `mostMs`, until `work` is done. */
async function passingTime<T>({ clock }: FleetNode, work: Promise<T>, mostMs: number): Promise<T> {
  const state = { done: false };
  const watched = work.finally(() => {
    state.done = true;
  });
  while (!state.done) {
    if (clock.nextWakeMs <= mostMs) clock.advance(clock.nextWakeMs);
    await setImmediate();
  }
  return watched;
}

function blobName(bytes: Buffer): string {
  const hex = digestOf(bytes).slice('sha256:'.length);
  return `${PREFIX}blobs/sha256/${hex.slice(0, 2)}/${hex}`;
}

test('what one node has fetched, a node with an empty disk serves: upstream is asked for the tag alone', async (t) => {
  const { fleet, image } = await withImage(t);
  const b = await fleet.node();
  fleet.upstream.requests.length = 0;
  const puts = fleet.bucket.count('put', '/');
  const said = await pull(b, image);
  await b.uploaded();
  const again = fleet.bucket.requests.filter(({ operation }) => operation === 'put').slice(puts);
  assert.deepEqual(
    again.map(({ name }) => name),
    [],
    'what came from there is not written again',
  );
  assert.deepEqual(new Set(said), new Set(['millpond; fwd=uri-miss; stored; detail=store']));
  assert.deepEqual(
    fleet.upstream.requests.map(({ kind, method }) => `${method} ${kind}`),
    ['HEAD manifest'],
  );
  assert.deepEqual(new Set(await pull(b, image)), new Set(['millpond; hit']));
});

test('with upstream gone, a new node serves the whole image, permission included, and says that the tag is stale', async (t) => {
  const { fleet, image } = await withImage(t);
  // The tag has not moved for longer than any stale tag may be served: that says nothing about when it was confirmed.
  for (const stored of fleet.bucket.objects.values()) stored.writtenAt = new Date(0);
  const b = await fleet.node();
  await fleet.upstream.close();
  await passingTime(b, pull(b, image), BETWEEN_TRIES_MS);
  const reply = await b.get('/v2/org/app/manifests/1');
  assert.match(String(reply.headers['cache-status']), /detail=stale/);
});

test('a sealed node, new and with an empty disk, serves what the fleet has', async (t) => {
  const { fleet, image } = await withImage(t);
  const requests = fleet.upstream.requests.length;
  await pull(await fleet.node({ sealed: true }), image);
  assert.equal(fleet.upstream.requests.length, requests);
});

test('a node that pulls no manifest gets a blob out of the store, because a manifest of its repository lists it', async (t) => {
  const { fleet, image } = await withImage(t);
  const [blob = Buffer.alloc(0)] = image.blobs;
  const b = await fleet.node({ sealed: true });
  assert.ok((await b.get(`/v2/org/app/blobs/${digestOf(blob)}`)).body.equals(blob));
  const head = await b.head(`/v2/org/app/blobs/${digestOf(image.blobs[1] ?? blob)}`);
  assert.equal(head.status, 200);
});

test('what is in the store for one repository is not given for another without upstream’s word', async (t) => {
  const { fleet, image } = await withImage(t);
  const [blob = Buffer.alloc(0)] = image.blobs;
  const b = await fleet.node();
  fleet.upstream.script({ path: /org\/other/ }, (reply) => {
    reply.status = 404;
  });
  for (const path of [`blobs/${digestOf(blob)}`, `manifests/${image.top.digest}`]) {
    assert.equal((await b.get(`/v2/org/other/${path}`)).status, 404);
    assert.equal((await b.head(`/v2/org/other/${path}`)).status, 404);
  }
  fleet.upstream.clearScripts();
  const bytes = fleet.upstream.blobBytesSent();
  assert.ok((await b.get(`/v2/org/other/blobs/${digestOf(blob)}`)).body.equals(blob));
  assert.equal(fleet.upstream.blobBytesSent(), bytes, 'upstream said yes, and the bytes came from the store');
});

test('a record that nobody who knows the secret has written gives no permission, and is counted', async (t) => {
  const { fleet, image } = await withImage(t);
  const { objects } = fleet.bucket;
  fleet.upstream.script({ path: /org\/other/ }, (reply) => {
    reply.status = 404;
  });
  const b = await fleet.node();
  // The record of one repository, copied to another one, and one that was made up.
  for (const [name, stored] of [...objects]) {
    if (name.includes('/org/app/')) objects.set(name.replace('/org/app/', '/org/other/'), stored);
  }
  const record = [...objects].find(([name]) => name.includes('/org/other/_manifests/'));
  assert.ok(record);
  const [, json = ''] = record[1].bytes.toString().split('\n');
  const forged = { bytes: Buffer.from(`${'0'.repeat(64)}\n${json}`), writtenAt: new Date() };
  objects.set(record[0].replace('/org/other/', '/org/third/'), forged);
  fleet.upstream.script({ path: /org\/third/ }, (reply) => {
    reply.status = 404;
  });
  for (const repository of ['other', 'third']) {
    assert.equal((await b.get(`/v2/org/${repository}/manifests/1`)).status, 404);
    for (const { digest } of image.manifests)
      assert.equal((await b.get(`/v2/org/${repository}/manifests/${digest}`)).status, 404);
    for (const blob of image.blobs)
      assert.equal((await b.get(`/v2/org/${repository}/blobs/${digestOf(blob)}`)).status, 404);
  }
  assert.ok((await b.metric('millpond_fleet_records_refused_total')) > 0);
});

test('a body that breaks off goes on from upstream at the same byte', async (t) => {
  const { fleet, image } = await withImage(t);
  const blob = image.blobs.find(({ length }) => length === 300_000) ?? Buffer.alloc(0);
  const b = await fleet.node();
  fleet.bucket.script(({ name }, reply) => {
    if (name === blobName(blob)) reply.cutAfter = 200_000;
  });
  const before = fleet.upstream.blobBytesSent();
  assert.ok((await b.get(`/v2/org/app/blobs/${digestOf(blob)}`)).body.equals(blob));
  assert.equal(fleet.upstream.blobBytesSent() - before, 100_000);
});

test('a body that stalls goes on from upstream after two seconds without a byte', async (t) => {
  const { fleet, image } = await withImage(t);
  const blob = image.blobs.find(({ length }) => length === 300_000) ?? Buffer.alloc(0);
  const b = await fleet.node();
  fleet.bucket.script(({ name }, reply) => {
    if (name === blobName(blob)) reply.stallsAfter = 200_000;
  });
  const pulling = b.get(`/v2/org/app/blobs/${digestOf(blob)}`);
  while ((await b.metric('millpond_fill_bytes_total', { source: 'store' })) < 200_000);
  b.clock.advance(2_000);
  assert.ok((await pulling).body.equals(blob));
});

test('wrong bytes in the store reach nobody as a whole reply, and are replaced by right ones', async (t) => {
  const { fleet, image } = await withImage(t);
  const blob = image.blobs.find(({ length }) => length === 300_000) ?? Buffer.alloc(0);
  const wrong = noise(blob.length, 'wrong');
  fleet.bucket.objects.set(blobName(blob), { bytes: wrong, writtenAt: new Date() });
  const b = await fleet.node();
  await assert.rejects(b.get(`/v2/org/app/blobs/${digestOf(blob)}`));
  assert.ok((await b.metric('millpond_content_rejected_total', { upstream: 'fleet store' })) === 1);
  let left = 1; // the first try to replace it fails
  fleet.bucket.script(({ operation, name }, reply) => {
    if (operation !== 'put' || name !== blobName(blob) || left === 0) return;
    left -= 1;
    reply.fails = { status: 503, code: 'SlowDown' };
  });
  assert.ok((await b.get(`/v2/org/app/blobs/${digestOf(blob)}`)).body.equals(blob));
  await passingTime(b, b.uploaded(), PAUSE_MS);
  assert.equal(left, 0);
  assert.ok(fleet.bucket.objects.get(blobName(blob))?.bytes.equals(blob));
});

test('wrong bytes in the store fail one pull that bypasses a full disk, and not the next', async (t) => {
  const { fleet, image } = await withImage(t);
  const blob = image.blobs.find(({ length }) => length === 300_000) ?? Buffer.alloc(0);
  fleet.bucket.objects.set(blobName(blob), { bytes: noise(blob.length, 'wrong'), writtenAt: new Date() });
  const b = await fleet.node({ cache: { maxSize: '64KiB' } });
  await assert.rejects(b.get(`/v2/org/app/blobs/${digestOf(blob)}`));
  const reply = await b.get(`/v2/org/app/blobs/${digestOf(blob)}`);
  assert.ok(reply.body.equals(blob));
  assert.equal(reply.headers['cache-status'], 'millpond; fwd=bypass');
});

test('a hit asks the store nothing', async (t) => {
  const { fleet, a, image } = await withImage(t);
  const requests = fleet.bucket.requests.length;
  await pull(a, image);
  assert.equal(fleet.bucket.requests.length, requests);
});

test('a cold pull costs two requests to the store for each blob, and three more for each manifest', async (t) => {
  const { fleet, image } = await withImage(t);
  for (const blob of image.blobs) assert.equal(fleet.bucket.count('get', blobName(blob)), 1);
  for (const blob of image.blobs) assert.equal(fleet.bucket.count('put', blobName(blob)), 1);
  const repository = fleet.bucket.requests.filter(({ name }) => name.includes('/org/app/'));
  assert.deepEqual(
    Object.fromEntries(
      Object.entries(Object.groupBy(repository, (one) => one.operation)).map(([k, v]) => [k, v?.length]),
    ),
    { get: 3, put: 4 },
  );
});

test('while the store answers nothing pulls go on, and after three failures nobody waits for it', async (t) => {
  const fleet = await TestFleet.start(t);
  const image = fleet.upstream.addImage('org/app', '1', { layers: LAYERS });
  const a = await fleet.node();
  fleet.bucket.script((_, reply) => {
    reply.hangs = true;
  });
  await passingTime(a, pull(a, image), DEADLINE_MS);
  const waits = { engine: 'objects', operation: 'get' };
  assert.equal(await a.metric('millpond_fleet_request_duration_seconds_count', waits), 3);
  assert.equal(await a.metric('millpond_fleet_up', { engine: 'objects' }), 0);
});

test('what was fetched while the store was away is in it afterwards', async (t) => {
  const { fleet, a, image } = await withStoreAway(t);
  fleet.bucket.script(() => undefined);
  await passingTime(a, a.uploaded(), PAUSE_MS);
  for (const blob of image.blobs) assert.ok(fleet.bucket.objects.get(blobName(blob))?.bytes.equals(blob));
});

test('what another node has written meanwhile is found, if the store breaks off who sends it again', async (t) => {
  const { fleet, a, image } = await withStoreAway(t);
  for (const blob of image.blobs)
    fleet.bucket.objects.set(blobName(blob), { bytes: blob, writtenAt: new Date(a.clock.now()) });
  const names = new Set(image.blobs.map(blobName));
  fleet.bucket.script(({ operation, name }, reply) => {
    if (operation === 'put' && names.has(name)) reply.fails = { status: 503, code: 'Broken' };
  });
  await passingTime(a, a.uploaded(), PAUSE_MS);
});

test('what waits survives a restart, and is not written twice', async (t) => {
  const { fleet, a, image } = await withStoreAway(t);
  await a.app.close();
  fleet.bucket.script(() => undefined);
  const again = await fleet.node({ directory: a.directory });
  await again.uploaded();
  for (const blob of image.blobs) assert.ok(fleet.bucket.objects.get(blobName(blob))?.bytes.equals(blob));
  const puts = fleet.bucket.count('put', '/blobs/');
  await again.app.close();
  const third = await fleet.node({ directory: a.directory });
  await third.uploaded();
  assert.equal(fleet.bucket.count('put', '/blobs/'), puts);
});

test('a node with another secret works alone, says why, and writes nothing', async (t) => {
  const { fleet, image } = await withImage(t);
  const { requests } = fleet.bucket;
  const before = requests.filter(({ operation }) => operation === 'put').length;
  const b = await fleet.node({ secret: 'quite another secret, and long enough, too' });
  await pull(b, image);
  await b.idle();
  assert.ok(b.log.some(({ err }) => JSON.stringify(err ?? '').includes('another secret')));
  const written = requests.filter(({ operation }) => operation === 'put').slice(before);
  assert.ok(written.every(({ name }) => name === `${PREFIX}fleet.json`));
  assert.equal(await b.metric('millpond_fleet_up', { engine: 'objects' }), 0);
});

test('nodes that log in as others share bytes, and neither tags nor permissions', async (t) => {
  const { fleet, image } = await withImage(t);
  const b = await fleet.node({
    sealed: true,
    upstreams: {
      'docker.io': {
        url: fleet.upstream.url,
        credentials: { username: 'somebody', password: { env: 'FLEET_KEY' } },
      },
    },
  });
  assert.notEqual((await b.get('/v2/org/app/manifests/1')).status, 200);
  assert.notEqual((await b.get(`/v2/org/app/manifests/${image.top.digest}`)).status, 200);
  for (const blob of image.blobs)
    assert.notEqual((await b.get(`/v2/org/app/blobs/${digestOf(blob)}`)).status, 200);
});

test('a tag that upstream has confirmed for this node is as fresh as any other', async (t) => {
  const { fleet, image } = await withImage(t);
  const b = await fleet.node();
  fleet.upstream.requests.length = 0;
  await pull(b, image);
  await pull(b, image);
  assert.equal(fleet.upstream.count('manifest'), 1);
});

test('a node works alone, and writes nothing, where a newer version has set up the store', async (t) => {
  const fleet = await TestFleet.start(t);
  const image = fleet.upstream.addImage('org/app', '1', { layers: LAYERS });
  const newer = await fleet.sign('fleet.json', { format: 2, readableBy: 2, id: 'newer' });
  fleet.bucket.objects.set(`${PREFIX}fleet.json`, { bytes: newer, writtenAt: new Date() });
  const a = await fleet.node();
  await pull(a, image);
  await a.idle();
  assert.ok(a.log.some(({ err }) => JSON.stringify(err ?? '').includes('needs a newer Millpond')));
  assert.deepEqual([...fleet.bucket.objects.keys()], [`${PREFIX}fleet.json`]);
});

test('a node joins by itself once the store can be used', async (t) => {
  const fleet = await TestFleet.start(t);
  const image = fleet.upstream.addImage('org/app', '1', { layers: LAYERS });
  fleet.bucket.script((_, reply) => {
    reply.fails = { status: 404, code: 'NoSuchBucket' };
  });
  const a = await fleet.node();
  assert.ok(
    a.log.some(({ err }) => JSON.stringify(err ?? '').includes('the bucket does not exist: make it')),
  );
  await pull(a, image);
  fleet.bucket.script(() => undefined);
  a.clock.advance(60_000);
  while (!a.log.some(({ msg }) => msg === 'joined the fleet')) await setImmediate();
  await a.uploaded();
  for (const blob of image.blobs) assert.ok(fleet.bucket.objects.get(blobName(blob))?.bytes.equals(blob));
});

test('a mirror that has run alone brings what it holds, and one that holds the same writes nothing again', async (t) => {
  const fleet = await TestFleet.start(t);
  const image = fleet.upstream.addImage('org/app', '1', { layers: Array.from({ length: 30 }, () => 1000) });
  const directories = await Promise.all(
    ['a', 'b'].map(async () => {
      const alone = await startMirror(t, { upstreams: { 'docker.io': fleet.upstream.url } });
      await pull(alone, image);
      await alone.idle();
      await alone.app.close();
      return alone.directory;
    }),
  );
  const [a, b] = directories;
  await (await fleet.node({ directory: a ?? '' })).uploaded();
  assert.equal(
    fleet.bucket.count('put', '/blobs/'),
    new Set([...image.blobs, image.top.bytes].map((bytes) => digestOf(bytes))).size,
  );
  const puts = fleet.bucket.count('put', '/blobs/');
  const lists = fleet.bucket.count('list');
  await (await fleet.node({ directory: b ?? '' })).uploaded();
  assert.equal(fleet.bucket.count('put', '/blobs/'), puts);
  assert.equal(fleet.bucket.count('list') - lists, 1);
  await pull(await fleet.node({ sealed: true }), image);
});

test('what the store has already is not written over', async (t) => {
  const { fleet, image } = await withImage(t);
  const alone = await startMirror(t, { upstreams: { 'docker.io': fleet.upstream.url } });
  await pull(alone, image);
  await alone.idle();
  await alone.app.close();
  const before = new Map(fleet.bucket.objects);
  await (await fleet.node({ directory: alone.directory })).uploaded();
  for (const blob of image.blobs)
    assert.equal(fleet.bucket.objects.get(blobName(blob)), before.get(blobName(blob)));
});

test('a manifest in the store that is not that of its digest is fetched from upstream instead', async (t) => {
  const { fleet, image } = await withImage(t);
  const wrong = { bytes: image.manifests[1]?.bytes ?? Buffer.alloc(0), writtenAt: new Date() };
  fleet.bucket.objects.set(blobName(image.top.bytes), wrong);
  const b = await fleet.node();
  await pull(b, image);
});

test('a permission that was found in the store is not looked for again', async (t) => {
  const { fleet, image } = await withImage(t);
  const [blob = Buffer.alloc(0)] = image.blobs;
  const b = await fleet.node();
  await b.get(`/v2/org/app/blobs/${digestOf(blob)}`);
  const records = fleet.bucket.count('get', '/org/app/');
  for (let at = 0; at < 3; at += 1) await b.head(`/v2/org/app/blobs/${digestOf(blob)}`);
  await b.get(`/v2/org/app/blobs/${digestOf(blob)}`);
  assert.equal(fleet.bucket.count('get', '/org/app/'), records);
});

test('a start that fails leaves no port of the fleet open', async (t) => {
  const fleet = await TestFleet.start(t);
  const port = await freePort();
  const notADirectory = join(await tempDir(t), 'file');
  await writeFile(notADirectory, '');
  const more = { coordinator: { url: 'valkey://127.0.0.1:9' }, listen: `127.0.0.1:${port}` };
  await assert.rejects(fleet.node({ cache: { directory: notADirectory }, moreOfFleet: more }));
  const server = createServer().listen(port, '127.0.0.1');
  await once(server, 'listening');
  server.close();
});
