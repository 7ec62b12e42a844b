/**
 * Writes images as one OCI image layout tar (image-spec, image-layout.md).
 *
 * The same images and blobs give the same bytes, in whatever order they are passed. `oci-layout` and `index.json` come
 * first, so that a program that reads the archive as a stream knows what is coming. The blobs follow, sorted by digest.
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
  /** Absent if only the digest of the image is known. */
  name?: ImageName;
}

export interface LayoutContents {
  images: readonly LayoutImage[];
  /** Everything that the images need, including their manifests. A digest may occur more than once. */
  blobs: Iterable<Pick<Descriptor, 'digest' | 'size'>>;
  /** Content of an earlier archive, which is left out of this one. */
  since?: ReadonlySet<Digest>;
  /** Reads a blob. The archive keeps the buffers, so they must not be reused. */
  open: (digest: Digest) => AsyncIterable<Buffer>;
}

export const LAYOUT_VERSION = '1.0.0';
/** Annotation with the full name; containerd, nerdctl and Docker read it. */
export const CONTAINERD_NAME = 'io.containerd.image.name';
/** Annotation that gets the full name too: skopeo and podman choose and name images by it. */
export const REF_NAME = 'org.opencontainers.image.ref.name';

/** Hides owner and time: they are private, and would make every archive different. */
const SAME_FOR_ALL = { type: 'file', mode: 0o644, uid: 0, gid: 0, mtime: new Date(0) } as const;

/**
 * Makes an archive while it is read, at most some chunks ahead of its reader. It stops when its reader stops.
 *
 * @throws {LayoutError} at once: `missing-blob`, or `wrong-size` if one blob has two sizes. While it is read:
 *   `wrong-size` if a blob does not have its stated size. Errors of `open` are thrown unchanged
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
  // A failure destroys the tar with the same error, so the loop below throws it.
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
        `${digest} has two sizes, ${known} and ${size} bytes: scrub the cache`,
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

/** Gives an image without a tag its repository, but no ref.name, because tools would show that as a tag. */
function annotationsOf({ host, repository, tag }: ImageName, digest: Digest): Record<string, string> {
  if (tag === undefined) return { [CONTAINERD_NAME]: formatImageName({ host, repository, digest }) };
  const name = formatImageName({ host, repository, tag });
  return { [CONTAINERD_NAME]: name, [REF_NAME]: name };
}

/** Compares by code unit, so that the order does not depend on the locale. */
function byKey([a]: readonly [string, unknown], [b]: readonly [string, unknown]): number {
  return a < b ? -1 : Number(a > b);
}
