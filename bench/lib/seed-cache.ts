/** Writes a cache directory as a mirror would have left it that holds a great many objects. */
import { createHash } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { IndexChange, RepositoryKey } from '../../src/cache/index/index-store.ts';
import { LevelIndex } from '../../src/cache/index/level-index.ts';
import { type Digest, digestHex, digestOf } from '../../src/oci/digest.ts';
import type { Repository, Tag } from '../../src/oci/reference.ts';
import { OCI_CONFIG, OCI_LAYER, OCI_MANIFEST } from './measure.ts';

const LAYERS = 8;
/** A manifest, its config and its layers. */
const OBJECTS_AN_IMAGE = LAYERS + 2;
const ALLOCATED = 4096;
const BATCH = 20_000;
const REPOSITORIES = 1000;
const UPSTREAM = 'upstream.test';

export interface SeededCache {
  /** Bytes that the records say are taken. */
  bytes: number;
  /** Paths of images that can be pulled by tag: those that were used last. */
  warmPaths: string[];
}

/**
 * @param objects content records; every tenth is a manifest
 * @param evictable how many of the least recently used have a file
 * @param warm how many manifests of the most recently used have one
 */
export async function seedCache(
  directory: string,
  { objects, evictable, warm }: { objects: number; evictable: number; warm: number },
): Promise<SeededCache> {
  await mkdir(directory, { recursive: true });
  await writeFile(join(directory, 'format'), '1\n');
  const index = await LevelIndex.open(join(directory, 'index'));
  const images = Math.floor(objects / OBJECTS_AN_IMAGE);
  const startedAt = Date.now() - images - 1000;
  const warmPaths: string[] = [];
  let changes: IndexChange[] = [];
  for (let image = 0; image < images; image += 1) {
    const repository = `seed/r${image % REPOSITORIES}` as Repository;
    const key: RepositoryKey = { upstream: UPSTREAM, repository };
    const blobs = Array.from({ length: LAYERS + 1 }, (_, at) => fakeDigest(`${image} ${at}`));
    const bytes = manifest(blobs);
    const digest = digestOf(bytes);
    const tag = `t${image}` as Tag;
    const common = { allocated: ALLOCATED, usedAt: startedAt + image };
    const describes = { size: bytes.length, mediaType: OCI_MANIFEST };
    changes.push(
      { put: 'content', digest, value: { ...common, ...describes, children: blobs } },
      { put: 'permission', key, digest, value: { size: bytes.length, expanded: true } },
      {
        put: 'tag',
        key: { ...key, tag, accept: '' },
        value: { ...describes, digest, confirmedAt: Date.now() },
      },
    );
    for (const blob of blobs) {
      changes.push(
        { put: 'content', digest: blob, value: { ...common, size: ALLOCATED } },
        { put: 'sums', digest: blob, value: 'AAAAAAAAAAA=' },
        { put: 'permission', key, digest: blob, value: { size: ALLOCATED } },
      );
    }
    if (image * OBJECTS_AN_IMAGE < evictable) {
      for (const blob of [digest, ...blobs]) await place(directory, blob, Buffer.alloc(ALLOCATED));
    } else if (image >= images - warm) {
      await place(directory, digest, bytes);
      warmPaths.push(`/v2/${UPSTREAM}/${repository}/manifests/${tag}`);
    }
    if (changes.length < BATCH) continue;
    await index.write(changes);
    changes = [];
  }
  await index.write(changes);
  await index.close();
  return { bytes: images * OBJECTS_AN_IMAGE * ALLOCATED, warmPaths };
}

function manifest([config, ...layers]: readonly Digest[]): Buffer {
  const descriptor = (mediaType: string, digest: Digest | undefined) => ({
    mediaType,
    digest,
    size: ALLOCATED,
  });
  return Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: OCI_MANIFEST,
      config: descriptor(OCI_CONFIG, config),
      layers: layers.map((layer) => descriptor(OCI_LAYER, layer)),
    }),
  );
}

function fakeDigest(seed: string): Digest {
  return `sha256:${createHash('sha256').update(seed).digest('hex')}` as Digest;
}

async function place(directory: string, digest: Digest, bytes: Buffer): Promise<void> {
  const hex = digestHex(digest);
  const path = join(directory, 'blobs', 'sha256', hex.slice(0, 2), hex);
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, bytes);
}
