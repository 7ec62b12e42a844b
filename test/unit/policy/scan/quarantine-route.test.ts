import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { type TestContext, test } from 'node:test';
import { Agent, request } from 'undici';
import { digestOf } from '../../../../src/oci/digest.ts';
import { Patience } from '../../../../src/policy/parts/scan/limits/patience.ts';
import { QuarantineRoute } from '../../../../src/policy/parts/scan/quarantine/route.ts';
import { selfSigned } from '../../../helpers/certificates.ts';
import { cleanUp } from '../../../helpers/cleanup.ts';
import { FakeClock } from '../../../helpers/fake-clock.ts';
import { buildImage } from '../../../helpers/images.ts';
import { openRoute, silent, subjectOf, TestContent } from '../../../helpers/scans.ts';

const IMAGE = buildImage({ layers: [200_000, 10] });
const OTHER = buildImage({ layers: [300], seed: 'other' });

async function setUp(t: TestContext) {
  const route = await openRoute(t);
  const clock = new FakeClock();
  clock.impatient = false;
  const patience = new Patience(60_000, clock);
  cleanUp(t, () => patience[Symbol.dispose]());
  const content = new TestContent(IMAGE);
  const admitted = route.admit(subjectOf(IMAGE.top), content, patience);
  const base = `${admitted.url}/v2/${admitted.repository}`;
  const ask = async (path: string, options: { method?: 'GET' | 'HEAD' | 'PUT'; headers?: object } = {}) => {
    const { method = 'GET', headers = {} } = options;
    const reply = await request(`${base}/${path}`, {
      method,
      headers: { authorization: admitted.authorization, ...headers },
    });
    const body = Buffer.from(await reply.body.arrayBuffer());
    return { status: reply.statusCode, headers: reply.headers, body };
  };
  return { route, clock, patience, content, admitted, ask };
}

const [CONFIG, LAYER] = IMAGE.blobs.map((bytes) => digestOf(bytes));

test('a scan gets its manifest, config and layers by digest, byte for byte', async (t) => {
  const { ask, content } = await setUp(t);
  const manifest = await ask(`manifests/${IMAGE.top.digest}`);
  assert.deepEqual(manifest.body, IMAGE.top.bytes);
  assert.equal(manifest.headers['content-type'], IMAGE.top.mediaType);
  assert.equal(manifest.headers['docker-content-digest'], IMAGE.top.digest);
  for (const bytes of IMAGE.blobs) {
    const path = `blobs/${digestOf(bytes)}`;
    const head = await ask(path, { method: 'HEAD' });
    assert.deepEqual([head.status, head.body.length], [200, 0]);
    assert.equal(head.headers['content-length'], String(bytes.length));
    assert.deepEqual((await ask(path)).body, bytes);
    const part = await ask(path, { headers: { range: 'bytes=5-' } });
    assert.deepEqual([part.status, part.body], [206, bytes.subarray(5)]);
    assert.equal(part.headers['content-range'], `bytes 5-${bytes.length - 1}/${bytes.length}`);
  }
  assert.equal((await ask(`blobs/${CONFIG}`, { headers: { range: 'bytes=100000-' } })).status, 416);
  assert.equal(content.open, 0, 'every blob was closed');
});

test('it gets nothing else: no tag, no other digest, no blob as a manifest, no list, no write', async (t) => {
  const { ask, route, patience } = await setUp(t);
  using _ = route.admit(subjectOf(OTHER.top), new TestContent(OTHER), patience);
  for (const path of [
    ...['manifests/latest', `manifests/${OTHER.top.digest}`, `manifests/${CONFIG}`],
    ...[`blobs/${digestOf(OTHER.blobs[0] ?? Buffer.alloc(0))}`, `blobs/${IMAGE.top.digest}`],
    ...['tags/list', `referrers/${IMAGE.top.digest}`, `../org/app/manifests/${IMAGE.top.digest}`],
  ])
    assert.equal((await ask(path)).status, 404, path);
  assert.equal((await ask(`blobs/${CONFIG}`, { method: 'PUT' })).status, 405);
});

test('without its token, with a wrong one, or with one of a scan that is over it gets nothing', async (t) => {
  const { ask, admitted, route, patience, content } = await setUp(t);
  const path = `manifests/${IMAGE.top.digest}`;
  for (const authorization of [
    ...['', 'Basic', 'Basic !!', `Digest ${admitted.token}`, `Bearer ${admitted.token}x`, 'Bearer '],
    ...[`Basic ${Buffer.from(`other:${admitted.token}`).toString('base64')}`],
    ...[`Basic ${Buffer.from('scan:').toString('base64')}`],
  ]) {
    const reply = await ask(path, { headers: { authorization } });
    assert.equal(reply.status, 401, authorization);
    assert.match(String(reply.headers['www-authenticate']), /^Basic realm=/);
  }
  assert.equal((await ask(path, { headers: { authorization: `Bearer ${admitted.token}` } })).status, 200);
  const again = route.admit(subjectOf(IMAGE.top), content, patience);
  assert.notEqual(again.token, admitted.token);
  admitted[Symbol.dispose]();
  assert.equal((await ask(path)).status, 401);
  assert.equal((await ask(path, { headers: { authorization: again.authorization } })).status, 200);
});

test('the ping asks for Basic credentials, and is content with the token', async (t) => {
  const { admitted } = await setUp(t);
  const { authorization } = admitted;
  const without = await request(`${admitted.url}/v2/`);
  await without.body.dump();
  assert.equal(without.statusCode, 401);
  const reply = await request(`${admitted.url}/v2/`, { headers: { authorization } });
  assert.deepEqual([reply.statusCode, await reply.body.json()], [200, {}]);
});

test('a reply that is under way breaks off when the scan is over', async (t) => {
  const { admitted, content } = await setUp(t);
  const gate = Promise.withResolvers<void>();
  cleanUp(t, () => gate.resolve());
  content.gate = gate.promise;
  const { hostname, port } = new URL(admitted.url);
  const socket = connect(Number(port), hostname);
  cleanUp(t, () => socket.destroy());
  const closed = once(socket, 'close');
  socket.on('error', () => undefined).resume();
  const opened = content.opened();
  socket.write(
    `GET /v2/quarantine/blobs/${LAYER} HTTP/1.1\r\nHost: x\r\nAuthorization: ${admitted.authorization}\r\n\r\n`,
  );
  await opened;
  admitted[Symbol.dispose]();
  await closed;
});

test('the time of a scanner stands still while it waits for upstream, and begins anew when it has all', async (t) => {
  const { ask, clock, content, patience } = await setUp(t);
  const gate = Promise.withResolvers<void>();
  content.gate = gate.promise;
  const opened = content.opened();
  const layer = ask(`blobs/${LAYER}`);
  await opened;
  clock.advance(600_000);
  assert.equal(patience.signal.aborted, false);
  gate.resolve();
  await layer;
  clock.advance(50_000);
  for (const bytes of IMAGE.blobs) await ask(`blobs/${digestOf(bytes)}`);
  clock.advance(50_000);
  await new Promise(setImmediate);
  assert.equal(patience.signal.aborted, false);
  clock.advance(10_000);
  await new Promise(setImmediate);
  assert.equal(patience.signal.aborted, true);
});

test('bytes that do not come are told, unless they come at a second attempt', async (t) => {
  const { ask, content, admitted } = await setUp(t);
  content.failure = new Error('upstream has gone');
  await assert.rejects(ask(`blobs/${LAYER}`));
  assert.throws(() => admitted.admission.requireContent(), /upstream has gone/);
  content.failure = undefined;
  await ask(`blobs/${LAYER}`);
  admitted.admission.requireContent();
  assert.equal(content.open, 0);
});

test('a route that others can reach needs a certificate, and then speaks TLS only', async (t) => {
  await assert.rejects(QuarantineRoute.open({ host: '0.0.0.0', port: 0 }, silent), /set scan\.tls/);
  const tls = selfSigned('localhost');
  const route = await QuarantineRoute.open({ host: '0.0.0.0', port: 0, tls }, silent);
  cleanUp(t, () => route[Symbol.asyncDispose]());
  const patience = new Patience(60_000, new FakeClock());
  using admitted = route.admit(subjectOf(IMAGE.top), new TestContent(IMAGE), patience);
  patience[Symbol.dispose]();
  const url = admitted.url.replace('0.0.0.0', 'localhost');
  const dispatcher = new Agent({ connect: { ca: tls.cert } });
  cleanUp(t, () => dispatcher.close());
  const { authorization } = admitted;
  const reply = await request(`${url}/v2/`, { dispatcher, headers: { authorization } });
  await reply.body.dump();
  assert.equal(reply.statusCode, 200);
  await assert.rejects(request(url.replace('https', 'http')));
});
