import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readdir } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { cleanUp } from '../helpers/cleanup.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { startMirror, type TestMirror } from '../helpers/start-mirror.ts';

const SHA = `sha256:${'a'.repeat(64)}`;

/** Everything below the data directory but the index's own files. */
async function storedFiles(mirror: TestMirror): Promise<string[]> {
  const names = await readdir(join(mirror.directory, 'data'), { recursive: true });
  return names.filter((name) => !name.startsWith('index'));
}

test('bad input is refused as registry JSON, touches no file and opens no connection', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url, 'ghcr.io': upstream.url } });
  const before = await storedFiles(mirror);
  for (const [method, path, status, code] of [
    ['GET', '/v2/a/../../../etc/passwd/manifests/latest', 400, 'NAME_INVALID'],
    ['GET', '/v2/a/%2e%2e/b/manifests/latest', 400, 'NAME_INVALID'],
    ['GET', '/v2/a%2Fb/manifests/latest', 400, 'NAME_INVALID'],
    ['GET', '/v2/a%00b/manifests/latest', 400, 'NAME_INVALID'],
    ['GET', '/v2/a//b/manifests/latest', 400, 'NAME_INVALID'],
    ['GET', '/v2/UPPER/manifests/latest', 400, 'NAME_INVALID'],
    ['GET', `/v2/${'a'.repeat(300)}/manifests/latest`, 400, 'NAME_INVALID'],
    ['GET', `/v2/a/manifests/${'t'.repeat(129)}`, 400, 'TAG_INVALID'],
    ['GET', '/v2/a/manifests/t%0d%0aX', 400, 'TAG_INVALID'],
    ['GET', '/v2/a/manifests/sha256:baddigeststring', 400, 'DIGEST_INVALID'],
    ['GET', `/v2/a/blobs/${SHA.toUpperCase()}`, 400, 'DIGEST_INVALID'],
    ['GET', `/v2/a/blobs/${SHA}%00`, 400, 'DIGEST_INVALID'],
    ['GET', '/v2/a/manifests/latest?ns=evil.example', 404, 'NAME_UNKNOWN'],
    ['GET', '/v2/evil.example/a/manifests/latest', 404, 'NAME_UNKNOWN'],
    ['GET', '/v2/169.254.169.254/latest/manifests/meta-data', 404, 'NAME_UNKNOWN'],
    ['GET', '/v2/ghcr.io/a/manifests/latest?ns=docker.io', 400, 'NAME_INVALID'],
    ['GET', '/v2/_catalog', 404, 'UNSUPPORTED'],
    ['GET', '/v2/_oci/ext/discover', 404, 'UNSUPPORTED'],
    ['GET', '/', 404, 'UNSUPPORTED'],
    ['POST', '/v2/a/b/blobs/uploads/', 405, 'UNSUPPORTED'],
    ['PUT', '/v2/a/b/manifests/latest', 405, 'UNSUPPORTED'],
    ['PATCH', '/v2/a/b/blobs/uploads/1', 405, 'UNSUPPORTED'],
    ['DELETE', `/v2/a/b/manifests/${SHA}`, 405, 'UNSUPPORTED'],
    ['DELETE', '/v2/', 405, 'UNSUPPORTED'],
  ] as const) {
    const reply = await mirror.send(
      method,
      path,
      {},
      method === 'GET' || method === 'DELETE' ? undefined : 'body',
    );
    assert.deepEqual([reply.status, reply.error], [status, code], `${method} ${path}`);
    assert.equal(reply.headers['content-type'], 'application/json');
    if (status === 405) assert.equal(reply.headers['allow'], 'GET, HEAD');
  }
  assert.equal(upstream.totalConnections, 0);
  assert.deepEqual(await storedFiles(mirror), before);
});

test('an error names the upstream, the reason and the log line', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  const reply = await mirror.get('/v2/org/missing/manifests/latest');
  const [error] = (
    JSON.parse(reply.body.toString()) as { errors: { message: string; detail: { requestId: string } }[] }
  ).errors;
  assert.match(error?.message ?? '', /docker\.io.*404/);
  await mirror.get('/v2/'); // by now the first request's line is written
  const line = mirror.log.find(({ requestId }) => requestId === error?.detail.requestId);
  assert.deepEqual(
    [line?.['status'], line?.['repository'], line?.['reference']],
    [404, 'org/missing', 'latest'],
  );
});

test('a HEAD that fails has the same status as the GET, and no body', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  const reply = await mirror.head('/v2/org/missing/manifests/latest');
  assert.deepEqual([reply.status, reply.body.length], [404, 0]);
});

test('an unsatisfiable Range is 416 with the size, and several ranges give the whole', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const blob = Buffer.from('0123456789');
  const digest = upstream.addContent(blob);
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  for (const _state of ['cold', 'warm']) {
    const reply = await mirror.get(`/v2/a/b/blobs/${digest}`, { range: 'bytes=10-' });
    assert.deepEqual(
      [reply.status, reply.error, reply.headers['content-range']],
      [416, 'RANGE_INVALID', 'bytes */10'],
    );
    const several = await mirror.get(`/v2/a/b/blobs/${digest}`, { range: 'bytes=0-1,4-5' });
    assert.deepEqual([several.status, several.body], [200, blob]);
  }
});

test('a push is refused without reading its body', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  const { port } = new URL(mirror.url);
  const socket = connect(Number(port), '127.0.0.1');
  cleanUp(t, () => socket.destroy());
  let answer = '';
  socket.setEncoding('utf8').on('data', (text: string) => {
    answer += text;
  });
  socket.on('error', () => undefined);
  // It announces a body and never sends it.
  socket.write('POST /v2/a/b/blobs/uploads/ HTTP/1.1\r\nHost: m\r\nContent-Length: 1000000000\r\n\r\n');
  await once(socket, 'end');
  assert.match(answer, /^HTTP\/1\.1 405 /);
  assert.match(answer, /UNSUPPORTED/);
});

for (const [what, head] of [
  [
    'both Content-Length and Transfer-Encoding',
    'GET /v2/ HTTP/1.1\r\nHost: m\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n',
  ],
  ['a folded header', 'GET /v2/ HTTP/1.1\r\nHost: m\r\nX: a\r\n b: c\r\nBad Header: x\r\n\r\n'],
  ['headers of 17 KB', `GET /v2/ HTTP/1.1\r\nHost: m\r\nX: ${'a'.repeat(17_000)}\r\n\r\n`],
] as const) {
  test(`a request with ${what} is refused`, async (t) => {
    const upstream = await ScriptedUpstream.start(t);
    const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
    const socket = connect(Number(new URL(mirror.url).port), '127.0.0.1');
    cleanUp(t, () => socket.destroy());
    socket.on('error', () => undefined);
    let answer = '';
    socket.setEncoding('utf8').on('data', (text: string) => {
      answer += text;
    });
    socket.write(head);
    await new Promise((resolve) => socket.once('close', resolve));
    assert.match(answer, /^HTTP\/1\.1 4\d\d /);
  });
}
