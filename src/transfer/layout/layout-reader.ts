/**
 * Reads an OCI image layout tar from a stream. Every blob goes to a sink as it arrives, and at the end the reader
 * returns the images that the archive lists.
 *
 * No path of the archive becomes a path on our disk: it is a digest, one of three known files, or skipped.
 */
import { createHash } from 'node:crypto';
import { buffer } from 'node:stream/consumers';
import { type Digest, digestAlgorithm, digestFrom, parseDigest } from '../../oci/digest.ts';
import { HOW_TO_WRITE, LayoutError, printable } from './errors.ts';
import { checkLayoutVersion, type ListedImage, listedImages, withRepoTags } from './layout-index.ts';
import { type TarEntry, tarEntries } from './tar-entries.ts';

export interface LayoutSink {
  /**
   * Takes a blob and verifies its digest. The calls come one after the other, and only one for each digest.
   *
   * @param body exactly `size` bytes, or an error. It need not be read, and cannot be read after the promise resolves
   */
  blob(digest: Digest, size: number, body: AsyncIterable<Buffer>): Promise<void>;
}

export interface LayoutLimits {
  maxEntries: number;
  maxBlobBytes: number;
}

/** Enough for ten thousand images, and for layers larger than registries accept. */
const DEFAULT_LIMITS: LayoutLimits = { maxEntries: 100_000, maxBlobBytes: 64 * 1024 ** 3 };

/** Limits files that are read into memory. Only index.json grows, with the number of images. */
const FILE_MAX_BYTES = 8 * 1024 * 1024;

const LAYOUT_FILES = ['oci-layout', 'index.json', 'manifest.json'] as const;
type LayoutFile = (typeof LAYOUT_FILES)[number];

/** Matches the layers of a `docker-archive`: a layout has its layers under `blobs/`. */
const OLD_DOCKER_LAYER = /^[0-9a-f]{64}(?:\/layer\.tar|\.tar)$/;

/**
 * Reads an archive to its end, with or without gzip, no faster than the sink takes it. The caller limits the length of
 * `input`, which is closed when the promise settles.
 *
 * An error can come after blobs have gone to the sink. Then the caller must not make an image of them.
 *
 * @returns the images of `index.json`. Blobs of theirs can be missing if the archive builds on an earlier one
 * @throws {LayoutError} with every code except `missing-blob` and `wrong-digest`. Errors of `input` and `sink` are
 *   thrown unchanged
 */
export async function readLayout(
  input: AsyncIterable<Uint8Array>,
  sink: LayoutSink,
  limits: LayoutLimits = DEFAULT_LIMITS,
): Promise<ListedImage[]> {
  const reader = new LayoutReader(sink, limits);
  for await (const entry of tarEntries(input)) await reader.take(entry);
  return reader.finish();
}

class LayoutReader {
  readonly #sink: LayoutSink;
  readonly #limits: LayoutLimits;
  readonly #files = new Map<LayoutFile, Buffer>();
  readonly #seen = new Set<Digest>();
  /** Sizes by index.json or by the tar, whichever came first. */
  readonly #sizes = new Map<Digest, number>();
  #images: ListedImage[] = [];
  #entries = 0;

  constructor(sink: LayoutSink, limits: LayoutLimits) {
    this.#sink = sink;
    this.#limits = limits;
  }

  async take(entry: TarEntry): Promise<void> {
    const { maxEntries } = this.#limits;
    this.#entries += 1;
    if (this.#entries > maxEntries) {
      throw new LayoutError(
        'too-many-entries',
        `the archive has more than ${maxEntries} entries: split it into several`,
      );
    }
    const path = safePath(entry.name);
    const file = LAYOUT_FILES.find((name) => name === path);
    if (file !== undefined) await this.#takeFile(file, entry);
    else if (path === 'blobs' || path.startsWith('blobs/')) await this.#takeBlob(path, entry);
    else if (OLD_DOCKER_LAYER.test(path)) throw dockerArchive();
    else requireSize(entry, FILE_MAX_BYTES);
  }

  /** @throws {LayoutError} */
  finish(): ListedImage[] {
    const dockerManifest = this.#files.get('manifest.json');
    const missing = (['index.json', 'oci-layout'] as const).find((file) => !this.#files.has(file));
    if (missing === 'index.json' && dockerManifest !== undefined) throw dockerArchive();
    if (missing !== undefined) {
      throw new LayoutError('not-a-layout', `the archive has no ${missing}: ${HOW_TO_WRITE}`);
    }
    return dockerManifest === undefined ? this.#images : withRepoTags(this.#images, dockerManifest);
  }

  async #takeFile(file: LayoutFile, entry: TarEntry): Promise<void> {
    requireFile(entry);
    requireSize(entry, FILE_MAX_BYTES);
    const bytes = await buffer(entry.body);
    const known = this.#files.get(file);
    if (known?.equals(bytes) === false) throw duplicate(entry);
    if (known !== undefined) return;
    this.#files.set(file, bytes);
    if (file === 'oci-layout') checkLayoutVersion(bytes);
    if (file !== 'index.json') return;
    this.#images = listedImages(bytes);
    for (const { descriptor } of this.#images) this.#agreeOnSize(descriptor.digest, descriptor.size);
  }

  async #takeBlob(path: string, entry: TarEntry): Promise<void> {
    const [, algorithm = '', hex, ...rest] = path.split('/');
    if (hex === undefined && entry.isDirectory) return;
    const digest = rest.length === 0 ? parseDigest(`${algorithm}:${hex ?? ''}`) : undefined;
    if (digest === undefined) {
      const message = `${printable(entry.name)} in the archive is not named after a sha256 or sha512 digest`;
      throw new LayoutError('bad-name', `${message}: ${HOW_TO_WRITE}`);
    }
    requireFile(entry);
    requireSize(entry, this.#limits.maxBlobBytes);
    if (this.#seen.has(digest)) {
      if (!(await hasDigest(entry, digest))) throw duplicate(entry);
      return;
    }
    this.#agreeOnSize(digest, entry.size);
    this.#seen.add(digest);
    await this.#sink.blob(digest, entry.size, entry.body);
  }

  #agreeOnSize(digest: Digest, size: number): void {
    const known = this.#sizes.get(digest) ?? size;
    this.#sizes.set(digest, known);
    if (known === size) return;
    const message = `the archive gives ${digest} two sizes, ${known} and ${size} bytes`;
    throw new LayoutError('wrong-size', `${message}: write the archive again`);
  }
}

/** Removes the `./` that `tar` puts before paths, and the slash after a folder. @throws {LayoutError} `bad-name` */
function safePath(name: string): string {
  const path = name.replace(/^\.(?:\/|$)/, '').replace(/\/$/, '');
  if (path === '' || !path.split('/').some((part) => part === '' || part === '.' || part === '..'))
    return path;
  const message = `${printable(name)} is not a plain path inside the archive`;
  throw new LayoutError('bad-name', `${message}: do not trust this archive; ${HOW_TO_WRITE}`);
}

function requireFile({ name, isFile }: TarEntry): void {
  if (isFile) return;
  const message = `${printable(name)} in the archive is a link, a folder or a device, not a file`;
  throw new LayoutError('not-a-file', `${message}: ${HOW_TO_WRITE}`);
}

function requireSize({ name, size }: TarEntry, limit: number): void {
  if (size <= limit) return;
  const message = `${printable(name)} in the archive has ${size} bytes, and the limit is ${limit}`;
  throw new LayoutError('too-large', `${message}: leave it out`);
}

function duplicate({ name }: TarEntry): LayoutError {
  const message = `${printable(name)} is in the archive twice, with different content`;
  return new LayoutError('duplicate', `${message}: write the archive again`);
}

function dockerArchive(): LayoutError {
  const message = 'the archive has the old format of docker save, which contains no manifests';
  return new LayoutError('docker-archive', `${message}: ${HOW_TO_WRITE}`);
}

async function hasDigest({ body }: TarEntry, digest: Digest): Promise<boolean> {
  const algorithm = digestAlgorithm(digest);
  const hash = createHash(algorithm);
  for await (const chunk of body) hash.update(chunk);
  return digestFrom(hash, algorithm) === digest;
}
