import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import { connect, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import type { ContentReader } from '../../../src/cache/store/content-store.ts';
import { StorageError } from '../../../src/cache/store/errors.ts';
import { ClientRequest, directClient } from '../../../src/http/registry/client-request.ts';
import type { PullContext } from '../../../src/http/registry/pulls.ts';
import type { FreshnessPolicy } from '../../../src/mirror/freshness.ts';
import type { CacheOutcome } from '../../../src/mirror/outcome.ts';
import { OCI_INDEX } from '../../../src/oci/manifest.ts';
import { cleanUp } from '../../helpers/cleanup.ts';
import {
  BYTES,
  FRESHNESS,
  type RegistrySide,
  SHA,
  startRegistrySide,
  VIA,
} from '../../helpers/registry-side.ts';

const BLOB = `/v2/a/b/blobs/${SHA}`;
const NOT_FOR_EVER = { timeout: 5_000 };

const manifest = (outcome: CacheOutcome, warning?: string) => ({
  ...{ digest: SHA, mediaType: OCI_INDEX, bytes: BYTES, size: BYTES.length, outcome },
  ...(warning === undefined ? {} : { warning }),
});

/** Every blob is the content that is read so. */
function blobsReadBy(read: ContentReader['read'], outcome: CacheOutcome) {
  let open = 0;
  const content: ContentReader = { size: BYTES.length, read, close: async () => void (open -= 1) };
  const blobs: PullContext['blobs'] = {
    open: async () => {
      open += 1;
      return { content, outcome };
    },
    stat: () => assert.fail('nobody asks for the size alone'),
  };
  return { blobs, open: () => open };
}

/** A client of its own connection, which has asked. */
function ask(t: TestContext, { address }: RegistrySide, path: string): Socket {
  const socket = connect(Number(new URL(`http://${address}`).port), '127.0.0.1');
  cleanUp(t, () => socket.destroy());
  socket.on('error', () => undefined);
  socket.write(`GET ${path} HTTP/1.1\r\nHost: mirror\r\n\r\n`);
  return socket;
}

test('a request that comes back to this mirror is refused with 508', async (t) => {
  const registry = await startRegistrySide(t);
  const reply = await registry.send('GET', '/v2/a/b/manifests/1', { via: `1.1 front, ${VIA}` });
  assert.equal(reply.status, 508);
  assert.deepEqual(registry.asked, []);
  assert.equal((await registry.send('GET', '/v2/a/b/manifests/1', { via: '1.1 front' })).status, 200);
});

test('a stored blob that cannot be read is an error, without the headers of the content', async (t) => {
  const failing = blobsReadBy(async () => Promise.reject(new StorageError('read', new Error('EIO'))), 'hit');
  const registry = await startRegistrySide(t, failing);
  const reply = await registry.send('GET', BLOB);
  assert.equal(reply.status, 500);
  for (const name of ['etag', 'cache-control', 'docker-content-digest', 'accept-ranges'])
    assert.equal(reply.headers[name], undefined, name);
  assert.equal(reply.headers['cache-status'], 'millpond; hit');
  assert.equal(reply.headers['content-type'], 'application/json');
  assert.equal(failing.open(), 0, 'it was closed again');
});

test(
  'a cold blob’s headers are sent before its first byte; if it fails, the reply is cut',
  NOT_FOR_EVER,
  async (t) => {
    const gate = Promise.withResolvers<number>();
    const failing = blobsReadBy(() => gate.promise, 'miss');
    const registry = await startRegistrySide(t, failing);
    const socket = ask(t, registry, BLOB);
    const [head] = (await once(socket, 'data')) as [Buffer];
    assert.match(head.toString(), /^HTTP\/1\.1 200 OK\r\n[^]*\r\n\r\n$/);
    gate.reject(new StorageError('read', new Error('EIO')));
    await once(socket.resume(), 'close');
    const line = await registry.firstLine;
    assert.deepEqual([line['status'], line['aborted'], line['bytes']], [200, true, 0]);
    assert.equal(failing.open(), 0);
  },
);

test('HEAD has the headers of GET, and counts no bytes', async (t) => {
  const registry = await startRegistrySide(t);
  const describing = async (method: string) => {
    const { headers, text } = await registry.send(method, '/v2/a/b/manifests/1');
    const { date: _date, connection: _connection, 'keep-alive': _keepAlive, ...rest } = headers;
    return { text, rest };
  };
  const [get, head] = [await describing('GET'), await describing('HEAD')];
  assert.deepEqual(head, { text: '', rest: get.rest });
  assert.equal(get.rest['vary'], 'Accept', 'a tag can mean another manifest to another client');
  const { values } = await registry.metrics.responseBytes.get();
  assert.deepEqual(
    values.map(({ value }) => value),
    [BYTES.length],
  );
});

test('a warning that holds what a header must not is cleaned', async (t) => {
  const registry = await startRegistrySide(t, {
    manifests: { open: async () => manifest('stale', 'quay.io: "it"\r\nX-Forged: 1 \u20ac') },
  });
  const { status, headers } = await registry.send('GET', '/v2/a/b/manifests/1');
  assert.deepEqual([status, headers['x-forged']], [200, undefined]);
  assert.equal(headers['warning'], '299 - "quay.io:  it   X-Forged: 1  "');
});

const ASKING: FreshnessPolicy = { ...FRESHNESS, tagTtlMs: 0, immutableTags: [], staleWhileRevalidateMs: 0 };

for (const [who, mayRevalidate, expected] of [
  ['is allowed, asks upstream', () => true, ASKING],
  ['is not allowed, changes nothing', () => false, FRESHNESS],
  ['is not allowed because nobody is, changes nothing', undefined, FRESHNESS],
] as [string, PullContext['mayRevalidate'], FreshnessPolicy][]) {
  test(`Cache-Control: no-cache of a client that ${who}`, async (t) => {
    const seen: FreshnessPolicy[] = [];
    const registry = await startRegistrySide(t, {
      manifests: {
        open: async ({ freshness }) => {
          seen.push(freshness);
          return manifest('hit');
        },
      },
      ...(mayRevalidate === undefined ? {} : { mayRevalidate }),
    });
    await registry.send('GET', '/v2/a/b/manifests/1', { 'cache-control': 'no-cache' });
    await registry.send('GET', '/v2/a/b/manifests/1');
    assert.deepEqual(seen, [expected, FRESHNESS]);
  });
}

test('a defect is answered with 500 and logged with its stack', async (t) => {
  const registry = await startRegistrySide(t, {
    manifests: {
      open: () => {
        throw new TypeError('at /secret/path');
      },
    },
  });
  const reply = await registry.send('GET', '/v2/a/b/manifests/1');
  assert.equal(reply.status, 500);
  assert.ok(!reply.text.includes('secret'));
  const { level, err, requestId } = await registry.firstLine;
  assert.equal(level, 'error');
  assert.match(JSON.stringify(err), /TypeError.*pulls\.test\.ts/);
  assert.ok(typeof requestId === 'string' && reply.text.includes(requestId), 'the reply names the log line');
});

test('no header of a request is logged', async (t) => {
  const registry = await startRegistrySide(t);
  const secrets = { authorization: 'Basic s3cret', cookie: 's3cret', 'x-forwarded-for': 's3cret' };
  await registry.send('GET', '/v2/a/b/manifests/1', { ...secrets, accept: 's3cret', 'user-agent': 's3cret' });
  const line = await registry.firstLine;
  assert.equal(line['msg'], 'request');
  assert.ok(!JSON.stringify(line).includes('s3cret'));
});

test('the signal of a request aborts when its client leaves', NOT_FOR_EVER, async (t) => {
  const aborted = Promise.withResolvers<unknown>();
  const registry = await startRegistrySide(t, {
    manifests: {
      open: async ({ context: { signal } }) => {
        socket.destroy();
        await once(signal ?? assert.fail(), 'abort');
        aborted.resolve(signal?.reason);
        return manifest('hit');
      },
    },
  });
  const socket = ask(t, registry, '/v2/a/b/manifests/1');
  assert.match(String(await aborted.promise), /the client left/);
});

test('the signal of a request whose client has left is aborted from the start', () => {
  assert.equal(new ClientRequest('1', { closed: true } as ServerResponse, directClient).signal.aborted, true);
});
