/** Real clients that pull an image while it is being scanned. */
import assert from 'node:assert/strict';
import { chmod, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { TestContext } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { OCI_MANIFEST } from '../../src/oci/manifest.ts';
import { alpineFiles, imageOf } from './alpine-images.ts';
import type { TestImage } from './images.ts';
import {
  type LoginClient,
  type MirrorAddress,
  preparePodmanLogin,
  refusalOf,
  startContainerdLogin,
  startDockerLogin,
} from './login-clients.ts';
import { ScriptedUpstream } from './scripted-upstream.ts';
import { tempDir } from './temp-dir.ts';
import { startTlsMirror } from './tls-mirror.ts';

const PULL_TRIES = 200;

/** Each has the mirror as its only host. */
export const CLIENTS_OF_SCANS = {
  'containerd 2': startContainerdLogin,
  dockerd: startDockerLogin,
  podman: preparePodmanLogin,
};

/** Our message, or its status and our address. Of a 503, dockerd shows the status alone. */
export function assertTold(text: string, address: MirrorAddress, ours: RegExp, status: string): void {
  const isShown = ours.test(text) || (text.includes(status) && text.includes(address.name));
  assert.ok(isShown || text.includes('received unexpected HTTP status: 503 Service Unavailable'), text);
}

/** An upstream that counts, with one image of Alpine in it. */
export async function scannedSetUp(t: TestContext) {
  const directory = await tempDir(t);
  const upstream = await ScriptedUpstream.start(t);
  const image = await imageOf({ layers: [alpineFiles()] });
  for (const blob of image.blobs) upstream.addContent(blob);
  upstream.addManifest('library/app', image.top.bytes, OCI_MANIFEST, '1');
  return { directory, upstream, image };
}

export function downloads(upstream: ScriptedUpstream, { blobs }: TestImage): number {
  return upstream.count('blob', 'GET') / blobs.length;
}

/**
 * The first pull fails with our text, and a later one succeeds; upstream sees one download.
 *
 * @param options.scanMs how long the scan takes at least, from when the first pull began
 */
export async function pullDuringScan(
  t: TestContext,
  prepare: (t: TestContext, address: MirrorAddress) => Promise<LoginClient>,
  { policyWait, scanMs }: { policyWait: string; scanMs: number },
): Promise<void> {
  const { directory, upstream, image } = await scannedSetUp(t);
  const [program, gate] = [join(directory, 'slow-trivy'), join(directory, 'gate')];
  const fake = resolve(import.meta.dirname, '../helpers/fake-trivy.ts');
  // Pulls the image as Trivy does, and then takes until the test lets it go.
  const wait = `case "$1" in image) until [ -e '${gate}' ]; do sleep 0.1; done;; esac`;
  await writeFile(program, `#!/bin/sh\n${wait}\nexec '${process.execPath}' '${fake}' "$@"\n`);
  await chmod(program, 0o755);
  const results = [{ Target: 'app', Class: 'os-pkgs', Type: 'alpine', Packages: [{ Name: 'openssl' }] }];
  const { address } = await startTlsMirror(
    t,
    directory,
    {
      upstreams: { 'docker.io': { url: upstream.url } },
      policies: [
        {
          name: 'no-criticals',
          scan: { trivy: program, failOn: 'critical', environment: ['FAKE_RESULTS'] },
        },
      ],
      policyWait,
    },
    { env: { FAKE_RESULTS: JSON.stringify(results) } },
  );
  const client = await prepare(t, address);
  const began = performance.now();
  const text = await refusalOf(() => client.pull('docker.io/library/app'));
  assertTold(text, address, /is being checked since .*: ask again/, '503');
  await setTimeout(Math.max(0, scanMs - (performance.now() - began)));
  await writeFile(gate, '');
  let last = '';
  for (let tries = 0; tries < PULL_TRIES; tries += 1) {
    last = await client.pull('docker.io/library/app').then(
      () => '',
      (error: unknown) => String(error),
    );
    if (last === '') break;
  }
  assert.equal(last, '');
  assert.equal(downloads(upstream, image), 1);
}
