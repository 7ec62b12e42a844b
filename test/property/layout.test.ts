import assert from 'node:assert/strict';
import { buffer } from 'node:stream/consumers';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { digestOf } from '../../src/oci/digest.ts';
import { formatImageName, parseImageName } from '../../src/oci/image-name.ts';
import { OCI_INDEX, OCI_MANIFEST } from '../../src/oci/manifest.ts';
import { LayoutError } from '../../src/transfer/layout/errors.ts';
import { type LayoutImage, writeLayout } from '../../src/transfer/layout/layout-writer.ts';
import { noise } from '../helpers/images.ts';
import { blobEntry, KeepingSink, layoutOf, pieces, readTar, tarOf } from '../helpers/tars.ts';

const name = fc.option(
  fc
    .tuple(
      fc.constantFrom('docker.io/library/', 'quay.io/org/', 'registry:5000/a/b/'),
      fc.stringMatching(/^[a-z0-9]{1,8}$/),
      fc.stringMatching(/^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,20}$/),
    )
    .map(([prefix, last, tag]) => parseImageName(`${prefix}${last}:${tag}`)),
  { nil: undefined },
);
// Includes the edges of tar's blocks and of stream buffers.
const size = fc.oneof(
  fc.integer({ min: 0, max: 70_000 }),
  fc.constantFrom(0, 1, 511, 512, 513, 1024, 16_384),
);
const algorithm = fc.constantFrom('sha256', 'sha512');
const blob = fc.tuple(size, fc.string({ maxLength: 3 }), algorithm, name, fc.boolean(), fc.boolean());
const step = fc.integer({ min: 100, max: 40_000 });

test('reading gives back what was written: each blob that was not left out, each image under its name, once', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(blob, { maxLength: 8 }),
      step,
      step,
      fc.boolean(),
      async (blobs, writeStep, readStep, zipped) => {
        const all = new Map(
          blobs.map(([length, seed, kind]) => {
            const bytes = noise(length, seed);
            return [digestOf(bytes, kind), bytes];
          }),
        );
        const images = new Map<string, LayoutImage>();
        const since = new Set<string>();
        for (const [length, seed, kind, someName, isIndex, isLeftOut] of blobs) {
          const digest = digestOf(noise(length, seed), kind);
          const full = someName === undefined ? '' : formatImageName(someName);
          if (isLeftOut) since.add(digest);
          const mediaType = isIndex ? OCI_INDEX : OCI_MANIFEST;
          const descriptor = { mediaType, digest, size: length };
          images.set(`${full} ${digest} ${mediaType}`, {
            descriptor,
            ...(someName === undefined ? {} : { name: someName }),
          });
        }
        const tar = await buffer(
          writeLayout({
            images: [...images.values()],
            blobs: [...all].map(([digest, bytes]) => ({ digest, size: bytes.length })),
            since: new Set([...all.keys()].filter((digest) => since.has(digest))),
            open: (digest) => pieces(all.get(digest) ?? Buffer.alloc(0), writeStep),
          }),
        );
        const sink = new KeepingSink();
        const found = await readTar(zipped ? gzipSync(tar) : tar, sink, undefined, readStep);
        const key = (image: LayoutImage) => JSON.stringify([image.name, image.descriptor]);
        assert.deepEqual(found.map(key).toSorted(), [...images.values()].map(key).toSorted());
        const expected = [...all].filter(([digest]) => !since.has(digest));
        assert.deepEqual(sink.calls.toSorted(), expected.map(([digest]) => digest).toSorted());
        for (const [digest, bytes] of expected) assert.ok(sink.blobs.get(digest)?.equals(bytes));
      },
    ),
    { numRuns: 100 },
  );
});

test('a damaged archive is refused, or digests find its damage', async () => {
  const manifest = noise(1500, 'manifest');
  const entries = [
    ...layoutOf(manifest),
    blobEntry(noise(800, 'layer')),
    blobEntry(noise(900, 'x'), digestOf(noise(900, 'x'), 'sha512')),
  ];
  const tar = await tarOf(entries);
  const flip = fc.tuple(fc.nat({ max: tar.length - 1 }), fc.integer({ min: 1, max: 255 }));
  const cut = fc.tuple(fc.nat({ max: tar.length }), fc.nat({ max: 3000 }));
  await fc.assert(
    fc.asyncProperty(
      fc.array(flip, { maxLength: 3 }),
      cut,
      fc.boolean(),
      async (flips, [at, length], isCut) => {
        const damaged = Buffer.from(tar);
        for (const [position, mask] of flips)
          damaged.writeUInt8(damaged.readUInt8(position) ^ mask, position);
        const bytes = isCut
          ? Buffer.concat([damaged.subarray(0, at), damaged.subarray(at + length)])
          : damaged;
        const sink = new KeepingSink();
        try {
          await readTar(bytes, sink);
        } catch (error) {
          assert.ok(error instanceof LayoutError, String(error));
        }
        // The sink throws if it gets another number of bytes than its stated size.
        assert.equal(new Set(sink.calls).size, sink.calls.length);
      },
    ),
    { numRuns: 1000 },
  );
});
