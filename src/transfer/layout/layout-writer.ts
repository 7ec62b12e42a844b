/**
 * Writes images as one OCI image layout tar (image-spec, image-layout.md).
 *
 * The same images and blobs give the same bytes, in whatever order they are given. `oci-layout` and `index.json` stand
 * first, so that whoever reads the archive as a stream knows what is coming; then the blobs by digest.
 */
import { pipeline } from 'node:stream/promises';
import { type Pack, pack } from 'tar-stream';
import { type Digest, digestAlgorithm, digestHex } from '../../oci/digest.ts';
import { formatImageName, type ImageName } from '../../oci/image-name.ts';
import { type Descriptor, OCI_INDEX } from '../../oci/manifest.ts';
import { LayoutError } from './errors.ts';

/** An image in an archive. */
export interface LayoutImage {
  descriptor: Descriptor;
  /** Left out for an image that is known by its digest alone. */
  name?: ImageName;
}

export interface LayoutContents {
  images: readonly LayoutImage[];
  /** Everything that the images need, their manifests too. A digest may be named more than once. */
  blobs: Iterable<Pick<Descriptor, 'digest' | 'size'>>;
  /** What an earlier archive holds: left out of this one. */
  since?: ReadonlySet<Digest>;
  /** Reads a blob. Its buffers are the archive's to keep: they must not be filled again. */
  open: (digest: Digest) => AsyncIterable<Buffer>;
}

export const LAYOUT_VERSION = '1.0.0';
/** The full name; containerd, nerdctl and Docker read it. */
export const CONTAINERD_NAME = 'io.containerd.image.name';
/** Here the full name, too: skopeo and podman choose and name images by it. */
export const REF_NAME = 'org.opencontainers.image.ref.name';

// Whoever owns the cache and whenever it was filled is nobody's business, and would make every archive a new one.
const SAME_FOR_ALL = { type: 'file', mode: 0o644, uid: 0, gid: 0, mtime: new Date(0) } as const;

/**
 * The archive, made as it is read: at most some chunks ahead of its reader. To stop reading stops it.
 *
 * @throws {LayoutError} at once: `missing-blob`, or `wrong-size` where one blob is given two sizes; while it is read:
 *   `wrong-size`, a blob is not as long as was said. Errors of `open` come out as they are.
 */
export function writeLayout({ images, blobs, since, open }: LayoutContents): AsyncIterable<Buffer> {
  const sizes = blobSizes(blobs);
  for (const { descriptor } of images) requireBlob(descriptor, sizes, since);
  const written = [...sizes].filter(([digest]) => since?.has(digest) !== true).toSorted(byKey);
  return archive([
    fileOf('oci-layout', JSON.stringify({ imageLayoutVersion: LAYOUT_VERSION })),
    fileOf('index.json', indexJson(images)),
    ...written.map(([digest, size]) => ({
      name: `blobs/${digestAlgorithm(digest)}/${digestHex(digest)}`,
      size,
      body: () => wholeBlob(digest, size, open),
    })),
  ]);
}

interface TarFile {
  name: string;
  size: number;
  body: () => AsyncIterable<Buffer> | Iterable<Buffer>;
}

function fileOf(name: string, text: string): TarFile {
  const bytes = Buffer.from(text);
  return { name, size: bytes.length, body: () => [bytes] };
}

async function* archive(files: TarFile[]): AsyncGenerator<Buffer, void> {
  const tar = pack();
  // Its failure destroys the tar with the same error, which whoever reads the tar then gets.
  const done = Promise.allSettled([addAll(tar, files)]);
  try {
    for await (const chunk of tar) yield chunk as Buffer;
  } finally {
    await done;
  }
}

async function addAll(tar: Pack, files: TarFile[]): Promise<void> {
  for (const { name, size, body } of files) {
    await pipeline(body(), tar.entry({ ...SAME_FOR_ALL, name, size }));
  }
  tar.finalize();
}

async function* wholeBlob(
  digest: Digest,
  size: number,
  open: LayoutContents['open'],
): AsyncGenerator<Buffer, void> {
  let length = 0;
  for await (const chunk of open(digest)) {
    length += chunk.length;
    if (length > size) break;
    yield chunk;
  }
  if (length !== size) {
    const found = length > size ? 'more' : `${length}`;
    throw new LayoutError(
      'wrong-size',
      `${digest} should have ${size} bytes and has ${found}: scrub the cache`,
    );
  }
}

function blobSizes(blobs: LayoutContents['blobs']): Map<Digest, number> {
  const sizes = new Map<Digest, number>();
  for (const { digest, size } of blobs) {
    const known = sizes.get(digest) ?? size;
    if (known !== size) {
      throw new LayoutError(
        'wrong-size',
        `${digest} is said to have ${known} bytes, and ${size}: scrub the cache`,
      );
    }
    sizes.set(digest, size);
  }
  return sizes;
}

function requireBlob({ digest }: Descriptor, sizes: Map<Digest, number>, since?: ReadonlySet<Digest>): void {
  if (sizes.has(digest) || since?.has(digest) === true) return;
  throw new LayoutError(
    'missing-blob',
    `the manifest ${digest} is not among the blobs: fetch the image first`,
  );
}

function indexJson(images: readonly LayoutImage[]): string {
  const manifests = images.map(({ descriptor: { mediaType, digest, size }, name }): [string, string] => {
    const annotations = name === undefined ? undefined : annotationsOf(name, digest);
    const json = JSON.stringify({ mediaType, digest, size, annotations });
    return [`${annotations?.[CONTAINERD_NAME] ?? ''} ${json}`, json];
  });
  const listed = [...new Map(manifests)].toSorted(byKey).map(([, json]) => json);
  return `{"schemaVersion":2,"mediaType":"${OCI_INDEX}","manifests":[${listed.join(',')}]}`;
}

/** An image without a tag keeps its repository, but has no ref.name: that is what tools offer as a tag. */
function annotationsOf({ host, repository, tag }: ImageName, digest: Digest): Record<string, string> {
  if (tag === undefined) return { [CONTAINERD_NAME]: formatImageName({ host, repository, digest }) };
  const name = formatImageName({ host, repository, tag });
  return { [CONTAINERD_NAME]: name, [REF_NAME]: name };
}

/** By code unit: no locale changes it. */
function byKey([a]: readonly [string, unknown], [b]: readonly [string, unknown]): number {
  return a < b ? -1 : Number(a > b);
}
