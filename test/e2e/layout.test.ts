import assert from 'node:assert/strict';
import { createReadStream, createWriteStream } from 'node:fs';
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { type TestContext, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { type Digest, digestOf, parseDigest } from '../../src/oci/digest.ts';
import { formatImageName, parseImageName } from '../../src/oci/image-name.ts';
import { OCI_INDEX, parseManifest } from '../../src/oci/manifest.ts';
import { LayoutError } from '../../src/transfer/layout/errors.ts';
import type { ListedImage } from '../../src/transfer/layout/layout-index.ts';
import { readLayout } from '../../src/transfer/layout/layout-reader.ts';
import { type LayoutContents, writeLayout } from '../../src/transfer/layout/layout-writer.ts';
import { preparePodman, startContainerd, startDockerd } from '../helpers/real-clients.ts';
import { missingPrograms } from '../helpers/real-processes.ts';
import { makeImage, pushImage, type RealImage, RealRegistry } from '../helpers/real-registry.ts';
import { digestsIn, skopeoCopy } from '../helpers/skopeo.ts';
import { KeepingSink, pieces } from '../helpers/tars.ts';
import { tempDir } from '../helpers/temp-dir.ts';

const NAME = 'docker.io/library/busybox:1';

/** The image in a registry, under the paths where each client looks for it, and a folder. */
async function source(t: TestContext) {
  const directory = await tempDir(t);
  const image = await makeImage(directory);
  const registry = await RealRegistry.start(t);
  for (const path of ['library/busybox:1', 'docker.io/library/busybox:1'])
    await pushImage(image, registry, path);
  return { directory, image, registry };
}

async function contentsOf({ layout, digest }: RealImage): Promise<LayoutContents> {
  const folder = join(layout, 'blobs/sha256');
  const blobs = (await readdir(folder)).map(async (hex) => ({
    digest: requireDigest(`sha256:${hex}`),
    size: (await stat(join(folder, hex))).size,
  }));
  const index = requireDigest(digest);
  const fileOf = (of: Digest) => join(folder, of.slice('sha256:'.length));
  const { size } = await stat(fileOf(index));
  const name = parseImageName(NAME);
  return {
    images: [
      { descriptor: { mediaType: OCI_INDEX, digest: index, size }, ...(name === undefined ? {} : { name }) },
    ],
    blobs: await Promise.all(blobs),
    open: (of) => createReadStream(fileOf(of)) as AsyncIterable<Buffer>,
  };
}

function requireDigest(text: string): Digest {
  return parseDigest(text) ?? assert.fail(text);
}

async function writeArchive(directory: string, image: RealImage): Promise<string> {
  const file = join(directory, 'ours.tar');
  await pipeline(writeLayout(await contentsOf(image)), createWriteStream(file));
  return file;
}

/** Reads an archive and holds that it is whole: every digest is right, and whatever its images need is there. */
async function readWhole(bytes: Buffer): Promise<{ images: ListedImage[]; blobs: Map<Digest, Buffer> }> {
  const sink = new KeepingSink();
  const images = await readLayout(pieces(bytes, 64 * 1024), sink);
  for (const [digest, content] of sink.blobs) assert.equal(digestOf(content), digest);
  const needed = images.map(({ descriptor }) => descriptor.digest);
  for (const digest of needed) {
    const content = sink.blobs.get(digest) ?? assert.fail(`${digest} is missing`);
    const manifest = parseManifest(content);
    needed.push(...[...(manifest?.manifests ?? []), ...(manifest?.blobs ?? [])].map((child) => child.digest));
  }
  assert.ok(needed.length >= 4, 'a manifest, a config, and two layers');
  return { images, blobs: sink.blobs };
}

function namesOf(images: ListedImage[]): string[] {
  return images.map(({ name, tag }) => (name === undefined ? `tag ${tag ?? '-'}` : formatImageName(name)));
}

test('skopeo copies our archive, by its name or because it holds one image, and has the source digest for digest', {
  skip: missingPrograms('docker-registry', 'skopeo', 'busybox'),
}, async (t) => {
  const { directory, image, registry } = await source(t);
  const expected = join(directory, 'expected');
  await skopeoCopy(`docker://127.0.0.1:${registry.port}/library/busybox:1`, `dir:${expected}`);
  const file = await writeArchive(directory, image);
  for (const reference of [`oci-archive:${file}:${NAME}`, `oci-archive:${file}`]) {
    const copy = await tempDir(t);
    await skopeoCopy(reference, `dir:${copy}`);
    assert.deepEqual(await digestsIn(copy), await digestsIn(expected));
    assert.equal(digestOf(await readFile(join(copy, 'manifest.json'))), image.digest);
  }
});

test('an archive of skopeo is read under the name it was given, and is the source digest for digest', {
  skip: missingPrograms('docker-registry', 'skopeo', 'busybox'),
}, async (t) => {
  const { directory, image, registry } = await source(t);
  for (const [at, suffix, name] of [
    [0, `:${NAME}`, NAME],
    [1, ':busybox:1', NAME],
    [2, ':latest', 'tag latest'],
    [3, '', 'tag -'],
  ] as const) {
    const file = join(directory, `skopeo-${at}.tar`);
    await skopeoCopy(`docker://127.0.0.1:${registry.port}/library/busybox:1`, `oci-archive:${file}${suffix}`);
    const { images, blobs } = await readWhole(await readFile(file));
    assert.deepEqual(namesOf(images), [name]);
    assert.equal(images[0]?.descriptor.digest, image.digest);
    const ours = [...(await contentsOf(image)).blobs].map(({ digest }) => digest);
    assert.deepEqual([...blobs.keys()].toSorted(), ours.toSorted());
  }
});

test('an archive of podman save is read under its name, gzip’ed too', {
  skip: missingPrograms('docker-registry', 'skopeo', 'busybox', 'podman'),
}, async (t) => {
  const { directory, registry } = await source(t);
  const podman = await preparePodman(t, registry.port);
  await podman.pull();
  const file = join(directory, 'podman.tar');
  await podman.save(file);
  const tar = await readFile(file);
  for (const bytes of [tar, gzipSync(tar)]) {
    assert.deepEqual(namesOf((await readWhole(bytes)).images), [NAME]);
  }
});

test('an archive that containerd exports, of the shape that docker save has since Docker 25, is read under its name', {
  skip: missingPrograms('docker-registry', 'skopeo', 'busybox', 'containerd', 'ctr'),
}, async (t) => {
  const { directory, image, registry } = await source(t);
  const name = 'quay.io/library/busybox:1';
  const host = (port: number) => `http://127.0.0.1:${port}`;
  const containerd = await startContainerd(t, registry.port, { image: name, host });
  await containerd.pull();
  const file = join(directory, 'containerd.tar');
  await containerd.save(file);
  const tar = await readFile(file);
  assert.ok(tar.includes('"RepoTags":["quay.io/library/busybox:1"]'), 'it has a manifest.json too');
  const { images } = await readWhole(tar);
  assert.deepEqual(namesOf(images), [name]);
  assert.equal(images[0]?.descriptor.digest, image.digest);
});

test('what docker save of Docker 20.10 writes is refused with the advice what to write instead', {
  skip: missingPrograms('docker-registry', 'skopeo', 'busybox', 'dockerd', 'docker', 'containerd', 'runc'),
}, async (t) => {
  const { directory, registry } = await source(t);
  const docker = await startDockerd(t, registry.port);
  await docker.pull();
  const file = join(directory, 'docker.tar');
  await docker.save(file);
  const error = await readWhole(await readFile(file)).catch((reason: unknown) => reason);
  assert.ok(error instanceof LayoutError && error.code === 'docker-archive', String(error));
  assert.match(error.message, /Docker 25/);
});
