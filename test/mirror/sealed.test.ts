import assert from 'node:assert/strict';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { request } from 'undici';
import { digestOf } from '../../src/oci/digest.ts';
import { selfSigned } from '../helpers/certificates.ts';
import { noise } from '../helpers/images.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { startMirror, type TestMirror } from '../helpers/start-mirror.ts';
import { tempDir } from '../helpers/temp-dir.ts';

const YEAR = 365 * 24 * 3_600_000;

test('sealed: what is cached is served, however old; what is not is a 404 that says why; and no connection is opened', async (t) => {
  const upstream = await ScriptedUpstream.start(t, { auth: {} });
  const image = upstream.addImage('a/b', '1', { layers: [5000] });
  const upstreams = { 'docker.io': upstream.url };
  const open = await startMirror(t, { upstreams });
  const layer = digestOf(image.blobs[1] ?? Buffer.alloc(0));
  await open.get('/v2/a/b/manifests/1');
  await open.get(`/v2/a/b/blobs/${layer}`);
  await open.app.close();
  const before = upstream.totalConnections + (upstream.tokens?.requests.length ?? 0);

  const { directory, clock } = open;
  const sealed = await startMirror(t, { upstreams, directory, clock, sealed: true });
  clock.advance(YEAR);
  const stale = await sealed.get('/v2/a/b/manifests/1');
  assert.deepEqual([stale.status, stale.body], [200, image.top.bytes]);
  assert.equal((await sealed.get(`/v2/a/b/blobs/${layer}`)).headers['cache-status'], 'millpond; hit');
  for (const path of [
    '/v2/a/b/manifests/2',
    '/v2/other/repo/manifests/1',
    `/v2/other/repo/blobs/${layer}`,
    '/v2/a/b/tags/list',
    `/v2/a/b/referrers/${image.top.digest}`,
    `/v2/a/b/blobs/${digestOf(Buffer.from('not cached'))}`,
  ]) {
    for (const method of ['GET', 'HEAD']) assert.equal((await sealed.send(method, path)).status, 404, path);
    assert.match((await sealed.get(path)).body.toString(), /this mirror is sealed/, path);
  }
  assert.equal(upstream.totalConnections + (upstream.tokens?.requests.length ?? 0), before);
});

test('sealed at run time: what is under way is broken off, every connection is closed, and none is opened until it is unsealed', async (t) => {
  const upstream = await ScriptedUpstream.start(t, { auth: {} });
  const image = upstream.addImage('a/b', '1', { layers: [5000] });
  const large = upstream.addContent(noise(3_000_000, 'large'));
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  await mirror.get('/v2/a/b/manifests/1');
  const never = Promise.withResolvers<void>();
  upstream.script({ kind: 'blob' }, (reply) => {
    reply.stall = { after: 2_000_000, until: never.promise };
  });
  const half = Promise.withResolvers<void>();
  const cut = assert.rejects(pullNoting(mirror, `/v2/a/b/blobs/${large}`, 1_500_000, half.resolve));
  await half.promise;
  assert.deepEqual(await operate(mirror, 'seal'), { sealed: true });
  await cut;
  await Promise.all(upstream.requests.map(({ done }) => done));
  while (upstream.openConnections.size > 0) await setImmediate();

  const before = upstream.totalConnections;
  const tokensBefore = upstream.tokens?.requests.length;
  mirror.clock.advance(YEAR);
  assert.deepEqual((await mirror.get('/v2/a/b/manifests/1')).body, image.top.bytes);
  for (const path of ['/v2/a/b/manifests/2', '/v2/a/b/tags/list', `/v2/a/b/blobs/${large}`]) {
    assert.equal((await mirror.get(path)).status, 404, path);
  }
  const status = await request(`${mirror.operationsUrl}/api/status`);
  assert.equal(((await status.body.json()) as { sealed: boolean }).sealed, true);
  assert.deepEqual([upstream.totalConnections, upstream.tokens?.requests.length], [before, tokensBefore]);

  upstream.clearScripts();
  assert.deepEqual(await operate(mirror, 'unseal'), { sealed: false });
  assert.equal((await mirror.get(`/v2/a/b/blobs/${large}`)).status, 200);
  assert.ok(upstream.requests.at(-1)?.headers.range !== undefined, 'from where it was broken off');
});

test('a mirror that was configured as sealed can be opened, and one whose CA is gone stays as it was', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  upstream.addImage('a/b', '1');
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url }, sealed: true });
  assert.equal((await mirror.get('/v2/a/b/manifests/1')).status, 404);
  await operate(mirror, 'unseal');
  assert.equal((await mirror.get('/v2/a/b/manifests/1')).status, 200);

  const directory = await tempDir(t);
  const ca = join(directory, 'ca.pem');
  await writeFile(ca, selfSigned('localhost').cert);
  const other = await startMirror(t, {
    upstreams: { 'docker.io': { url: upstream.url, ca } },
    sealed: true,
    directory,
  });
  await rm(ca);
  const reply = await request(`${other.operationsUrl}/api/unseal`, { method: 'POST' });
  assert.equal(reply.statusCode, 500);
  assert.match(await reply.body.text(), /ENOENT/);
  assert.equal((await other.get('/v2/a/b/manifests/1')).status, 404);
});

/** Pulls, and calls `tell` when `bytes` have arrived. */
async function pullNoting(mirror: TestMirror, path: string, bytes: number, tell: () => void): Promise<void> {
  let received = 0;
  const reply = await request(`${mirror.url}${path}`);
  for await (const chunk of reply.body as AsyncIterable<Buffer>) {
    received += chunk.length;
    if (received >= bytes) tell();
  }
}

async function operate(mirror: TestMirror, what: 'seal' | 'unseal'): Promise<unknown> {
  const reply = await request(`${mirror.operationsUrl}/api/${what}`, { method: 'POST' });
  assert.equal(reply.statusCode, 200);
  return reply.body.json();
}
