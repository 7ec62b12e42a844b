import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { request } from 'undici';
import { digestOf } from '../../src/oci/digest.ts';
import { OCI_MANIFEST } from '../../src/oci/manifest.ts';
import { noise } from '../helpers/images.ts';
import { type RealMirror, startRealMirror } from '../helpers/real-mirror.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { tempDir } from '../helpers/temp-dir.ts';

const MIB = 1024 * 1024;
const SEGMENT = 16 * MIB;
const blob = noise(80 * MIB, 'holes');
const digest = digestOf(blob);

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

function manifest(): Buffer {
  const config = { digest: digestOf(Buffer.from('{}')), size: 2, mediaType: 'c' };
  const layers = [{ digest, size: blob.length, mediaType: 'l' }];
  return Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers }));
}

for (const [what, isStalled, end, resumedAt] of [
  ['none of them complete', () => true, 3 * SEGMENT + MIB, 0],
  [
    'all but the second complete',
    (range = '') => range.startsWith(`bytes=${SEGMENT}-`),
    blob.length,
    SEGMENT,
  ],
] as const) {
  test(`kill -9 while parts of a blob come, ${what}: the next pull goes on from the front, and trusts no hole behind it`, async (t) => {
    const upstream = await ScriptedUpstream.start(t);
    upstream.addContent(blob);
    upstream.addManifest('a/b', manifest(), OCI_MANIFEST, '1');
    const never = Promise.withResolvers<void>();
    upstream.script({ kind: 'blob' }, (reply, { headers }) => {
      if (isStalled(headers.range)) reply.stall = { after: MIB, until: never.promise };
    });
    const directory = await tempDir(t);
    const config = { upstreams: { 'docker.io': { url: upstream.url, freshness: { tagTtl: '24h' } } } };
    const first = await startRealMirror(t, directory, config);
    const get = async ({ port }: RealMirror, path: string) => {
      const { statusCode, body } = await request(`http://127.0.0.1:${port}/v2/a/b/${path}`);
      return { status: statusCode, bytes: Buffer.from(await body.arrayBuffer()) };
    };
    assert.equal((await get(first, 'manifests/1')).status, 200);
    const broken = get(first, `blobs/${digest}`).catch(() => undefined);
    const folder = join(directory, 'data/ingest');
    const partial = join(folder, `${digest.replace(':', '-')}.${originTag('docker.io')}`);
    // The file goes on behind the part that has not come: only the note tells of the hole.
    while ((await sizeOf(partial)) < end) await ready(first);
    for (let turn = 0; turn < 500 && (await noteOf(partial)) < resumedAt; turn += 1) await ready(first);
    await first.process.kill();
    await broken;
    never.resolve();
    upstream.clearScripts();
    upstream.requests.length = 0;

    const next = await startRealMirror(t, directory, config);
    const { status, bytes } = await get(next, `blobs/${digest}`);
    assert.deepEqual([status, sha256(bytes)], [200, sha256(blob)]);
    const from = upstream.requests.map(({ headers }) =>
      Number(/^bytes=(\d+)-/.exec(headers.range ?? '')?.[1]),
    );
    assert.ok(Math.min(...from) >= resumedAt, `fetched from ${from.join(', ')}`);
    await next.stop();
  });
}

/** Gives the mirror time to get on: it answers when it has written to its disk. */
async function ready({ operationsPort }: RealMirror): Promise<void> {
  await (await fetch(`http://127.0.0.1:${operationsPort}/readyz`)).text();
}

async function sizeOf(path: string): Promise<number> {
  return (await stat(path).catch(() => undefined))?.size ?? 0;
}

async function noteOf(path: string): Promise<number> {
  return Number(await readFile(`${path}.front`, 'utf8').catch(() => '0'));
}

function originTag(origin: string): string {
  return createHash('sha256').update(origin).digest('hex').slice(0, 16);
}
