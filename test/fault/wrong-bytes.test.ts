import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { digestOf } from '../../src/oci/digest.ts';
import { OCI_MANIFEST } from '../../src/oci/manifest.ts';
import { FailingFileSystem } from '../helpers/failing-file-system.ts';
import { noise } from '../helpers/images.ts';
import { type Reply, type Script, ScriptedUpstream, type SeenRequest } from '../helpers/scripted-upstream.ts';
import { startMirror, type TestMirror } from '../helpers/start-mirror.ts';

const MIB = 1024 * 1024;
const SIZE = 3 * MIB;
const blob = noise(SIZE, 'wrong bytes');
const PATH = (digest: string) => `/v2/a/b/blobs/${digest}`;

/** The client's connection is cut before the reply is complete. */
const CUT = { code: 'UND_ERR_SOCKET' };

/** Nothing of a rejected blob is kept. Closes the mirror, which waits for what it still does. */
async function assertNothingSpooled(mirror: TestMirror): Promise<void> {
  await mirror.app.close();
  assert.deepEqual(await readdir(join(mirror.directory, 'data/ingest')), []);
}

for (const [what, corruptAt] of [
  ['the first byte', 0],
  ['a byte in the middle', 1_234_567],
  ['the last byte', SIZE - 1],
] as const) {
  test(`one wrong bit in ${what}: no client gets a complete reply, nothing is stored, and the next pull asks again`, async (t) => {
    const upstream = await ScriptedUpstream.start(t);
    const digest = upstream.addContent(blob);
    const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
    upstream.script({ kind: 'blob' }, (reply) => {
      reply.corruptAt = corruptAt;
    });
    const pulls = [
      mirror.get(PATH(digest)),
      mirror.get(PATH(digest)),
      mirror.get(PATH(digest), { range: 'bytes=100-199' }),
      mirror.get(PATH(digest), { range: 'bytes=-10' }),
    ];
    for (const pull of await Promise.allSettled(pulls)) {
      assert.equal(pull.status === 'rejected' && (pull.reason as { code: string }).code, CUT.code);
    }
    assert.equal(await mirror.metric('millpond_store_objects'), 0);
    assert.ok((await mirror.metric('millpond_content_rejected_total', { reason: 'digest-mismatch' })) >= 1);
    upstream.clearScripts();
    assert.ok((await mirror.get(PATH(digest))).body.equals(blob));
    await assertNothingSpooled(mirror);
  });
}

test('a wrong bit behind the place where a fetch was resumed is found, too', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const digest = upstream.addContent(blob);
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  upstream.script({ kind: 'blob' }, cutAt(MIB), { times: 1 });
  upstream.script({ kind: 'blob' }, (reply) => {
    if (reply.status === 206) reply.corruptAt = 2 * MIB;
  });
  await assert.rejects(mirror.get(PATH(digest)), CUT);
  assert.equal(await mirror.metric('millpond_store_objects'), 0);
  await assertNothingSpooled(mirror);
});

test('wrong bytes on the way past a broken disk are never complete either', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const digest = upstream.addContent(blob);
  const disk = new FailingFileSystem();
  const mirror = await startMirror(t, {
    upstreams: { 'docker.io': upstream.url },
    fileSystem: disk.fileSystem,
  });
  disk.fail('open', 'EROFS');
  upstream.script({ kind: 'blob' }, (reply) => {
    reply.corruptAt = 2 * MIB;
  });
  await assert.rejects(mirror.get(PATH(digest)), CUT);
  await assert.rejects(mirror.get(PATH(digest), { range: 'bytes=5-50' }), CUT);
});

test('a body that ends early, again and again, is cut and not completed', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const digest = upstream.addContent(blob);
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  upstream.script({ kind: 'blob' }, (reply) => {
    reply.truncateAfter = reply.status === 206 ? 0 : MIB;
  });
  await assert.rejects(mirror.get(PATH(digest)), CUT);
  assert.ok(upstream.count('blob', 'GET') < 10, 'the attempts are bounded');
});

test('without Content-Length a right blob arrives, with its length, and a cut one never does', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const digest = upstream.addContent(blob);
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  const chunked: Script = (reply, request) => {
    if (request.method === 'GET') reply.headers['content-length'] = undefined;
  };
  upstream.script({ kind: 'blob' }, chunked);
  const truncated = await ScriptedUpstream.start(t);
  truncated.addContent(blob);
  truncated.script({ kind: 'blob' }, (reply: Reply, request: SeenRequest) => {
    reply.headers['content-length'] = undefined; // for HEAD, too: nobody knows how long it is
    if (request.method === 'GET') reply.truncateAfter = MIB;
  });
  const reply = await mirror.get(PATH(digest));
  assert.deepEqual([reply.headers['content-length'], reply.body.equals(blob)], [String(SIZE), true]);
  const other = await startMirror(t, { upstreams: { 'docker.io': truncated.url } });
  const failed = await other.get(PATH(digest));
  assert.equal(failed.status, 502);
});

test('an upstream that lies about the length of a blob whose manifest we hold is refused before the headers', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const image = upstream.addImage('a/b', '1', { layers: [50_000] });
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  await mirror.get('/v2/a/b/manifests/1');
  upstream.script({ kind: 'blob' }, (reply) => {
    reply.headers['content-length'] = '49999';
    reply.end = 49_999;
  });
  const reply = await mirror.get(PATH(digestOf(image.blobs[1] ?? Buffer.alloc(0))));
  assert.deepEqual([reply.status, reply.error], [502, 'UNAVAILABLE']);
  assert.equal(await mirror.metric('millpond_content_rejected_total', { reason: 'size-mismatch' }), 1);
});

test('a page of HTML in place of a blob or a manifest is an error, and is not stored', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const digest = upstream.addContent(blob);
  upstream.addImage('a/b', '1');
  const html = Buffer.from('<html>Please log in</html>');
  upstream.script({}, (reply) => {
    const body = { size: html.length, slice: (start: number, end: number) => html.subarray(start, end) };
    const headers = { 'content-type': 'text/html', 'content-length': String(html.length) };
    Object.assign(reply, { status: 200, headers, body, start: 0, end: html.length });
  });
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  await assert.rejects(mirror.get(PATH(digest)), CUT);
  assert.equal((await mirror.get('/v2/a/b/manifests/1')).status, 502);
  assert.equal(await mirror.metric('millpond_store_objects'), 0);
  await assertNothingSpooled(mirror);
});

test('a manifest by digest with other bytes is 502, whatever digest upstream claims', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const image = upstream.addImage('a/b', '1');
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  upstream.script(
    { kind: 'manifest' },
    (reply) => {
      reply.corruptAt = 3;
    },
    { times: 1 },
  );
  const path = `/v2/a/b/manifests/${image.top.digest}`;
  assert.equal((await mirror.get(path)).status, 502);
  upstream.script({ kind: 'manifest' }, (reply) => {
    reply.headers['docker-content-digest'] = digestOf(Buffer.from('a lie'));
  });
  const reply = await mirror.get(path);
  assert.deepEqual([reply.status, reply.headers['docker-content-digest']], [200, image.top.digest]);
});

test('a manifest of the largest size that clients take is served, one over our cap is not read to its end', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const manifest = (padding: number) =>
    Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        mediaType: OCI_MANIFEST,
        config: {},
        layers: [],
        pad: 'x'.repeat(padding),
      }),
    );
  const large = manifest(4_393_216 - manifest(0).length);
  upstream.addManifest('a/b', large, OCI_MANIFEST, 'large');
  upstream.addManifest('a/b', manifest(64 * MIB), OCI_MANIFEST, 'huge');
  upstream.script({ path: /huge/ }, (reply) => {
    reply.headers['content-length'] = undefined;
  });
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  assert.equal((await mirror.get('/v2/a/b/manifests/large')).body.length, 4_393_216);
  assert.equal((await mirror.get('/v2/a/b/manifests/huge')).status, 502);
  const [huge] = upstream.requests.filter(({ path }) => path.endsWith('huge'));
  await huge?.done;
  assert.ok((huge?.bytesSent ?? 0) < 32 * MIB, 'reading stopped');
});

function cutAt(bytes: number): Script {
  return (reply) => {
    reply.cutAfter = bytes;
  };
}
