/** Kills a mirror at random moments of its fills and looks at what it left. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { request } from 'undici';
import { noise } from './images.ts';
import { startRealMirror } from './real-mirror.ts';
import { ScriptedUpstream } from './scripted-upstream.ts';
import { tempDir } from './temp-dir.ts';

const MIB = 1024 * 1024;
const BLOBS = 4;
const BLOB_BYTES = 6 * MIB;

/**
 * @param kills how often
 * @param seed of the moments, in bytes that upstream has sent
 */
export async function killAgainAndAgain(t: TestContext, kills: number, seed: number): Promise<void> {
  t.diagnostic(`seed ${seed}`);
  const random = mulberry32(seed);
  const upstream = await ScriptedUpstream.start(t);
  upstream.script({ kind: 'blob' }, (reply) => {
    reply.rate = 40 * MIB;
  });
  const directory = await tempDir(t);
  const config = { upstreams: { 'docker.io': { url: upstream.url, freshness: { tagTtl: '24h' } } } };
  const image = upstream.addImage('a/b', '1');
  let resumed = 0;
  for (let kill = 0; kill < kills; kill += 1) {
    const blobs = Array.from({ length: BLOBS }, (_, at) =>
      noise(BLOB_BYTES, `${seed} ${Math.floor(kill / 2)} ${at}`),
    );
    const digests = blobs.map((blob) => upstream.addContent(blob));
    const mirror = await startRealMirror(t, directory, config);
    const base = `http://127.0.0.1:${mirror.port}/v2/a/b`;
    assert.deepEqual(await manifestOf(base), image.top.bytes, 'a tag that was served before is served again');
    if (kill > 0) assert.equal(upstream.count('manifest'), 1, 'and asks nobody');

    upstream.requests.splice(
      0,
      upstream.requests.length,
      ...upstream.requests.filter(({ kind }) => kind === 'manifest'),
    );
    const pulls = digests.map((digest) => pull(`${base}/blobs/${digest}`));
    await Promise.race([
      upstream.waitForBytes(Math.floor(random() * BLOBS * BLOB_BYTES)),
      Promise.all(pulls),
    ]);
    await mirror.process.kill();
    for (const { complete, hash } of await Promise.all(pulls)) {
      assert.ok(
        !complete || digests.some((digest) => digest.endsWith(hash)),
        'no complete reply has wrong bytes',
      );
    }
    resumed += upstream.requests.filter(({ headers }) => headers.range !== undefined).length;
    await assertCommittedIsWhole(join(directory, 'data/blobs'));
  }
  t.diagnostic(`${resumed} fetches were resumed by Range`);
  assert.ok(resumed > 0, 'large partial blobs are resumed, and not fetched from zero');

  const last = await startRealMirror(t, directory, config);
  for (const name of await readdir(join(directory, 'data/ingest'))) {
    assert.match(
      name,
      /^sha(256|512)-[0-9a-f]+\.[0-9a-f]{16}(\.front)?$/,
      'ingest/ holds nothing but what can be resumed',
    );
  }
  await last.stop();
}

async function manifestOf(base: string): Promise<Buffer> {
  return Buffer.from(await (await request(`${base}/manifests/1`)).body.arrayBuffer());
}

async function pull(url: string): Promise<{ complete: boolean; hash: string }> {
  const hash = createHash('sha256');
  try {
    const reply = await request(url);
    for await (const chunk of reply.body as AsyncIterable<Buffer>) hash.update(chunk);
    return { complete: reply.statusCode === 200, hash: hash.digest('hex') };
  } catch {
    return { complete: false, hash: '' }; // the mirror was killed
  }
}

async function assertCommittedIsWhole(blobs: string): Promise<void> {
  for (const entry of await readdir(blobs, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const hash = createHash('sha256');
    for await (const chunk of createReadStream(join(entry.parentPath, entry.name)))
      hash.update(chunk as Buffer);
    assert.equal(hash.digest('hex'), entry.name, 'what is committed is whole');
  }
}

/** A small seeded generator: the same seed kills at the same moments. */
function mulberry32(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
