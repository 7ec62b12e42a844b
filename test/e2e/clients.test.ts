import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { digestOf } from '../../src/oci/digest.ts';
import { missingEngines } from '../helpers/engines.ts';
import {
  containerd2,
  prepareCrane,
  prepareOras,
  preparePodman,
  prepareSkopeo,
  type RealClient,
  startContainerd,
  startDockerd,
} from '../helpers/real-clients.ts';
import { startRealMirror } from '../helpers/real-mirror.ts';
import { missingPrograms } from '../helpers/real-processes.ts';
import { makeImage, pushImage, RealRegistry } from '../helpers/real-registry.ts';
import { tempDir } from '../helpers/temp-dir.ts';

interface ClientCase {
  name: string;
  programs: string[];
  /** Of .ci/engines.list. */
  engines?: string[];
  /** Where the image lies upstream, and which upstream it is. */
  upstream: string;
  start: (t: TestContext, mirrorPort: number) => Promise<RealClient>;
}

const CLIENTS: ClientCase[] = [
  {
    name: 'dockerd',
    programs: ['dockerd', 'docker', 'containerd', 'runc'],
    upstream: 'docker.io',
    start: startDockerd,
  },
  {
    name: 'containerd at the root, by ns',
    programs: ['containerd', 'ctr'],
    upstream: 'quay.io',
    start: (t, port) =>
      startContainerd(t, port, {
        image: 'quay.io/library/busybox:1',
        host: (at) => `http://127.0.0.1:${at}`,
      }),
  },
  {
    name: 'containerd with a path before /v2',
    programs: ['containerd', 'ctr'],
    upstream: 'quay.io',
    start: (t, port) =>
      startContainerd(t, port, {
        image: 'quay.io/library/busybox:1',
        host: (at) => `http://127.0.0.1:${at}/quay.io`,
      }),
  },
  {
    name: 'containerd with override_path',
    programs: ['containerd', 'ctr'],
    upstream: 'quay.io',
    start: (t, port) =>
      startContainerd(t, port, {
        image: 'quay.io/library/busybox:1',
        host: (at) => `http://127.0.0.1:${at}/v2/quay.io`,
        overridePath: true,
      }),
  },
  {
    name: 'containerd 2',
    programs: [],
    engines: ['containerd'],
    upstream: 'quay.io',
    start: (t, port) =>
      startContainerd(
        t,
        port,
        { image: 'quay.io/library/busybox:1', host: (at) => `http://127.0.0.1:${at}` },
        containerd2(),
      ),
  },
  { name: 'podman', programs: ['podman'], upstream: 'docker.io', start: preparePodman },
  { name: 'skopeo', programs: ['skopeo'], upstream: 'docker.io', start: prepareSkopeo },
  { name: 'crane', programs: [], engines: ['crane'], upstream: 'docker.io', start: prepareCrane },
  { name: 'oras', programs: [], engines: ['oras'], upstream: 'docker.io', start: prepareOras },
];

const SERVERS = ['docker-registry', 'skopeo', 'busybox'];

for (const { name, programs, engines = [], upstream, start } of CLIENTS) {
  test(`${name}: a second pull asks upstream nothing, not after a restart, and past the TTL one manifest HEAD`, {
    skip: missingPrograms(...SERVERS, ...programs) || missingEngines(...engines),
  }, async (t) => {
    const registry = await RealRegistry.start(t);
    const directory = await tempDir(t);
    await pushImage(await makeImage(directory), registry, 'library/busybox:1');
    const config = (tagTtl: string) => ({
      upstreams: { [upstream]: { url: registry.url, freshness: { tagTtl } } },
      defaultUpstream: upstream,
    });

    const mirror = await startRealMirror(t, directory, config('1h'));
    const client = await start(t, mirror.port);
    await client.pull();
    const cold = registry.takeRequests();
    assert.ok(cold.length > 0, 'the first pull came from upstream, through the mirror');
    const paths = cold.filter(({ method }) => method === 'GET').map(({ path }) => path);
    assert.deepEqual(paths.toSorted(), [...new Set(paths)].toSorted(), 'nothing was fetched twice');

    await client.remove();
    await client.pull();
    assert.deepEqual(registry.takeRequests(), [], 'the second pull asked upstream nothing');

    await mirror.stop();
    const samePort = { server: { listen: `127.0.0.1:${mirror.port}` } };
    const restarted = await startRealMirror(t, directory, { ...config('1h'), ...samePort });
    await client.remove();
    await client.pull();
    assert.deepEqual(registry.takeRequests(), [], 'nor did a pull after a restart');

    await restarted.stop();
    const expired = await startRealMirror(t, directory, { ...config('1s'), ...samePort });
    await client.remove();
    await past(1000);
    await client.pull();
    const revalidation = registry.takeRequests();
    assert.deepEqual(
      revalidation.map(({ method, path }) => `${method} ${path}`),
      ['HEAD /v2/library/busybox/manifests/1'],
      'past the TTL, one HEAD',
    );

    await registry.stop();
    await client.remove();
    await client.pull();
    await expired.stop();
    await startRealMirror(t, directory, { ...config('1h'), ...samePort });
    await client.remove();
    await client.pull();
  });
}

test('skopeo --all through the mirror has the source’s index, byte for byte', {
  skip: missingPrograms(...SERVERS),
}, async (t) => {
  const registry = await RealRegistry.start(t);
  const directory = await tempDir(t);
  const image = await makeImage(directory);
  await pushImage(image, registry, 'library/busybox:1');
  const mirror = await startRealMirror(t, directory, { upstreams: { 'docker.io': { url: registry.url } } });
  const skopeo = await prepareSkopeo(t, mirror.port);
  await skopeo.pull();
  assert.equal(digestOf(await readFile(join(skopeo.target, 'manifest.json'))), image.digest);
});

/** The mirror runs on the machine's clock: the TTL of its last confirmation must really pass. */
async function past(ms: number): Promise<void> {
  const start = Date.now();
  while (Date.now() - start <= ms) await new Promise((resolve) => setTimeout(resolve, 50));
}
