import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { request } from 'undici';
import { type Digest, digestOf } from '../../src/oci/digest.ts';
import { parseImageName } from '../../src/oci/image-name.ts';
import { OCI_MANIFEST } from '../../src/oci/manifest.ts';
import { writeLayout } from '../../src/transfer/layout/layout-writer.ts';
import { buildImage, noise } from '../helpers/images.ts';
import { startRealMirror } from '../helpers/real-mirror.ts';
import { pieces } from '../helpers/tars.ts';
import { tempDir } from '../helpers/temp-dir.ts';
import { archiveOf, eventsIn } from '../helpers/transfers.ts';

const MIB = 1024 * 1024;
/** 5 GiB in all. */
const LAYERS_MIB = [3072, 1024, 512, 256, 256];
const ALLOWED_BYTES = 200 * MIB;

const piece = noise(MIB, 'import');

/** A layer is the same mebibyte again and again, and a few bytes that make it another than the next. */
function* layerOf(at: number): Generator<Buffer, void> {
  yield Buffer.from(`layer ${at}`);
  for (let mib = 0; mib < (LAYERS_MIB[at] ?? 0); mib += 1) yield piece;
}

function describe(at: number): { digest: Digest; size: number } {
  const hash = createHash('sha256');
  let size = 0;
  for (const chunk of layerOf(at)) {
    hash.update(chunk);
    size += chunk.length;
  }
  return { digest: `sha256:${hash.digest('hex')}` as Digest, size };
}

test('5 GiB are imported, and exported again, within 200 MiB of memory', async (t) => {
  const config = Buffer.from('{}');
  const layers = LAYERS_MIB.map((_, at) => describe(at));
  const manifest = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: OCI_MANIFEST,
      config: { mediaType: 'application/vnd.oci.image.config.v1+json', digest: digestOf(config), size: 2 },
      layers: layers.map((layer) => ({ mediaType: 'application/vnd.oci.image.layer.v1.tar', ...layer })),
    }),
  );
  const small = new Map([config, manifest].map((bytes) => [digestOf(bytes), bytes]));
  const name = parseImageName('docker.io/org/app:1');
  assert.ok(name !== undefined);
  const tar = writeLayout({
    images: [
      { descriptor: { mediaType: OCI_MANIFEST, digest: digestOf(manifest), size: manifest.length }, name },
    ],
    blobs: [...layers, ...[...small].map(([digest, { length: size }]) => ({ digest, size }))],
    open: (digest) => {
      const bytes = small.get(digest);
      return Readable.from(
        bytes === undefined ? layerOf(layers.findIndex((one) => one.digest === digest)) : [bytes],
      );
    },
  });

  const upstreams = { 'docker.io': { url: 'http://127.0.0.1:9' } };
  const mirror = await startRealMirror(t, await tempDir(t), { sealed: true, upstreams });
  const api = `http://127.0.0.1:${mirror.operationsPort}/api`;
  const begun = performance.now();
  const reply = await request(`${api}/import`, { method: 'POST', body: Readable.from(tar) });
  const events = eventsIn(await reply.body.text());
  const seconds = (performance.now() - begun) / 1000;
  const importPeak = peakResidentBytes(mirror.process.pid);
  t.diagnostic(`imported in ${seconds.toFixed(1)} s, at most ${Math.round(importPeak / MIB)} MiB resident`);
  assert.deepEqual([events.at(-1)?.event, events.at(-1)?.['failed']], ['done', 0]);
  assert.ok(importPeak <= ALLOWED_BYTES, `${Math.round(importPeak / MIB)} MiB`);

  const exported = await request(`${api}/export?image=docker.io/org/app:1`);
  let bytes = 0;
  for await (const chunk of exported.body) bytes += (chunk as Buffer).length;
  const exportPeak = peakResidentBytes(mirror.process.pid);
  t.diagnostic(`exported ${bytes} bytes, at most ${Math.round(exportPeak / MIB)} MiB resident`);
  assert.ok(bytes > 5 * 1024 * MIB);
  assert.ok(exportPeak <= ALLOWED_BYTES, `${Math.round(exportPeak / MIB)} MiB`);
});

test('an import that takes longer than a minute is not cut while it moves', async (t) => {
  const upstreams = { 'docker.io': { url: 'http://127.0.0.1:9' } };
  const mirror = await startRealMirror(t, await tempDir(t), { sealed: true, upstreams });
  const archive = await archiveOf({ 'docker.io/org/app:1': buildImage({ layers: [80 * 1024] }) });
  async function* slowly() {
    for await (const piece of pieces(archive, 1024)) {
      yield piece;
      await setTimeout(1000);
    }
  }
  const url = `http://127.0.0.1:${mirror.operationsPort}/api/import`;
  const reply = await request(url, { method: 'POST', body: Readable.from(slowly()) });
  assert.equal(eventsIn(await reply.body.text()).at(-1)?.['failed'], 0);
});

function peakResidentBytes(pid: number): number {
  const match = /VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
  return Number(match?.[1]) * 1024;
}
