/** Tries policies on images, by a mirror of its own with an empty cache. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startApp } from '../../app/app.ts';
import { nodeFileSystem } from '../../cache/store/file-system.ts';
import type { Config } from '../../config/schema.ts';
import { parseImageName } from '../../oci/image-name.ts';
import { ACCEPT_ALL_MANIFESTS } from '../../oci/manifest.ts';
import type { Surroundings } from '../io/surroundings.ts';

export interface TestedImage {
  image: string;
  outcome: 'let in' | 'refused' | 'unknown';
  /** What a client would read. */
  message?: string;
}

const LOOPBACK = { host: '127.0.0.1', port: 0 };

/** @throws the first error that keeps a mirror with this configuration from starting */
export async function testImages(
  config: Config,
  images: readonly string[],
  { version, environment, clock }: Surroundings,
): Promise<TestedImage[]> {
  const directory = await mkdtemp(join(tmpdir(), 'millpond-policy-test-'));
  try {
    const { access: _access, ...rest } = config;
    const app = await startApp({
      config: {
        ...rest,
        server: { ...config.server, listen: LOOPBACK, tls: undefined },
        operations: {
          ...config.operations,
          listen: { socket: join(directory, 'operations.sock') },
          tls: undefined,
        },
        cache: { ...config.cache, directory: join(directory, 'cache'), scrubInterval: null },
        warm: [],
        log: { ...config.log, level: 'silent', access: 'none' },
      },
      ...{ environment, version, clock, random: () => 0, fileSystem: nodeFileSystem },
      ...{
        logDestination: { write: () => undefined },
        collectGarbage: () => undefined,
        processMetrics: false,
      },
    });
    try {
      const tested: TestedImage[] = [];
      for (const image of images) tested.push(await test(image, app.registryAddress));
      return tested;
    } finally {
      await app.close();
    }
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

async function test(image: string, address: string): Promise<TestedImage> {
  const name = parseImageName(image);
  if (name === undefined) return { image, outcome: 'unknown', message: 'not an image name' };
  const { host, repository, tag = 'latest', digest = tag } = name;
  const url = `http://${address}/v2/${repository}/manifests/${digest}?ns=${encodeURIComponent(host)}`;
  const reply = await fetch(url, { headers: { accept: ACCEPT_ALL_MANIFESTS } });
  const body = await reply.text();
  if (reply.ok) return { image, outcome: 'let in' };
  return { image, outcome: reply.status === 403 ? 'refused' : 'unknown', message: messageIn(body) };
}

function messageIn(body: string): string {
  const { errors } = JSON.parse(body) as { errors: { message: string }[] };
  return errors.map(({ message }) => message).join('; ');
}
