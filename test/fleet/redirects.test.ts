/** Blobs that clients get from the object store itself, by a presigned URL. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { digestOf } from '../../src/oci/digest.ts';
import { type FleetNode, TestFleet } from '../helpers/fleet-nodes.ts';
import { noise, type TestImage } from '../helpers/images.ts';
import { type MirrorOptions, startMirror, type TestMirror, type TestReply } from '../helpers/start-mirror.ts';

const [SMALL, LARGE] = [100_000, 300_000];
const PREFIX = 'millpond/';
/** Until the store is asked again whether an object is still there. */
const MINUTE_MS = 60_000;
/** Until the first byte of the object store. */
const DEADLINE_MS = 1_000;

interface Redirecting {
  fleet: TestFleet;
  /** A node that has fetched and uploaded the image. */
  node: FleetNode;
  large: Buffer;
  /** Of the large blob. */
  path: string;
  small: Buffer;
}

/** @param objects settings of `fleet.objects` */
function settings(fleet: TestFleet, objects: Record<string, unknown> = { redirectAbove: '200KiB' }) {
  const { objects: usual } = fleet.bucket.config('') as { objects: Record<string, unknown> };
  return { moreOfFleet: { objects: { ...usual, ...objects } } };
}

async function redirecting(
  t: TestContext,
  { objects, ...options }: Partial<MirrorOptions> & { objects?: Record<string, unknown> } = {},
): Promise<Redirecting> {
  const fleet = await TestFleet.start(t);
  const image = fleet.upstream.addImage('org/app', '1', { layers: [SMALL, LARGE] });
  const node = await fleet.node({ ...settings(fleet, objects), log: { level: 'debug' }, ...options });
  assert.equal((await node.get('/v2/org/app/manifests/1')).status, 200);
  const [large, small] = [LARGE, SMALL].map((size) => image.blobs.find(({ length }) => length === size));
  assert.ok(large && small);
  for (const blob of [large, small]) assert.equal((await node.get(pathOf(blob))).status, 200);
  await node.uploaded();
  return { fleet, node, large, path: pathOf(large), small };
}

function pathOf(blob: Buffer, repository = 'org/app'): string {
  return `/v2/${repository}/blobs/${digestOf(blob)}`;
}

function objectName(blob: Buffer): string {
  const hex = digestOf(blob).slice('sha256:'.length);
  return `${PREFIX}blobs/sha256/${hex.slice(0, 2)}/${hex}`;
}

function locationOf(reply: TestReply): string {
  assert.equal(reply.status, 307, reply.body.toString());
  return String(reply.headers['location']);
}

/** Reads of the whole object. */
function wholeReads({ bucket }: TestFleet, blob: Buffer): number {
  const reads = bucket.requests.filter(
    ({ operation, name }) => operation === 'get' && name === objectName(blob),
  );
  return reads.filter(({ range, presigned }) => range === undefined && presigned !== true).length;
}

/** Asks until the answer is a redirect: whatever is needed for it happens in the background. */
async function untilRedirected(node: FleetNode, path: string): Promise<void> {
  while ((await node.get(path)).status !== 307);
}

test('a stored blob of redirectAbove and more is redirected to the store for 15 minutes, and no cache may keep that', async (t) => {
  const { node, large, path } = await redirecting(t);
  const reply = await node.get(path);
  const url = locationOf(reply);
  assert.equal(reply.headers['cache-control'], 'no-store');
  assert.equal(reply.headers['cache-status'], 'millpond; hit; detail=redirect');
  assert.equal(reply.headers['docker-content-digest'], digestOf(large));
  assert.equal(reply.body.length, 0);
  assert.equal(new URL(url).searchParams.get('X-Amz-Expires'), '900');
  assert.ok(Buffer.from(await (await fetch(url)).arrayBuffer()).equals(large));
});

test('a client that asks for a range is redirected, and gets the range by asking for it there', async (t) => {
  const { node, large, path } = await redirecting(t);
  const headers = { range: 'bytes=1000-1999' };
  const part = await fetch(locationOf(await node.get(path, headers)), { headers });
  assert.equal(part.status, 206);
  assert.ok(Buffer.from(await part.arrayBuffer()).equals(large.subarray(1000, 2000)));
});

test('what is cold, small, a manifest, or asked for by HEAD or with a condition is answered from here', async (t) => {
  const { fleet, node, large, path, small } = await redirecting(t);
  const cold = noise(LARGE, 'cold');
  fleet.upstream.addContent(cold);
  const etag = `"${digestOf(large)}"`;
  assert.ok((await node.get(pathOf(cold))).body.equals(cold));
  assert.ok((await node.get(pathOf(small))).body.equals(small));
  assert.equal((await node.get('/v2/org/app/manifests/1')).status, 200);
  const head = await node.head(path);
  assert.deepEqual([head.status, head.headers['content-length']], [200, String(LARGE)]);
  assert.equal((await node.get(path, { 'if-none-match': etag })).status, 304);
  assert.equal((await node.get(path, { range: `bytes=${LARGE}-` })).status, 416);
  const resumed = await node.get(path, { range: 'bytes=10-', 'if-range': etag });
  assert.deepEqual([resumed.status, resumed.body.length], [206, LARGE - 10]);
});

test('without redirectAbove nothing is redirected, and a hit asks the store nothing', async (t) => {
  const { node, large, path, fleet } = await redirecting(t, { objects: {} });
  const asked = fleet.bucket.requests.length;
  assert.ok((await node.get(path)).body.equals(large));
  assert.equal(fleet.bucket.requests.length, asked);
});

test('only clients of redirectFor are redirected', async (t) => {
  const { node, path } = await redirecting(t, {
    objects: { redirectAbove: '200KiB', redirectFor: ['10.0.0.0/8', '2001:db8::/32'] },
    server: { trustedProxies: ['127.0.0.1'] },
  });
  const statusFor = async (client: string) => (await node.get(path, { 'x-forwarded-for': client })).status;
  assert.equal(await statusFor('10.1.2.3'), 307);
  assert.equal(await statusFor('2001:db8::1'), 307);
  assert.equal(await statusFor('192.0.2.1'), 200);
  assert.equal((await node.get(path)).status, 200, 'a client that is not known');
});

test('a node that has not uploaded a blob reads it whole from the store before it redirects to it', async (t) => {
  const { fleet, large, path } = await redirecting(t);
  const b = await fleet.node(settings(fleet));
  assert.equal((await b.get('/v2/org/app/manifests/1')).status, 200);
  assert.ok((await b.get(path)).body.equals(large));
  await b.uploaded();
  assert.equal(await b.metric('millpond_fleet_redirects_total'), 0, 'a cold blob is not looked at');
  const reads = wholeReads(fleet, large);
  const first = await b.get(path);
  assert.ok(first.status === 200 && first.body.equals(large));
  await untilRedirected(b, path);
  assert.equal(wholeReads(fleet, large) - reads, 1);
  assert.ok((await b.metric('millpond_fleet_redirects_total', { result: 'unverified' })) > 0);
});

test('an object that a node knows only from a list of the store is not redirected to before it was read', async (t) => {
  const fleet = await TestFleet.start(t);
  const layers = [LARGE, ...Array.from({ length: 21 }, (_, at) => 1000 + at)];
  const image = fleet.upstream.addImage('org/app', '1', { layers });
  const large = image.blobs.find(({ length }) => length === LARGE) ?? Buffer.alloc(0);
  const pullAll = async (node: TestMirror) => {
    assert.equal((await node.get('/v2/org/app/manifests/1')).status, 200);
    for (const blob of image.blobs) assert.equal((await node.get(pathOf(blob))).status, 200);
  };
  const alone = await startMirror(t, { upstreams: { 'docker.io': fleet.upstream.url } });
  await pullAll(alone);
  await alone.idle();
  await alone.app.close();
  const a = await fleet.node();
  await pullAll(a);
  await a.uploaded();
  fleet.bucket.objects.set(objectName(large), { bytes: noise(LARGE, 'wrong'), writtenAt: new Date() });
  const reads = wholeReads(fleet, large);
  const joined = await fleet.node({ ...settings(fleet), directory: alone.directory });
  await joined.uploaded();
  assert.equal(wholeReads(fleet, large), reads, 'it was not read');
  const reply = await joined.get(pathOf(large));
  assert.ok(reply.status === 200 && reply.body.equals(large));
});

test('an object that was tampered with is not redirected to once a minute has passed, and is replaced', async (t) => {
  const { fleet, node, large, path } = await redirecting(t);
  locationOf(await node.get(path));
  fleet.bucket.objects.set(objectName(large), { bytes: noise(LARGE, 'wrong'), writtenAt: new Date() });
  node.clock.advance(MINUTE_MS);
  const reply = await node.get(path);
  assert.ok(reply.status === 200 && reply.body.equals(large));
  while ((await node.metric('millpond_content_rejected_total', { upstream: 'fleet store' })) === 0);
  await node.uploaded();
  const isRight = () => fleet.bucket.objects.get(objectName(large))?.bytes.equals(large) === true;
  while (!isRight()) await setImmediate();
  assert.equal((await node.get(path)).status, 200, 'what was wrong is not trusted for a minute');
  node.clock.advance(MINUTE_MS);
  await untilRedirected(node, path);
});

test('an object that was deleted is not redirected to once a minute has passed, and is uploaded again', async (t) => {
  const { fleet, node, large, path } = await redirecting(t);
  locationOf(await node.get(path));
  fleet.bucket.objects.delete(objectName(large));
  node.clock.advance(MINUTE_MS);
  const reply = await node.get(path);
  assert.ok(reply.status === 200 && reply.body.equals(large));
  await untilRedirected(node, path);
  assert.ok(fleet.bucket.objects.get(objectName(large))?.bytes.equals(large));
});

test('an archived object is not redirected to', async (t) => {
  const { fleet, node, large, path } = await redirecting(t);
  fleet.bucket.script(({ name }, reply) => {
    if (name === objectName(large)) reply.fails = { status: 403, code: 'InvalidObjectState' };
  });
  assert.ok((await node.get(path)).body.equals(large));
});

test('a hundred requests for a blob within a minute cost one request to the store', async (t) => {
  const { fleet, node, large, path } = await redirecting(t);
  const asked = fleet.bucket.count('get', objectName(large));
  const replies = await Promise.all(Array.from({ length: 100 }, () => node.get(path)));
  node.clock.advance(MINUTE_MS - 1);
  replies.push(await node.get(path));
  assert.ok(replies.every(({ status }) => status === 307));
  assert.equal(fleet.bucket.count('get', objectName(large)) - asked, 1);
  assert.equal(await node.metric('millpond_fleet_redirects_total', { result: 'redirected' }), 101);
});

test('while the store is away or slow, blobs are sent from here', async (t) => {
  const { fleet, node, large, path } = await redirecting(t);
  fleet.bucket.script((_, reply) => {
    reply.hangs = true;
  });
  for (let failures = 0; failures < 3; failures += 1) {
    const asked = fleet.bucket.requests.length;
    const reply = node.get(path);
    while (fleet.bucket.requests.length === asked) await setImmediate();
    node.clock.advance(DEADLINE_MS);
    assert.ok((await reply).body.equals(large));
  }
  const asked = fleet.bucket.requests.length;
  assert.ok((await node.get(path)).body.equals(large));
  assert.equal(fleet.bucket.requests.length, asked, 'nobody waits for it after three failures');
  assert.equal(await node.metric('millpond_fleet_redirects_total', { result: 'unavailable' }), 4);
});

test('a store that has failed since it was asked is not redirected to', async (t) => {
  const { fleet, node, large, path, small } = await redirecting(t);
  locationOf(await node.get(path));
  fleet.bucket.script((_, reply) => {
    reply.fails = { status: 503, code: 'SlowDown' };
  });
  for (let failures = 0; failures < 3; failures += 1) {
    const cold = noise(1000, `cold ${failures}`);
    fleet.upstream.addContent(cold);
    await node.get(pathOf(cold));
  }
  assert.equal(await node.metric('millpond_fleet_up', { engine: 'objects' }), 0);
  assert.ok((await node.get(path)).body.equals(large));
  assert.ok((await node.get(pathOf(small))).body.equals(small));
});

test('a digest is redirected to for no other repository without upstream’s word', async (t) => {
  const { fleet, node, large, path } = await redirecting(t);
  locationOf(await node.get(path));
  fleet.upstream.script({ path: /org\/other/ }, (reply) => {
    reply.status = 404;
  });
  const refused = await node.get(pathOf(large, 'org/other'));
  assert.deepEqual([refused.status, refused.headers['location']], [404, undefined]);
  fleet.upstream.clearScripts();
  locationOf(await node.get(pathOf(large, 'org/other')));
});

test('what access rules or policies refuse is not redirected', async (t) => {
  const { fleet, node, path } = await redirecting(t);
  await node.app.close();
  const { directory } = node;
  const locked = await fleet.node({
    ...settings(fleet),
    directory,
    access: { rules: [{ who: 'anonymous', pull: 'docker.io/org/public' }] },
  });
  assert.equal((await locked.get(path)).status, 401);
  await locked.app.close();
  const denied = await fleet.node({
    ...settings(fleet),
    directory,
    policies: [{ name: 'no-app', deny: { repositories: ['docker.io/org/app'] } }],
  });
  const reply = await denied.get(path);
  assert.deepEqual([reply.status, reply.headers['location']], [403, undefined]);
});

test('the address in a redirect is in no log', async (t) => {
  const { fleet, node, path } = await redirecting(t);
  const url = new URL(locationOf(await node.get(path)));
  fleet.bucket.script((_, reply) => {
    reply.fails = { status: 400, code: 'Strange' };
  });
  node.clock.advance(MINUTE_MS);
  assert.equal((await node.get(path)).status, 200);
  const lines = node.log.filter(({ kind, status }) => kind === 'blob' && status === 307);
  assert.deepEqual(
    lines.map(({ cache, bytes }) => [cache, bytes]),
    [['hit', 0]],
  );
  const log = JSON.stringify(node.log);
  for (const part of [url.host + url.pathname, 'X-Amz', url.searchParams.get('X-Amz-Signature')])
    assert.ok(!log.includes(String(part)), String(part));
});

test('a redirect counts as a use: what was used before it is evicted before the blob', async (t) => {
  const { fleet, node, path } = await redirecting(t, { cache: { maxSize: '800KiB', keepFree: '0B' } });
  const [other, cold] = ['other', 'cold'].map((seed) =>
    fleet.upstream.addImage(`org/${seed}`, '1', { layers: [LARGE], seed }),
  );
  assert.ok(other && cold);
  const largeOf = ({ blobs }: TestImage, repository: string) =>
    pathOf(blobs.find(({ length }) => length === LARGE) ?? Buffer.alloc(0), repository);
  const get = async (path: string) => {
    node.clock.advance(1); // the time of the last use is kept in milliseconds
    return (await node.get(path)).headers['cache-status'];
  };
  await get('/v2/org/other/manifests/1');
  await get(largeOf(other, 'org/other'));
  await node.uploaded();
  assert.equal(await get(path), 'millpond; hit; detail=redirect');
  await get('/v2/org/cold/manifests/1');
  await get(largeOf(cold, 'org/cold')); // has no room beside both
  while ((await node.metric('millpond_evicted_bytes_total')) < LARGE);
  assert.equal(await get(path), 'millpond; hit; detail=redirect');
  assert.doesNotMatch(String(await get(largeOf(other, 'org/other'))), /hit/);
});

test('a node reads one blob at a time from the store, and ends at once when it is stopped meanwhile', async (t) => {
  const { fleet, node, large, path } = await redirecting(t);
  const other = noise(LARGE, 'other');
  fleet.upstream.addContent(other);
  await node.get(pathOf(other));
  await node.uploaded();
  const b = await fleet.node(settings(fleet));
  for (const one of [path, pathOf(other)]) await b.get(one);
  await b.uploaded();
  const reads = [large, other].map((blob) => wholeReads(fleet, blob));
  fleet.bucket.script(({ range }, reply) => {
    if (range === undefined) reply.stallsAfter = 1000;
  });
  assert.equal((await b.get(path)).status, 200);
  while (wholeReads(fleet, large) === reads[0]) await setImmediate();
  assert.equal((await b.get(pathOf(other))).status, 200);
  assert.equal(await b.metric('millpond_fleet_redirects_total', { result: 'unverified' }), 2);
  await b.app.close();
  assert.equal(wholeReads(fleet, other), reads[1]);
});

test('a redirect is signed by the clock of the store, so that it works where the clock of a node is wrong', async (t) => {
  const { fleet, node, path } = await redirecting(t);
  fleet.bucket.clockAheadMs = 60 * MINUTE_MS;
  const signed = new URL(locationOf(await node.get(path))).searchParams.get('X-Amz-Date') ?? '';
  const [, hour = '', minute = '', second = ''] = /^20260101T(\d\d)(\d\d)(\d\d)Z$/.exec(signed) ?? [];
  // The store tells its time in whole seconds.
  assert.equal(Math.round(Number(hour) * 60 + Number(minute) + Number(second) / 60), 60, signed);
});

test('redirectFor without redirectAbove is a mistake', async (t) => {
  await assert.rejects(redirecting(t, { objects: { redirectFor: ['10.0.0.0/8'] } }), /redirectAbove/);
});
