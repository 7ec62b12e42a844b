import { createHash } from 'node:crypto';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { figures, OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, observe, REPOSITORY } from '../lib/measure.ts';
import type { Server } from '../lib/peers.ts';
import { run } from '../lib/processes.ts';
import type { Lab, Scenario } from '../lib/scenario.ts';

/** Programs that are layers of the image, one each. */
const PROGRAMS = ['/bin/bash', '/usr/bin/skopeo'];

let images = 0;

export const imagePull: Scenario = {
  name: 'image-pull',
  does: 'skopeo copies an image (7 MiB in two layers), cold and then warm',
  peers: ['millpond', 'docker-registry', 'nginx', 'direct'],
  needs: 'skopeo',
  measure: async (lab, server) => {
    const tag = await newImage(lab);
    const cold = await observe(lab, server, () => pull(lab, server, tag));
    const warm = await observe(lab, server, () => pull(lab, server, tag));
    return {
      ...figures(cold),
      coldMs: cold.result,
      warmMs: warm.result,
      coldUpstreamRequests: figures(cold)['upstreamRequests'] ?? Number.NaN,
      coldUpstreamMiB: figures(cold)['upstreamMiB'] ?? Number.NaN,
      warmUpstreamRequests: figures(warm)['upstreamRequests'] ?? Number.NaN,
    };
  },
  shows: ['coldMs', 'warmMs', 'coldUpstreamRequests', 'coldUpstreamMiB', 'warmUpstreamRequests'],
  targets: [],
};

async function pull(lab: Lab, server: Server, tag: string): Promise<number> {
  const target = join(lab.directory, `pulled-${tag}`);
  const source = `docker://127.0.0.1:${server.port}/${REPOSITORY}:${tag}`;
  const startedAt = performance.now();
  await run('skopeo', [
    '--insecure-policy',
    'copy',
    '--quiet',
    '--src-tls-verify=false',
    source,
    `dir:${target}`,
  ]);
  const wallMs = performance.now() - startedAt;
  await rm(target, { recursive: true });
  return wallMs;
}

/** The bytes of its layers are new each time, by one small file in each. */
async function newImage(lab: Lab): Promise<string> {
  images += 1;
  const tag = `pull-${images}`;
  const layers = [];
  const diffIds = [];
  for (const program of PROGRAMS) {
    const tar = await pack(lab, program, `${tag} ${Date.now()}`);
    const gzipped = gzipSync(tar, { level: 1 });
    diffIds.push(`sha256:${createHash('sha256').update(tar).digest('hex')}`);
    layers.push({ mediaType: OCI_LAYER, digest: await lab.upstream.addBlob(gzipped), size: gzipped.length });
  }
  const config = Buffer.from(
    JSON.stringify({ architecture: 'amd64', os: 'linux', rootfs: { type: 'layers', diff_ids: diffIds } }),
  );
  await lab.upstream.addManifest(REPOSITORY, tag, OCI_MANIFEST, {
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    config: { mediaType: OCI_CONFIG, digest: await lab.upstream.addBlob(config), size: config.length },
    layers,
  });
  return tag;
}

async function pack(lab: Lab, program: string, mark: string): Promise<Buffer> {
  const folder = join(lab.directory, 'layer');
  await mkdir(folder);
  await writeFile(join(folder, 'mark'), mark);
  const file = join(lab.directory, 'layer.tar');
  await run('tar', ['-cf', file, '-C', folder, 'mark', '-C', '/', program.slice(1)]);
  const bytes = await readFile(file);
  await rm(folder, { recursive: true });
  await rm(file);
  return bytes;
}
