import assert from 'node:assert/strict';
import { buffer } from 'node:stream/consumers';
import { suite, test } from 'node:test';
import { extract, type Header } from 'tar-stream';
import { type Digest, digestOf } from '../../../src/oci/digest.ts';
import { parseImageName } from '../../../src/oci/image-name.ts';
import { LayoutError } from '../../../src/transfer/layout/errors.ts';
import {
  type LayoutContents,
  type LayoutImage,
  writeLayout,
} from '../../../src/transfer/layout/layout-writer.ts';
import { buildImage, noise, type TestImage } from '../../helpers/images.ts';
import { pieces } from '../../helpers/tars.ts';

const KIB = 1024;
const ALPINE = buildImage({ layers: [70_000, 10], platforms: ['amd64', 'arm64'], seed: 'alpine' });
const BUSYBOX = buildImage({ layers: [5000], seed: 'busybox' });

function blobsOf(...images: TestImage[]): Map<Digest, Buffer> {
  const all = images.flatMap(({ top, manifests, blobs }) => [
    top.bytes,
    ...manifests.map(({ bytes }) => bytes),
    ...blobs,
  ]);
  return new Map(all.map((bytes) => [digestOf(bytes), bytes]));
}

function imageOf({ top }: TestImage, name?: string): LayoutImage {
  const descriptor = { mediaType: top.mediaType, digest: top.digest, size: top.bytes.length };
  const parsed = name === undefined ? undefined : parseImageName(name);
  return { descriptor, ...(parsed === undefined ? {} : { name: parsed }) };
}

function contentsOf(blobs: Map<Digest, Buffer>, images: LayoutImage[]): LayoutContents {
  return {
    images,
    blobs: [...blobs].map(([digest, bytes]) => ({ digest, size: bytes.length })),
    open: (digest) => pieces(blobs.get(digest) ?? assert.fail(digest), 4 * KIB),
  };
}

interface Entry {
  header: Header;
  bytes: Buffer;
}

async function entriesOf(tar: AsyncIterable<Buffer>): Promise<Entry[]> {
  const reader = extract();
  reader.end(await buffer(tar));
  const entries: Entry[] = [];
  for await (const entry of reader) {
    entries.push({ header: entry.header, bytes: await buffer(entry as AsyncIterable<Buffer>) });
  }
  return entries;
}

async function indexOf(contents: LayoutContents): Promise<unknown> {
  const index = (await entriesOf(writeLayout(contents))).find(({ header }) => header.name === 'index.json');
  return JSON.parse(index?.bytes.toString() ?? '');
}

const TWO = contentsOf(blobsOf(ALPINE, BUSYBOX), [
  imageOf(ALPINE, 'alpine:3.20'),
  imageOf(BUSYBOX, 'quay.io/org/busybox:1'),
]);

test('an archive contains oci-layout, index.json, and every blob once, sorted by digest', async () => {
  const entries = await entriesOf(writeLayout({ ...TWO, blobs: [...TWO.blobs, ...TWO.blobs] }));
  const digests = [...blobsOf(ALPINE, BUSYBOX).keys()].toSorted();
  const names = entries.map(({ header }) => header.name);
  assert.deepEqual(names, [
    'oci-layout',
    'index.json',
    ...digests.map((digest) => `blobs/${digest.replace(':', '/')}`),
  ]);
  assert.equal(entries[0]?.bytes.toString(), '{"imageLayoutVersion":"1.0.0"}');
  for (const { header, bytes } of entries.slice(2)) {
    assert.equal(digestOf(bytes), header.name.replace('blobs/sha256/', 'sha256:'));
  }
});

test('index.json has the full names of images, where containerd, podman and skopeo look for them', async () => {
  const described = ({ top }: TestImage) => ({
    mediaType: top.mediaType,
    digest: top.digest,
    size: top.bytes.length,
  });
  const annotations = (name: string) => ({
    'io.containerd.image.name': name,
    'org.opencontainers.image.ref.name': name,
  });
  assert.deepEqual(await indexOf(TWO), {
    schemaVersion: 2,
    mediaType: 'application/vnd.oci.image.index.v1+json',
    manifests: [
      { ...described(ALPINE), annotations: annotations('docker.io/library/alpine:3.20') },
      { ...described(BUSYBOX), annotations: annotations('quay.io/org/busybox:1') },
    ],
  });
});

test('an image with a digest instead of a tag has no ref.name, and one without a name has no annotations', async () => {
  const { digest } = BUSYBOX.top;
  const images = [imageOf(BUSYBOX, `quay.io/org/busybox@${digest}`), imageOf(BUSYBOX)];
  const { manifests } = (await indexOf(contentsOf(blobsOf(BUSYBOX), images))) as {
    manifests: { annotations?: unknown }[];
  };
  assert.deepEqual(
    manifests.map(({ annotations }) => annotations),
    [undefined, { 'io.containerd.image.name': `quay.io/org/busybox@${digest}` }],
  );
});

test('the same images and blobs give the same bytes, in any order and any pieces', async () => {
  const first = await buffer(writeLayout(TWO));
  const blobs = blobsOf(ALPINE, BUSYBOX);
  const again = await buffer(
    writeLayout({
      images: [...TWO.images, ...TWO.images].toReversed(),
      blobs: [...TWO.blobs].toReversed(),
      open: (digest) => pieces(blobs.get(digest) ?? assert.fail(digest), 777),
    }),
  );
  assert.ok(first.equals(again));
});

test('an archive does not reveal when, where or by whom it was written', async () => {
  for (const { header } of await entriesOf(writeLayout(TWO))) {
    const { mtime, uid, gid, uname, gname, mode, pax } = header;
    assert.deepEqual(
      { mtime: mtime.getTime(), uid, gid, uname, gname, mode, pax },
      { mtime: 0, uid: 0, gid: 0, uname: '', gname: '', mode: 0o644, pax: null },
    );
  }
});

test('content of an earlier archive is left out and not even opened', async () => {
  const since = new Set(blobsOf(ALPINE).keys());
  const opened: Digest[] = [];
  const open = (digest: Digest) => {
    opened.push(digest);
    return TWO.open(digest);
  };
  const entries = await entriesOf(writeLayout({ ...TWO, since, open }));
  const rest = [...blobsOf(BUSYBOX).keys()].filter((digest) => !since.has(digest)).toSorted();
  assert.deepEqual(opened, rest);
  assert.equal(entries.length, 2 + rest.length);
  assert.deepEqual(await indexOf({ ...TWO, since }), await indexOf(TWO), 'the images are still listed');
});

suite('no archive is started', () => {
  const code = (expected: string) => (error: unknown) =>
    error instanceof LayoutError && error.code === expected;

  test('for an image without its manifest', () => {
    const blobs = [...TWO.blobs].filter(({ digest }) => digest !== BUSYBOX.top.digest);
    assert.throws(() => writeLayout({ ...TWO, blobs }), code('missing-blob'));
  });

  test('for a blob with two sizes', () => {
    const { digest } = BUSYBOX.top;
    assert.throws(
      () => writeLayout({ ...TWO, blobs: [...TWO.blobs, { digest, size: 1 }] }),
      code('wrong-size'),
    );
  });
});

suite('an archive is cut off, without a proper end,', () => {
  const layer = noise(100 * KIB, 'layer');
  const digest = digestOf(layer);
  const broken = (open: LayoutContents['open'], size = layer.length) =>
    writeLayout({ images: [], blobs: [{ digest, size }], open });

  for (const [what, size] of [
    ['shorter', layer.length + 1],
    ['a block shorter', layer.length + 512],
    ['longer', layer.length - 1],
    ['longer by all of it', 0],
  ] as const) {
    test(`when a blob is ${what} than its stated size`, async () => {
      const error = await buffer(broken(() => pieces(layer, 4 * KIB), size)).catch(
        (reason: unknown) => reason,
      );
      assert.ok(error instanceof LayoutError && error.code === 'wrong-size', String(error));
    });
  }

  test('with the error of reading a blob', async () => {
    const fault = new Error('input/output error');
    const failing = async function* (): AsyncGenerator<Buffer, void> {
      yield layer.subarray(0, 1000);
      throw fault;
    };
    await assert.rejects(buffer(broken(failing)), (error) => error === fault);
    const failingToOpen = () => {
      throw fault;
    };
    await assert.rejects(buffer(broken(failingToOpen)), (error) => error === fault);
  });
});

/** Makes an archive of one blob of many chunks, and counts how many of them were read. */
function countedBlob(chunks: number, size = chunks) {
  const chunk = noise(64 * KIB, 'chunk');
  const seen = { given: 0, closed: false };
  const open = async function* (): AsyncGenerator<Buffer, void> {
    try {
      for (; seen.given < chunks; seen.given += 1) yield chunk;
    } finally {
      seen.closed = true;
    }
  };
  const tar = writeLayout({
    images: [],
    blobs: [{ digest: digestOf(chunk), size: size * chunk.length }],
    open,
  });
  return { seen, tar, chunkBytes: chunk.length };
}

/** Gives code that reads ahead the time to do so. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 10; turn += 1) await new Promise(setImmediate);
}

test('no more than some chunks are read ahead of a reader that stalls', async () => {
  const { seen, tar, chunkBytes } = countedBlob(200);
  let taken = 0;
  let ahead = 0;
  for await (const piece of tar) {
    taken += piece.length;
    await settle();
    ahead = Math.max(ahead, seen.given - Math.floor(taken / chunkBytes));
  }
  assert.equal(seen.given, 200);
  assert.ok(ahead <= 4, `${ahead} chunks ahead`);
});

test('a blob that never ends is closed as soon as it is too long', async () => {
  const { seen, tar } = countedBlob(200, 3);
  await assert.rejects(buffer(tar), LayoutError);
  assert.ok(seen.closed);
  assert.equal(seen.given, 3, 'the fourth chunk is one too many');
});

test('a blob above 8 GiB, too large for the size field of a tar header, still has its size', async () => {
  const { tar, chunkBytes } = countedBlob(200_000);
  const pieces: Buffer[] = [];
  for await (const piece of tar) {
    pieces.push(piece);
    if (piece.length === chunkBytes) break;
  }
  const reader = extract();
  reader.write(Buffer.concat(pieces));
  const sizes: number[] = [];
  for await (const entry of reader) {
    sizes.push(entry.header.size);
    if (entry.header.name.startsWith('blobs/')) break;
    entry.resume();
  }
  assert.equal(sizes.at(-1), 200_000 * chunkBytes);
});

test('a reader that stops closes the blob that it was reading', async () => {
  const { seen, tar } = countedBlob(200);
  let pieces = 0;
  for await (const _ of tar) {
    pieces += 1;
    if (pieces === 10) break;
  }
  assert.ok(seen.closed);
  assert.ok(seen.given < 20, `${seen.given} chunks were read`);
});
