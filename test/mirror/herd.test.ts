import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { Agent } from 'undici';
import { digestOf } from '../../src/oci/digest.ts';
import { cleanUp } from '../helpers/cleanup.ts';
import { noise } from '../helpers/images.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { startMirror } from '../helpers/start-mirror.ts';

const MIB = 1024 * 1024;

test('50 clients on different routes cost one upstream GET, and have their first byte while the fill still runs', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const blob = noise(32 * MIB, 'herd');
  const digest = upstream.addContent(blob);
  const rest = Promise.withResolvers<void>();
  upstream.script({ kind: 'blob' }, (reply) => {
    reply.stall = { after: 8 * MIB, until: rest.promise };
  });
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  const client = new Agent({ connections: 100 });
  cleanUp(t, () => client.destroy());
  const routes = [
    '/v2/library/herd/blobs/',
    '/v2/herd/blobs/',
    '/v2/docker.io/library/herd/blobs/',
    '/docker.io/v2/library/herd/blobs/',
    '/v2/library/herd/blobs/',
  ];
  const replies = await Promise.all(
    Array.from({ length: 50 }, (_, at) => {
      const path = `${routes[at % routes.length]}${digest}${at % 2 === 0 ? '?ns=docker.io' : ''}`;
      return client.request({ origin: mirror.url, path, method: 'GET' });
    }),
  );
  const readers = replies.map((reply) => reply.body[Symbol.asyncIterator]() as AsyncIterator<Buffer>);
  const firsts = await Promise.all(readers.map((reader) => reader.next()));
  assert.ok(firsts.every(({ value }) => (value as Buffer).length > 0));
  assert.ok(upstream.blobBytesSent() <= 8 * MIB, 'the fill is not over yet');
  rest.resolve();
  const digests = await Promise.all(
    readers.map(async (reader, at) => {
      const hash = createHash('sha256').update(firsts[at]?.value as Buffer);
      for (let step = await reader.next(); step.done !== true; step = await reader.next())
        hash.update(step.value);
      return `sha256:${hash.digest('hex')}`;
    }),
  );
  assert.deepEqual(new Set(digests), new Set([digest]));
  assert.equal(upstream.count('blob', 'GET'), 1);
  const statuses = replies.map((reply) => String(reply.headers['cache-status']));
  assert.equal(statuses.filter((status) => status === 'millpond; fwd=uri-miss; stored').length, 1);
  assert.equal(statuses.filter((status) => status === 'millpond; fwd=uri-miss; collapsed').length, 49);
});

test('50 clients asking for one cold tag cost one upstream GET', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const image = upstream.addImage('org/app', 'latest');
  const gate = Promise.withResolvers<void>();
  upstream.script({ kind: 'manifest' }, (reply) => {
    reply.delay = gate.promise;
  });
  const mirror = await startMirror(t, { upstreams: { 'quay.io': upstream.url } });
  const pulls = Array.from({ length: 50 }, () => mirror.get('/v2/org/app/manifests/latest'));
  await upstream.waitFor(({ kind }) => kind === 'manifest');
  await setImmediate();
  gate.resolve();
  for (const { body } of await Promise.all(pulls)) assert.deepEqual(body, image.top.bytes);
  assert.equal(upstream.requests.length, 1);
});

test('50 clients behind one token server cost one token', async (t) => {
  const upstream = await ScriptedUpstream.start(t, { auth: {} });
  const image = upstream.addImage('org/app', 'latest', {
    layers: Array.from({ length: 49 }, (_, at) => 1000 + at),
  });
  const mirror = await startMirror(t, { upstreams: { 'quay.io': upstream.url } });
  const replies = await Promise.all(
    image.blobs.map((blob) => mirror.get(`/v2/org/app/blobs/${digestOf(blob)}`)),
  );
  assert.ok(replies.every(({ status }) => status === 200));
  assert.equal(upstream.tokens?.requests.length, 1);
});

test('the fetch goes on when the client that began it leaves, and so when all have left', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const blob = noise(4 * MIB, 'leaving');
  const digest = upstream.addContent(blob);
  const rest = Promise.withResolvers<void>();
  upstream.script({ kind: 'blob' }, (reply) => {
    reply.stall = { after: MIB, until: rest.promise };
  });
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  const client = new Agent();
  cleanUp(t, () => client.destroy());
  const path = `/v2/a/b/blobs/${digest}`;
  const first = await client.request({ origin: mirror.url, path, method: 'GET' });
  const second = await client.request({ origin: mirror.url, path, method: 'GET' });
  first.body.on('error', () => undefined).destroy();
  const begun = (second.body[Symbol.asyncIterator]() as AsyncIterator<Buffer>).next();
  assert.ok(((await begun).value as Buffer).length > 0);
  second.body.on('error', () => undefined).destroy();
  rest.resolve();
  const reply = await mirror.get(path);
  assert.deepEqual(reply.body, blob);
  assert.equal(upstream.count('blob', 'GET'), 1);
});

test('a slow client does not hold back a fast one', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const blob = noise(16 * MIB, 'slow');
  const digest = upstream.addContent(blob);
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  const client = new Agent();
  cleanUp(t, () => client.destroy());
  const path = `/v2/a/b/blobs/${digest}`;
  // It has its headers and then never reads.
  const slow = await client.request({ origin: mirror.url, path, method: 'GET' });
  const fast = await mirror.get(path);
  assert.deepEqual(fast.body, blob);
  assert.deepEqual(digestOf(Buffer.concat(await drain(slow.body[Symbol.asyncIterator]()))), digest);
  assert.equal(upstream.count('blob', 'GET'), 1);
});

test('every waiter of a failed fetch gets its error, and the next request asks again', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const digest = upstream.addContent(Buffer.from('later'));
  upstream.script({ kind: 'blob' }, (reply) => {
    reply.status = 403;
  });
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  const pulls = Array.from({ length: 10 }, () => mirror.get(`/v2/a/b/blobs/${digest}`));
  for (const { status, error } of await Promise.all(pulls))
    assert.deepEqual([status, error], [403, 'DENIED']);
  upstream.clearScripts();
  assert.equal((await mirror.get(`/v2/a/b/blobs/${digest}`)).status, 200);
});

test('HEAD, GET and ranged GET of one cold blob together cost one body', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const blob = noise(2 * MIB, 'together');
  const digest = upstream.addContent(blob);
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  const path = `/v2/a/b/blobs/${digest}`;
  const [head, whole, range] = await Promise.all([
    mirror.head(path),
    mirror.get(path),
    mirror.get(path, { range: 'bytes=100-199' }),
  ]);
  assert.equal(head.headers['content-length'], String(blob.length));
  assert.deepEqual(whole.body, blob);
  assert.deepEqual([range.status, range.body], [206, blob.subarray(100, 200)]);
  assert.equal(upstream.count('blob', 'GET'), 1);
});

async function drain(reader: AsyncIterator<Buffer>): Promise<Buffer[]> {
  const pieces: Buffer[] = [];
  for (let step = await reader.next(); step.done !== true; step = await reader.next())
    pieces.push(step.value);
  return pieces;
}

test('pulls that follow hard on each other are never fetched twice, nor read from a file that is closed', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const digests = Array.from({ length: 100 }, (_, at) => upstream.addContent(Buffer.from(`tiny ${at}`)));
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  await Promise.all(
    digests.map(async (digest) => {
      for (let pull = 0; pull < 10; pull += 1) {
        const reply = await mirror.get(`/v2/a/b/blobs/${digest}`);
        assert.equal(digestOf(reply.body), digest);
      }
    }),
  );
  assert.equal(upstream.count('blob', 'GET'), 100);
  assert.equal(await mirror.metric('millpond_storage_errors_total'), 0);
});
