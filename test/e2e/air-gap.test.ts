/**
 * From a real registry over an archive into a sealed mirror without a network, and out of it by real clients.
 *
 * The second half runs in this same file, as a process of its own in a network namespace that has a loopback device and
 * no route: the mirror, dockerd, containerd, podman and skopeo.
 */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { digestOf } from '../../src/oci/digest.ts';
import {
  preparePodman,
  prepareSkopeo,
  type RealClient,
  startContainerd,
  startDockerd,
} from '../helpers/real-clients.ts';
import { MAIN, type RealMirror, startRealMirror } from '../helpers/real-mirror.ts';
import { missingPrograms, run } from '../helpers/real-processes.ts';
import { makeImage, pushImage, RealRegistry } from '../helpers/real-registry.ts';
import { digestsIn, skopeoCopy } from '../helpers/skopeo.ts';
import { tempDir } from '../helpers/temp-dir.ts';

const SERVERS = ['docker-registry', 'skopeo', 'busybox', 'unshare', 'ip'];
const IMAGES = ['docker.io/library/busybox:1', 'quay.io/library/busybox:1'];

/** What the process behind the air gap is told. */
interface Gap {
  archive: string;
  /** Of the index. */
  digest: string;
  client: string;
}

type Starting = (t: TestContext, mirrorPort: number) => Promise<RealClient>;

const CLIENTS: Record<string, { programs: string[]; start: Starting }> = {
  dockerd: { programs: ['dockerd', 'docker', 'containerd', 'runc'], start: startDockerd },
  containerd: {
    programs: ['containerd', 'ctr'],
    start: (t, port) =>
      startContainerd(t, port, {
        image: 'quay.io/library/busybox:1',
        host: (at) => `http://127.0.0.1:${at}`,
      }),
  },
  podman: { programs: ['podman'], start: preparePodman },
  skopeo: { programs: ['skopeo'], start: prepareSkopeo },
};

const told = process.env['AIR_GAP_TEST'];
if (told === undefined) testOutside();
else testInside(JSON.parse(told) as Gap);

function millpond({ operationsPort }: RealMirror, ...args: string[]): Promise<string> {
  return run(process.execPath, [MAIN, ...args, '--server', `http://127.0.0.1:${operationsPort}`]);
}

/** Warms and exports what a real registry has. */
async function exported(t: TestContext) {
  const directory = await tempDir(t);
  const image = await makeImage(directory);
  const registry = await RealRegistry.start(t);
  const signature = `library/busybox:${image.digest.replace(':', '-')}.sig`;
  for (const name of ['library/busybox:1', signature]) await pushImage(image, registry, name);
  const upstreams = { 'docker.io': { url: registry.url }, 'quay.io': { url: registry.url } };
  const mirror = await startRealMirror(t, directory, { upstreams });
  await millpond(mirror, 'warm', ...IMAGES);
  const warming = registry.takeRequests().filter(({ method }) => method === 'GET');
  const blobs = warming.map(({ path }) => path).filter((path) => path.includes('/blobs/'));
  const archive = join(directory, 'images.tar');
  await millpond(mirror, 'export', '--output', archive, ...IMAGES);
  assert.deepEqual(registry.takeRequests(), [], 'the export asked upstream nothing');
  return { directory, image, registry, archive, blobs };
}

function testOutside(): void {
  test('an image that is warmed and exported is the registry’s, digest for digest, and each blob was fetched once for each upstream', {
    skip: missingPrograms(...SERVERS),
  }, async (t) => {
    const { image, registry, archive, blobs } = await exported(t);
    const digests = blobs.map((path) => path.slice(path.lastIndexOf('/')));
    // Both upstreams are this one registry, and they are warmed at the same time.
    for (const [digest, fetches] of Map.groupBy(digests, (at) => at))
      assert.ok(fetches.length <= IMAGES.length, `${digest}: ${fetches.length}`);
    const [expected, copy] = [await tempDir(t), await tempDir(t)];
    await skopeoCopy(`docker://127.0.0.1:${registry.port}/library/busybox:1`, `dir:${expected}`);
    for (const name of [...IMAGES, `docker.io/library/busybox:${image.digest.replace(':', '-')}.sig`]) {
      await skopeoCopy(`oci-archive:${archive}:${name}`, `dir:${copy}`);
      assert.deepEqual(await digestsIn(copy), await digestsIn(expected));
      assert.equal(digestOf(await readFile(join(copy, 'manifest.json'))), image.digest);
    }
  });

  for (const [client, { programs }] of Object.entries(CLIENTS)) {
    test(`${client} pulls by tag and by digest from a sealed mirror behind an air gap`, {
      skip: missingPrograms(...SERVERS, ...programs),
    }, async (t) => {
      const { image, archive } = await exported(t);
      const gap: Gap = { archive, digest: image.digest, client };
      const command = 'ip link set lo up && exec "$0" "$@"';
      // Not as part of this run, whose reporter would take its output for its own.
      const itself = ['env', '-u', 'NODE_TEST_CONTEXT', process.execPath, import.meta.filename];
      const output = await run('unshare', ['--net', 'sh', '-c', command, ...itself], {
        AIR_GAP_TEST: JSON.stringify(gap),
      });
      assert.match(output, /^(?:# |ℹ )pass 1$/m);
    });
  }
}

function testInside({ archive, digest, client }: Gap): void {
  test(`${client} behind the air gap`, async (t) => {
    assert.deepEqual(Object.keys(networkInterfaces()), ['lo'], 'there is no network');
    const upstreams = { 'docker.io': {}, 'quay.io': {} };
    const mirror = await startRealMirror(t, await tempDir(t), { sealed: true, upstreams });
    const imported = await millpond(mirror, 'import', archive);
    for (const name of IMAGES) assert.ok(imported.includes(`${name}: imported, ${digest}\n`), imported);
    const pulling = await CLIENTS[client]?.start(t, mirror.port);
    assert.ok(pulling !== undefined);
    await pulling.pull();
    await pulling.remove();
    await pulling.pull(digest);
  });
}
