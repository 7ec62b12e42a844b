import assert from 'node:assert/strict';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { preparePodman, type SavingClient, startContainerd, startDockerd } from '../helpers/real-clients.ts';
import { MAIN, startRealMirror } from '../helpers/real-mirror.ts';
import { missingPrograms, run } from '../helpers/real-processes.ts';
import { makeImage, pushImage, type RealImage, RealRegistry } from '../helpers/real-registry.ts';
import { skopeoCopy } from '../helpers/skopeo.ts';
import { tempDir } from '../helpers/temp-dir.ts';

const SERVERS = ['docker-registry', 'skopeo', 'busybox'];

/** The image in a registry, under the paths where each client looks for it. */
async function source(t: TestContext) {
  const directory = await tempDir(t);
  const image = await makeImage(directory);
  const registry = await RealRegistry.start(t);
  for (const path of ['library/busybox:1', 'docker.io/library/busybox:1'])
    await pushImage(image, registry, path);
  return { directory, image, registry };
}

/** Imports `file` into a sealed mirror, and asks it for what the name means. */
async function imported(t: TestContext, file: string, at: string, args: string[] = []): Promise<Response> {
  const upstreams = { 'docker.io': {}, 'quay.io': {} };
  const mirror = await startRealMirror(t, await tempDir(t), { sealed: true, upstreams });
  const server = ['--server', `http://127.0.0.1:${mirror.operationsPort}`];
  await run(process.execPath, [MAIN, 'import', file, ...args, ...server]);
  return fetch(`http://127.0.0.1:${mirror.port}/v2/${at}`);
}

async function saved(directory: string, client: SavingClient): Promise<string> {
  const file = join(directory, 'saved.tar');
  await client.pull();
  await client.save(file);
  return file;
}

function assertServed(reply: Response, { digest }: RealImage): void {
  assert.deepEqual([reply.status, reply.headers.get('docker-content-digest')], [200, digest]);
}

test('an archive that skopeo wrote is imported, under its full name or under the one that is given', {
  skip: missingPrograms(...SERVERS),
}, async (t) => {
  const { directory, image, registry } = await source(t);
  const at = `docker://127.0.0.1:${registry.port}/library/busybox:1`;
  const [full, bare] = [join(directory, 'full.tar'), join(directory, 'bare.tar')];
  await skopeoCopy(at, `oci-archive:${full}:docker.io/library/busybox:1`);
  await skopeoCopy(at, `oci-archive:${bare}:latest`);
  assertServed(await imported(t, full, 'library/busybox/manifests/1'), image);
  assertServed(await imported(t, bare, 'quay.io/a/b/manifests/2', ['--name', 'quay.io/a/b:2']), image);
  await assert.rejects(
    imported(t, bare, ''),
    /latest: failed: the archive has only the tag latest, and no repository/,
  );
});

test('an archive of containerd, of the shape that docker save has since Docker 25, is imported under its name', {
  skip: missingPrograms(...SERVERS, 'containerd', 'ctr'),
}, async (t) => {
  const { directory, image, registry } = await source(t);
  const shape = { image: 'quay.io/library/busybox:1', host: (port: number) => `http://127.0.0.1:${port}` };
  const file = await saved(directory, await startContainerd(t, registry.port, shape));
  assertServed(await imported(t, file, 'quay.io/library/busybox/manifests/1'), image);
});

test('an archive of podman save is imported under its name', {
  skip: missingPrograms(...SERVERS, 'podman'),
}, async (t) => {
  const { directory, registry } = await source(t);
  const file = await saved(directory, await preparePodman(t, registry.port));
  // Podman saves the one platform that it has, as a manifest of its own making.
  assert.equal((await imported(t, file, 'library/busybox/manifests/1')).status, 200);
});

test('what docker save of Docker 20.10 writes is refused with the advice what to write instead', {
  skip: missingPrograms(...SERVERS, 'dockerd', 'docker', 'containerd', 'runc'),
}, async (t) => {
  const { directory, registry } = await source(t);
  const file = await saved(directory, await startDockerd(t, registry.port));
  await assert.rejects(imported(t, file, ''), /write it with docker save of Docker 25 or newer/);
});
