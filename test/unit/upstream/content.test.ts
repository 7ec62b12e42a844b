import assert from 'node:assert/strict';
import { suite, type TestContext, test } from 'node:test';
import { digestOf } from '../../../src/oci/digest.ts';
import { OCI_INDEX } from '../../../src/oci/manifest.ts';
import { parseRepository, parseTag, type Tag } from '../../../src/oci/reference.ts';
import { CONTEXT } from '../../helpers/request-context.ts';
import { ScriptedUpstream } from '../../helpers/scripted-upstream.ts';
import { startClient } from '../../helpers/test-client.ts';

const REPOSITORY = parseRepository('org/app') ?? assert.fail();
const TAG: Tag = parseTag('1') ?? assert.fail();
const BLOB = Buffer.from('0123456789');

async function setUp(t: TestContext) {
  const registry = await ScriptedUpstream.start(t);
  return { registry, digest: registry.addContent(BLOB), ...startClient(t, { url: registry.url }) };
}

suite('a range of a blob', () => {
  for (const [options, range, text] of [
    [{}, undefined, '0123456789'],
    [{ from: 4 }, 'bytes=4-', '456789'],
    [{ from: 4, to: 7 }, 'bytes=4-6', '456'],
    [{ to: 3 }, 'bytes=0-2', '012'],
  ] as const) {
    test(`${JSON.stringify(options)} is requested as ${range}`, async (t) => {
      const { registry, digest, client } = await setUp(t);
      const { body, ...rest } = await client.fetchBlob(CONTEXT, REPOSITORY, digest, options);
      assert.equal(Buffer.concat(await body.toArray()).toString(), text);
      const [from = 0] = 'from' in options ? [options.from] : [];
      assert.deepEqual(rest, { start: from, ranged: range !== undefined, size: BLOB.length });
      assert.equal(registry.requests[0]?.headers.range, range);
    });
  }

  test('that upstream ignores is the whole blob, and says so', async (t) => {
    const { registry, digest, client } = await setUp(t);
    registry.script({}, (reply) => {
      Object.assign(reply, { status: 200, start: 0, end: BLOB.length });
      reply.headers = { 'content-length': String(BLOB.length) };
    });
    const { body, ...rest } = await client.fetchBlob(CONTEXT, REPOSITORY, digest, { from: 4, to: 7 });
    await body.toArray();
    assert.deepEqual(rest, { start: 0, ranged: false, size: BLOB.length });
  });

  for (const [what, options, contentRange] of [
    ['begins elsewhere', { from: 4 }, 'bytes 3-9/10'],
    ['ends later', { from: 4, to: 7 }, 'bytes 4-9/10'],
    ['has no Content-Range', { from: 4 }, undefined],
    ['has one that cannot be read', { from: 4 }, 'bytes 4-/10'],
    ['was not requested', {}, 'bytes 0-9/10'],
  ] as const) {
    test(`that ${what} is refused, because its bytes would be stored in the wrong place`, async (t) => {
      const { registry, digest, client } = await setUp(t);
      registry.script({}, (reply) => {
        reply.status = 206;
        reply.headers['content-range'] = contentRange;
      });
      await assert.rejects(client.fetchBlob(CONTEXT, REPOSITORY, digest, options), {
        code: 'invalid-response',
        message: /sent a different range of the blob than requested/,
      });
    });
  }
});

test('a manifest by digest is refused if its bytes have another one, and counted', async (t) => {
  const { registry, client, metrics } = await setUp(t);
  const { digest } = registry.addImage('org/app', '1').top;
  registry.script({}, (reply) => {
    reply.corruptAt = 5;
  });
  await assert.rejects(client.fetchManifest(CONTEXT, REPOSITORY, digest), {
    code: 'invalid-response',
    message: new RegExp(`^quay\\.io: sent content with the digest sha256:\\w+ for the manifest ${digest}$`),
  });
  const { values } = await metrics.contentRejected.get();
  assert.deepEqual(
    values.map(({ value, labels }) => [value, labels.reason]),
    [[1, 'digest-mismatch']],
  );
});

test('a manifest by tag has the digest of its bytes, whatever Docker-Content-Digest says', async (t) => {
  const { registry, client } = await setUp(t);
  const { bytes } = registry.addImage('org/app', '1').top;
  registry.script({}, ({ headers }) => {
    headers['docker-content-digest'] = digestOf(Buffer.from('another'));
  });
  const manifest = await client.fetchManifest(CONTEXT, REPOSITORY, TAG);
  assert.equal(manifest.digest, digestOf(bytes));
});

suite('referrers', () => {
  for (const [what, status, type] of [
    ['404', 404, 'application/json'],
    ['405', 405, 'application/json'],
    ['an HTML page', 200, 'text/html'],
  ] as const) {
    test(`of a registry that answers ${what} do not exist: it has no such API`, async (t) => {
      const { registry, digest, client } = await setUp(t);
      registry.script({}, (reply) => {
        reply.status = status;
        reply.headers = { 'content-type': type };
      });
      assert.equal(await client.fetchReferrers(CONTEXT, REPOSITORY, digest, ''), undefined);
    });
  }

  test('that are there come with the filters that were applied, if those are names', async (t) => {
    const { registry, digest, client } = await setUp(t);
    registry.addReferrers(digest, Buffer.from('{"schemaVersion":2,"manifests":[]}'));
    for (const [header, filtersApplied] of [
      ['artifactType', 'artifactType'],
      ['artifactType="<script>"', undefined],
    ] as const) {
      registry.clearScripts();
      registry.script({}, (reply) => {
        reply.headers['content-type'] = OCI_INDEX;
        reply.headers['oci-filters-applied'] = header;
      });
      const referrers = await client.fetchReferrers(CONTEXT, REPOSITORY, digest, '');
      assert.equal(referrers?.filtersApplied, filtersApplied);
      assert.equal(referrers?.body.toString(), '{"schemaVersion":2,"manifests":[]}');
    }
  });
});
