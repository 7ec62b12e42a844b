import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import { request } from 'undici';
import { buildImage } from '../helpers/images.ts';
import { type RealMirror, startRealMirror } from '../helpers/real-mirror.ts';
import { pieces } from '../helpers/tars.ts';
import { tempDir } from '../helpers/temp-dir.ts';
import { archiveOf, eventsIn } from '../helpers/transfers.ts';

const MIB = 1024 * 1024;

function importInto({ operationsPort }: RealMirror, archive: AsyncIterable<Buffer>) {
  const body = Readable.from(archive).on('error', () => undefined);
  return request(`http://127.0.0.1:${operationsPort}/api/import`, { method: 'POST', body });
}

async function objectsIn({ operationsPort }: RealMirror): Promise<number> {
  const metrics = await (await fetch(`http://127.0.0.1:${operationsPort}/metrics`)).text();
  return Number(/^millpond_store_objects (\d+)$/m.exec(metrics)?.[1]);
}

test('after a kill -9 in the middle of an import nothing is half visible, no file is left, and the next import goes on', async (t) => {
  const directory = await tempDir(t);
  const config = { sealed: true, upstreams: { 'docker.io': { url: 'http://127.0.0.1:9' } } };
  const image = buildImage({ layers: [3 * MIB, 3 * MIB + 1, 3 * MIB + 2, 3 * MIB + 3] });
  const archive = await archiveOf({ 'docker.io/org/app:1': image });
  const spool = join(directory, 'data/ingest');
  const mirror = await startRealMirror(t, directory, config);
  async function* half() {
    yield* pieces(archive.subarray(0, archive.length * 0.6), 64 * 1024);
    // The manifest, the config and two layers are there, the third is on its way.
    while ((await objectsIn(mirror)) < 4 || (await readdir(spool)).length === 0);
    await mirror.process.kill();
  }
  const broken = await importInto(mirror, half())
    .then(
      (reply) => reply.body.text(),
      () => 'no answer',
    )
    .catch(() => 'cut');
  assert.doesNotMatch(broken, /"outcome"/);

  const next = await startRealMirror(t, directory, config);
  assert.deepEqual(await readdir(spool), []);
  const url = `http://127.0.0.1:${next.port}/v2/org/app/manifests`;
  for (const reference of ['1', image.top.digest])
    assert.equal((await fetch(`${url}/${reference}`)).status, 404);
  const events = eventsIn(await (await importInto(next, pieces(archive, 64 * 1024))).body.text());
  const done = events.at(-1);
  assert.equal(done?.['failed'], 0);
  assert.ok(Number(done['presentBytes']) >= 6 * MIB, 'what was verified is kept');
  assert.ok(Number(done['storedBytes']) >= 3 * MIB);
  assert.deepEqual(Buffer.from(await (await fetch(`${url}/1`)).arrayBuffer()), image.top.bytes);
});
