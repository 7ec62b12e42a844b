/** Makes archives of test images, and imports, exports and pulls images through a mirror. */
import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import { request } from 'undici';
import type { Digest } from '../../src/oci/digest.ts';
import { digestOf } from '../../src/oci/digest.ts';
import type { ListedImage } from '../../src/transfer/layout/layout-index.ts';
import { readLayout } from '../../src/transfer/layout/layout-reader.ts';
import type { TestImage } from './images.ts';
import type { TestMirror } from './start-mirror.ts';
import { blobEntry, indexEntry, KeepingSink, pieces, type TestEntry, tarOf, VERSION_ENTRY } from './tars.ts';

export type ApiEvent = Record<string, unknown> & { event: string };

export const REF_NAME = 'org.opencontainers.image.ref.name';

/** Returns the manifests and blobs of images, each once. */
export function contentOf(...images: TestImage[]): Buffer[] {
  const all = images.flatMap(({ top, manifests, blobs }) => [
    top.bytes,
    ...manifests.map(({ bytes }) => bytes),
    ...blobs,
  ]);
  return [...new Map(all.map((bytes) => [digestOf(bytes), bytes])).values()];
}

/** Orders entries as skopeo does, blobs first. The keys of `images` become their ref.name. */
export function entriesOf(
  images: Record<string, TestImage>,
  content = contentOf(...Object.values(images)),
): TestEntry[] {
  const listings = Object.entries(images).map(([name, { top }]) => ({
    digest: top.digest,
    size: top.bytes.length,
    mediaType: top.mediaType,
    annotations: { [REF_NAME]: name },
  }));
  return [...content.map((bytes) => blobEntry(bytes)), indexEntry(...listings), VERSION_ENTRY];
}

export function archiveOf(images: Record<string, TestImage>, content?: Buffer[]): Promise<Buffer> {
  return tarOf(entriesOf(images, content));
}

export async function importArchive(
  mirror: TestMirror,
  archive: Buffer | AsyncIterable<Buffer>,
  query = '',
): Promise<ApiEvent[]> {
  const body = Readable.from(Buffer.isBuffer(archive) ? pieces(archive, 64 * 1024) : archive);
  const reply = await request(`${mirror.operationsUrl}/api/import${query}`, { method: 'POST', body });
  const text = await reply.body.text();
  assert.equal(reply.statusCode, 200, text);
  return eventsIn(text);
}

export function eventsIn(text: string): ApiEvent[] {
  return text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as ApiEvent);
}

/** Returns the events without those of progress. */
export function outcomes(events: ApiEvent[]): ApiEvent[] {
  return events.filter(({ event }) => event !== 'progress');
}

export interface ReadArchive {
  images: ListedImage[];
  blobs: Map<Digest, Buffer>;
}

export async function readArchive(tar: Buffer): Promise<ReadArchive> {
  const sink = new KeepingSink();
  const images = await readLayout(pieces(tar, 64 * 1024), sink);
  for (const [digest, bytes] of sink.blobs) assert.equal(digestOf(bytes), digest);
  return { images, blobs: sink.blobs };
}

export async function exportArchive(
  mirror: TestMirror,
  wanted: { images: string[]; platforms?: string[]; since?: string[] },
): Promise<{ status: number; tar: Buffer; error: unknown }> {
  const reply = await request(`${mirror.operationsUrl}/api/export`, {
    method: 'POST',
    body: JSON.stringify(wanted),
  });
  const bytes = Buffer.from(await reply.body.arrayBuffer());
  if (reply.statusCode === 200) return { status: 200, tar: bytes, error: undefined };
  const { error } = JSON.parse(bytes.toString()) as { error: unknown };
  return { status: reply.statusCode, tar: Buffer.alloc(0), error };
}

/** Pulls an image with everything below it, as a client does. @returns bytes by path */
export async function pullImage(
  mirror: TestMirror,
  repository: string,
  reference: string,
): Promise<Map<string, Buffer>> {
  const pulled = new Map<string, Buffer>();
  const get = async (path: string) => {
    const reply = await mirror.get(`/v2/${repository}/${path}`);
    assert.equal(reply.status, 200, `${path}: ${reply.body.toString('utf8', 0, 500)}`);
    pulled.set(path, reply.body);
    return reply.body;
  };
  const manifest = async (at: string) => {
    const {
      manifests = [],
      config,
      layers = [],
    } = JSON.parse((await get(`manifests/${at}`)).toString()) as {
      manifests?: { digest: string }[];
      config?: { digest: string };
      layers?: { digest: string }[];
    };
    for (const { digest } of manifests) await manifest(digest);
    for (const { digest } of [...(config === undefined ? [] : [config]), ...layers])
      await get(`blobs/${digest}`);
  };
  await manifest(reference);
  await mirror.idle();
  return pulled;
}
