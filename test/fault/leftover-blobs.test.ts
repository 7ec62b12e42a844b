import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { digestOf } from '../../src/oci/digest.ts';
import { noise } from '../helpers/images.ts';
import { errorReply, ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { startMirror } from '../helpers/start-mirror.ts';
import { tempDir } from '../helpers/temp-dir.ts';

const blob = noise(2 * 1024 * 1024, 'left behind');
const digest = digestOf(blob);

/** A mirror that starts on what a killed process left in `ingest/`: `bytes` of the blob. */
async function startOn(t: TestContext, bytes: Buffer) {
  const upstream = await ScriptedUpstream.start(t);
  upstream.addContent(blob);
  const directory = await tempDir(t);
  const ingest = join(directory, 'data/ingest');
  const origin = createHash('sha256').update('ghcr.io').digest('hex').slice(0, 16);
  await mkdir(ingest, { recursive: true });
  await writeFile(join(ingest, `${digest.replace(':', '-')}.${origin}`), bytes);
  const mirror = await startMirror(t, { directory, upstreams: { 'ghcr.io': upstream.url } });
  return { upstream, mirror, ingest };
}

test('a whole blob that a killed process left is served without a GET, where upstream confirms it', async (t) => {
  const { upstream, mirror } = await startOn(t, blob);
  const reply = await mirror.get(`/v2/org/app/blobs/${digest}`);
  assert.deepEqual([reply.status, reply.body.equals(blob)], [200, true]);
  assert.deepEqual([upstream.count('blob', 'HEAD'), upstream.count('blob', 'GET')], [1, 0]);
});

test('a whole blob that was fetched for one repository is not given to another that upstream refuses', async (t) => {
  const { upstream, mirror } = await startOn(t, blob);
  upstream.script({ path: /^\/v2\/org\/refused\// }, (reply) =>
    Object.assign(reply, errorReply(403, 'DENIED')),
  );
  for (const _again of [1, 2]) {
    const refused = await mirror.get(`/v2/org/refused/blobs/${digest}`);
    assert.deepEqual([refused.status, refused.error], [403, 'DENIED']);
    await mirror.idle();
  }
  assert.ok((await mirror.get(`/v2/org/app/blobs/${digest}`)).body.equals(blob));
});

test('leftover bytes that are more than the blob has are fetched anew, not refused for ever', async (t) => {
  const { mirror, ingest } = await startOn(t, Buffer.concat([blob, blob]));
  assert.equal((await mirror.get(`/v2/org/app/blobs/${digest}`)).status, 502);
  await mirror.idle();
  assert.deepEqual(await readdir(ingest), []);
  assert.ok((await mirror.get(`/v2/org/app/blobs/${digest}`)).body.equals(blob));
});
