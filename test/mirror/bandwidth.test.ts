import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { Agent, request } from 'undici';
import { digestOf } from '../../src/oci/digest.ts';
import { OCI_MANIFEST } from '../../src/oci/manifest.ts';
import { cleanUp } from '../helpers/cleanup.ts';
import { FailingFileSystem } from '../helpers/failing-file-system.ts';
import { noise } from '../helpers/images.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { type MirrorOptions, startMirror, type TestMirror } from '../helpers/start-mirror.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
const WAIT = 'millpond_upstream_bandwidth_wait_seconds_total';
const RECEIVED = 'millpond_upstream_bytes_total';

/** A mirror of one upstream with `maxBandwidth: 1KiB`. */
async function setUp(
  t: TestContext,
  settings: Record<string, unknown> = {},
  options: Partial<MirrorOptions> = {},
) {
  const upstream = await ScriptedUpstream.start(t);
  const mirror = await startMirror(t, {
    upstreams: { 'docker.io': { url: upstream.url, maxBandwidth: '1KiB', ...settings } },
    ...options,
  });
  const blob = (size: number, seed: string) => {
    const bytes = noise(size, seed);
    return { bytes, path: `/v2/org/app/blobs/${upstream.addContent(bytes)}` };
  };
  return { upstream, mirror, blob };
}

/** Seconds on the clock of the mirror for `work`, of which nothing but the limit takes any. */
async function secondsOf({ clock }: TestMirror, work: () => Promise<unknown>): Promise<number> {
  const before = clock.now();
  await work();
  return (clock.now() - before) / 1000;
}

function assertNear(actual: number, expected: number): void {
  assert.ok(actual > expected * 0.95 && actual < expected * 1.05, `${actual} instead of ${expected}`);
}

/** Moves the clock in steps that a limit notices, and lets the mirror work in between. */
async function pass({ clock }: TestMirror, seconds: number): Promise<void> {
  for (let ms = 0; ms < seconds * 1000; ms += 5) {
    clock.advance(5);
    await setImmediate();
    await setImmediate();
  }
}

/** Begins a pull that the test can break off. */
function begin(t: TestContext, mirror: TestMirror, path: string) {
  const client = new Agent();
  cleanUp(t, () => client.destroy());
  const done = request(`${mirror.url}${path}`, { dispatcher: client }).then(({ body }) =>
    body.dump({ limit: 1e9 }),
  );
  done.catch(() => undefined);
  return { done, leave: () => client.destroy() };
}

/** Warms an image, in the background of the test. */
function warm(t: TestContext, mirror: TestMirror, image: string): void {
  const client = new Agent({ bodyTimeout: 0, headersTimeout: 0 });
  cleanUp(t, () => client.destroy());
  const body = JSON.stringify({ images: [image] });
  request(`${mirror.operationsUrl}/api/warm`, { method: 'POST', body, dispatcher: client })
    .then((reply) => reply.body.dump({ limit: 1e9 }))
    .catch(() => undefined);
}

test('with 1 KiB a second a blob takes its time, arrives, and nothing looks like an outage', async (t) => {
  const { upstream, mirror, blob } = await setUp(t);
  const { bytes, path } = blob(300 * KIB, 'slow');
  const seconds = await secondsOf(mirror, async () => assert.ok((await mirror.get(path)).body.equals(bytes)));
  assertNear(seconds, 300);
  assertNear(await mirror.metric(WAIT, { upstream: 'docker.io' }), 300);
  assert.equal(upstream.count('blob', 'GET'), 1);
  assert.equal(await mirror.metric('millpond_ingest_resumes_total'), 0);
  assert.equal(await mirror.metric('millpond_upstream_up'), 1);
  assert.deepEqual(
    mirror.log.filter(({ level }) => level !== 'info'),
    [],
  );
});

test('a pull that bypasses a disk that fails keeps to the limit', async (t) => {
  const disk = new FailingFileSystem();
  const { mirror, blob } = await setUp(t, {}, { fileSystem: disk.fileSystem });
  const { bytes, path } = blob(100 * KIB, 'bypass');
  disk.fail('open', 'ENOSPC');
  const seconds = await secondsOf(mirror, async () => assert.ok((await mirror.get(path)).body.equals(bytes)));
  assertNear(seconds, 100);
});

test('bytes that are not needed count, too: of an upstream that ignores Range', async (t) => {
  const { upstream, mirror, blob } = await setUp(t);
  const { bytes, path } = blob(400 * KIB, 'ignored');
  upstream.script(
    { kind: 'blob' },
    (reply) => {
      reply.cutAfter = 256 * KIB;
    },
    { times: 1 },
  );
  upstream.script({ kind: 'blob' }, (reply) => {
    if (reply.status !== 206) return;
    const headers = { ...reply.headers, 'content-range': undefined, 'content-length': String(bytes.length) };
    Object.assign(reply, { status: 200, headers, start: 0, end: bytes.length });
  });
  const seconds = await secondsOf(mirror, async () => assert.ok((await mirror.get(path)).body.equals(bytes)));
  const received = await mirror.metric(RECEIVED, { kind: 'blob' });
  assert.ok(received > bytes.length);
  assertNear(seconds, received / KIB);
});

test('a manifest does not wait for the limit, and blobs make room for it', async (t) => {
  const { upstream, mirror, blob } = await setUp(t);
  const config = { digest: digestOf(Buffer.from('{}')), size: 2, mediaType: 'c' };
  const annotations = { filler: 'x'.repeat(8 * KIB) };
  const manifest = { schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers: [], annotations };
  upstream.addManifest('org/app', Buffer.from(JSON.stringify(manifest)), OCI_MANIFEST, 'latest');
  const { path } = blob(100, 'after');
  const pulled = () => mirror.get('/v2/org/app/manifests/latest');
  assert.equal(await secondsOf(mirror, async () => assert.equal((await pulled()).status, 200)), 0);
  assertNear(await secondsOf(mirror, () => mirror.get(path)), 8.1);
});

test('while a client waits, what is warmed has a tenth; a client that joins it makes it a pull like any other', async (t) => {
  const [hub, quay] = [await ScriptedUpstream.start(t), await ScriptedUpstream.start(t)];
  const mirror = await startMirror(t, {
    upstreams: { 'docker.io': hub.url, 'quay.io': quay.url },
    server: { maxUpstreamBandwidth: '1MiB' },
  });
  const pulled = `/v2/org/app/blobs/${hub.addContent(noise(32 * MIB, 'pulled'))}`;
  const image = quay.addImage('org/app', 'latest', { layers: [32 * MIB] });
  const warmed = `/v2/org/app/blobs/${digestOf(image.blobs[1] ?? assert.fail())}?ns=quay.io`;
  mirror.clock.impatient = false;
  cleanUp(t, () => {
    mirror.clock.impatient = true;
  });
  const fetchedIn = async (seconds: number) => {
    const received = () =>
      Promise.all(
        ['docker.io', 'quay.io'].map((upstream) => mirror.metric(RECEIVED, { upstream, kind: 'blob' })),
      );
    const before = await received();
    await pass(mirror, seconds);
    return (await received()).map((bytes, at) => (bytes - (before[at] ?? 0)) / (seconds * MIB));
  };
  warm(t, mirror, 'quay.io/org/app:latest');
  await quay.waitForBytes(64 * KIB);
  const [, alone = 0] = await fetchedIn(4);
  assert.ok(alone > 0.85, `alone ${alone}`);
  begin(t, mirror, pulled);
  await hub.waitForBytes(64 * KIB);
  const [client = 0, background = 1] = await fetchedIn(4);
  assert.ok(client > 0.8 && background < 0.13, `client ${client}, background ${background}`);
  const joined = begin(t, mirror, warmed);
  while ((await mirror.metric('millpond_ingest_followers')) < 3) await setImmediate();
  const shares = await fetchedIn(4);
  assert.ok(
    shares.every((share) => share > 0.4 && share < 0.55),
    `joined ${shares.join(', ')}`,
  );
  await joined.leave();
  while ((await mirror.metric('millpond_ingest_followers')) > 2) await setImmediate();
  const [, left = 1] = await fetchedIn(4);
  assert.ok(left < 0.13, `left ${left}`);
});

test('a connection that the limit holds is not slow, and gets no company', async (t) => {
  const { upstream, mirror } = await setUp(t);
  const blob = noise(80 * MIB, 'segments');
  const digest = upstream.addContent(blob);
  const config = { digest: digestOf(Buffer.from('{}')), size: 2, mediaType: 'c' };
  const layers = [{ digest, size: blob.length, mediaType: 'l' }];
  const manifest = JSON.stringify({ schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers });
  upstream.addManifest('org/app', Buffer.from(manifest), OCI_MANIFEST, 'latest');
  await mirror.get('/v2/org/app/manifests/latest');
  mirror.clock.impatient = false;
  begin(t, mirror, `/v2/org/app/blobs/${digest}`);
  await upstream.waitForBytes(MIB);
  await mirror.clock.waited();
  await pass(mirror, 10);
  assert.equal(upstream.count('blob', 'GET'), 1);
});

test('a body that waits for the limit longer than bodyTimeout is read on', async (t) => {
  const { upstream, mirror, blob } = await setUp(t, { bodyTimeout: '50ms' });
  const held = blob(MIB, 'held');
  const silent = blob(100, 'silent');
  mirror.clock.impatient = false;
  const pull = mirror.get(held.path);
  await upstream.waitForBytes(256 * KIB);
  await mirror.clock.waited();
  // The second blob shows when 50 ms of real time have passed in silence: its connection is given up then.
  const never = new Promise(() => undefined);
  upstream.script(
    { kind: 'blob', path: new RegExp(silent.path) },
    (reply) => {
      reply.stall = { after: 0, until: never };
    },
    { times: 1 },
  );
  const other = mirror.get(silent.path);
  await (await upstream.waitFor(({ path }) => path === silent.path)).done;
  mirror.clock.impatient = true;
  mirror.clock.advance(1000);
  assert.ok((await pull).body.equals(held.bytes));
  assert.ok((await other).body.equals(silent.bytes));
  assert.equal(upstream.requests.filter(({ path }) => path === held.path).length, 1);
});
