/** Images with files in them, as a scanner reads them. */
import { gzipSync } from 'node:zlib';
import { pack } from 'tar-stream';
import { digestOf } from '../../src/oci/digest.ts';
import { OCI_MANIFEST } from '../../src/oci/manifest.ts';
import type { TestImage } from './images.ts';
import { manifestOf } from './scans.ts';

/** An Alpine 3.20 with one package. */
export function alpineFiles(version = '3.3.0-r0'): Record<string, string> {
  return {
    'etc/alpine-release': '3.20.0\n',
    'etc/os-release': 'NAME="Alpine Linux"\nID=alpine\nVERSION_ID=3.20.0\n',
    'lib/apk/db/installed': `P:openssl\nV:${version}\nA:x86_64\no:openssl\nL:Apache-2.0\n\n`,
  };
}

export interface ImageContent {
  /** The files of each layer, or what stands there instead of an archive. */
  layers: readonly (Record<string, string | Buffer> | Buffer)[];
  architecture?: string;
  /** Environment of its config: `NAME=VALUE`. */
  env?: readonly string[];
}

export async function imageOf({
  layers,
  architecture = 'amd64',
  env = [],
}: ImageContent): Promise<TestImage> {
  const tars = await Promise.all(layers.map(tarOf));
  const packed = layers.map((layer, at) => (Buffer.isBuffer(layer) ? layer : gzipSync(tars[at] ?? '')));
  const config = Buffer.from(
    JSON.stringify({
      ...{ architecture, os: 'linux', config: { Env: env } },
      rootfs: { type: 'layers', diff_ids: tars.map((tar) => digestOf(tar)) },
      history: tars.map((_, at) => ({ created_by: `layer ${at}` })),
    }),
  );
  const describe = (mediaType: string, bytes: Buffer) => ({
    ...{ mediaType, digest: digestOf(bytes), size: bytes.length },
  });
  const top = manifestOf(OCI_MANIFEST, {
    config: describe('application/vnd.oci.image.config.v1+json', config),
    layers: packed.map((bytes) => describe('application/vnd.oci.image.layer.v1.tar+gzip', bytes)),
  });
  return { top, manifests: [top], blobs: [config, ...packed] };
}

async function tarOf(files: Record<string, string | Buffer> | Buffer): Promise<Buffer> {
  if (Buffer.isBuffer(files)) return files;
  const archive = pack();
  for (const [name, content] of Object.entries(files)) archive.entry({ name }, content);
  archive.finalize();
  const chunks: Buffer[] = [];
  for await (const chunk of archive) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}
