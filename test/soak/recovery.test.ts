import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { digestOf } from '../../src/oci/digest.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { startMirror, type TestMirror } from '../helpers/start-mirror.ts';

const REPOSITORIES = 100;
const BLOBS_A_REPOSITORY = 100;
const LAYERS = Array.from({ length: BLOBS_A_REPOSITORY - 1 }, (_, at) => 500 + at);

test('10 000 blobs whose index is deleted are served again: one HEAD a repository, and nothing is fetched', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const images = Array.from({ length: REPOSITORIES }, (_, at) =>
    upstream.addImage(`seed/r${at}`, '1', { layers: LAYERS, seed: String(at) }),
  );
  const upstreams = { 'docker.io': upstream.url };
  const pullAll = async (mirror: TestMirror) => {
    for (const [at, { blobs, top }] of images.entries()) {
      assert.deepEqual((await mirror.get(`/v2/seed/r${at}/manifests/1`)).body, top.bytes);
      const replies = blobs.map(async (blob) => {
        const reply = await mirror.get(`/v2/seed/r${at}/blobs/${digestOf(blob)}`);
        assert.deepEqual(reply.body, blob);
      });
      await Promise.all(replies);
    }
    await mirror.idle();
  };
  const first = await startMirror(t, { upstreams });
  await pullAll(first);
  assert.equal(upstream.count('blob', 'GET'), REPOSITORIES * BLOBS_A_REPOSITORY);
  await first.app.close();
  upstream.requests.length = 0;
  await rm(join(first.directory, 'data/index'), { recursive: true });

  const { directory, clock } = first;
  const second = await startMirror(t, { upstreams, directory, clock });
  await pullAll(second);
  const asked = upstream.requests.map(({ kind, method }) => `${method} ${kind}`);
  assert.deepEqual(
    asked,
    Array.from({ length: REPOSITORIES }, () => 'HEAD manifest'),
  );
  t.diagnostic(JSON.stringify(second.log.find(({ adopted }) => adopted !== undefined)));
});
