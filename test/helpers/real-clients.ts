/** dockerd, containerd, podman, skopeo, crane and oras, each with storage of its own, pulling through a mirror. */
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { engine } from './engines.ts';
import { type RunningProcess, run, startProcess, until } from './real-processes.ts';
import { tempDir } from './temp-dir.ts';

export interface RealClient {
  /**
   * Pulls the image through the mirror, by its tag or by `digest`.
   *
   * @throws with the client's output, if it fails
   */
  pull(digest?: string): Promise<void>;
  /** Removes the client's own copy, so that the next pull needs everything again. */
  remove(): Promise<void>;
}

export interface SavingClient extends RealClient {
  /** Writes the image into an archive, in the format that the client is asked for. */
  save(file: string): Promise<void>;
}

function named(tagged: string, digest: string | undefined): string {
  return digest === undefined ? tagged : `${tagged.slice(0, tagged.lastIndexOf(':'))}@${digest}`;
}

/** A directory whose mounts, which daemons leave behind, are undone before it is removed. */
export async function daemonDir(t: TestContext): Promise<string> {
  const directory = await tempDir(t);
  t.after(() =>
    run('sh', ['-c', `grep -o " ${directory}[^ ]*" /proc/mounts | sort -r | xargs -r umount -l`]),
  );
  return directory;
}

/** The registry-mirrors setting: Docker Hub only. */
export async function startDockerd(
  t: TestContext,
  mirrorPort: number,
  env: Record<string, string> = {},
): Promise<SavingClient> {
  const directory = await daemonDir(t);
  const host = `unix://${directory}/docker.sock`;
  const containerd = await startContainerdProcess(t, directory);
  await writeFile(`${directory}/daemon.json`, '{}'); // and not the machine's own
  const daemon = startProcess(t, 'dockerd', [
    ...['--host', host, '--pidfile', `${directory}/docker.pid`, '--config-file', `${directory}/daemon.json`],
    ...[
      '--data-root',
      `${directory}/data`,
      '--exec-root',
      `${directory}/exec`,
      '--containerd',
      containerd.socket,
    ],
    ...['--iptables=false', '--ip6tables=false', '--bridge=none', '--storage-driver', 'vfs'],
    ...['--registry-mirror', `http://127.0.0.1:${mirrorPort}`],
  ]);
  const docker = (...args: string[]) => run('docker', ['--host', host, ...args], env);
  await until('dockerd', daemon, async () => (await docker('version')) !== '');
  return {
    pull: async (digest) => void (await docker('pull', named('busybox:1', digest))),
    remove: async () => void (await docker('rmi', 'busybox:1')),
    save: async (file) => void (await docker('save', '--output', file, 'busybox:1')),
  };
}

interface ContainerdPrograms {
  containerd: string;
  ctr: string;
  /** More options of `ctr images pull`. */
  pullOptions: readonly string[];
}

const DEBIANS_CONTAINERD: ContainerdPrograms = { containerd: 'containerd', ctr: 'ctr', pullOptions: [] };

/** Of its two ways to pull, `--local` is the one that needs no configuration of the snapshotter. */
export function containerd2(): ContainerdPrograms {
  return {
    containerd: engine('containerd'),
    ctr: engine('containerd', 'ctr'),
    pullOptions: ['--local'],
  };
}

export async function startContainerdProcess(
  t: TestContext,
  directory: string,
  { containerd, ctr }: ContainerdPrograms = DEBIANS_CONTAINERD,
): Promise<{ socket: string; process: RunningProcess }> {
  const socket = `${directory}/containerd.sock`;
  const config = [
    'version = 2',
    `root = "${directory}/containerd"`,
    `state = "${directory}/containerd-state"`,
    'disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]',
    `[grpc]\n  address = "${socket}"`,
  ];
  await writeFile(`${directory}/containerd.toml`, config.join('\n'));
  const process = startProcess(t, containerd, ['-c', `${directory}/containerd.toml`]);
  await until('containerd', process, async () => (await run(ctr, ['-a', socket, 'version'])) !== '');
  return { socket, process };
}

export interface HostsShape {
  /** The reference that is pulled. */
  image: string;
  /** The `[host."…"]` of hosts.toml. */
  host: (mirrorPort: number) => string;
  overridePath?: boolean;
}

export async function startContainerd(
  t: TestContext,
  mirrorPort: number,
  shape: HostsShape,
  programs = DEBIANS_CONTAINERD,
): Promise<SavingClient> {
  const directory = await daemonDir(t);
  const { socket } = await startContainerdProcess(t, directory, programs);
  const folder = join(directory, 'certs.d', shape.image.split('/')[0] ?? '');
  await mkdir(folder, { recursive: true });
  const hosts = [
    // The mirror is the server, too: a pull that does not go through it fails.
    `server = "${shape.host(mirrorPort)}"`,
    `[host."${shape.host(mirrorPort)}"]`,
    '  capabilities = ["pull", "resolve"]',
    ...(shape.overridePath === true ? ['  override_path = true'] : []),
  ];
  await writeFile(join(folder, 'hosts.toml'), hosts.join('\n'));
  const ctr = (...args: string[]) => run(programs.ctr, ['-a', socket, ...args]);
  return {
    pull: async (digest) => {
      const hosts = ['--hosts-dir', join(directory, 'certs.d')];
      const options = [...hosts, '--all-platforms', '--snapshotter', 'native', ...programs.pullOptions];
      await ctr('images', 'pull', ...options, named(shape.image, digest));
    },
    remove: async () => {
      await ctr('images', 'rm', '--sync', shape.image);
      await ctr('content', 'prune', 'references');
    },
    save: async (file) => void (await ctr('images', 'export', '--all-platforms', file, shape.image)),
  };
}

async function registriesConf(t: TestContext, mirrorPort: number): Promise<string> {
  const file = join(await tempDir(t), 'registries.conf');
  const conf = [
    '[[registry]]',
    'prefix = "docker.io"',
    // The primary leads nowhere: a pull that does not go through the mirror fails.
    'location = "127.0.0.1:9/docker.io"',
    '[[registry.mirror]]',
    `location = "127.0.0.1:${mirrorPort}/docker.io"`,
    'insecure = true',
  ];
  await writeFile(file, conf.join('\n'));
  return file;
}

export async function preparePodman(t: TestContext, mirrorPort: number): Promise<SavingClient> {
  const directory = await daemonDir(t);
  const env = { CONTAINERS_REGISTRIES_CONF: await registriesConf(t, mirrorPort), TMPDIR: directory };
  const podman = (...args: string[]) =>
    run(
      'podman',
      [
        ...['--root', `${directory}/root`, '--runroot', `${directory}/run`, '--storage-driver', 'vfs'],
        ...[
          '--cgroup-manager',
          'cgroupfs',
          '--events-backend',
          'none',
          '--tmpdir',
          `${directory}/tmp`,
          ...args,
        ],
      ],
      env,
    );
  return {
    pull: async (digest) =>
      void (await podman('pull', '--quiet', named('docker.io/library/busybox:1', digest))),
    remove: async () => void (await podman('rmi', '--all', '--force')),
    save: async (file) => {
      const format = ['--quiet', '--format', 'oci-archive'];
      await podman('save', ...format, '--output', file, 'docker.io/library/busybox:1');
    },
  };
}

/** Copies every platform into a directory. */
export interface SkopeoClient extends RealClient {
  target: string;
}

export async function prepareSkopeo(t: TestContext, mirrorPort: number): Promise<SkopeoClient> {
  const target = join(await tempDir(t), 'copy');
  const conf = await registriesConf(t, mirrorPort);
  return {
    target,
    pull: async (digest) => {
      const source = `docker://${named('docker.io/library/busybox:1', digest)}`;
      await run('skopeo', [
        '--insecure-policy',
        '--registries-conf',
        conf,
        'copy',
        '--all',
        source,
        `dir:${target}`,
      ]);
    },
    remove: () => rm(target, { recursive: true }),
  };
}

/** It knows no mirrors: the upstream stands in the name. */
export async function prepareCrane(t: TestContext, mirrorPort: number): Promise<RealClient> {
  const target = join(await tempDir(t), 'layout');
  return {
    pull: async (digest) => {
      const image = named(`127.0.0.1:${mirrorPort}/docker.io/library/busybox:1`, digest);
      await run(engine('crane'), ['pull', '--format', 'oci', image, target]);
    },
    remove: () => rm(target, { recursive: true }),
  };
}

/** It knows no mirrors: the upstream stands in the name. */
export async function prepareOras(t: TestContext, mirrorPort: number): Promise<RealClient> {
  const target = join(await tempDir(t), 'layout');
  return {
    pull: async (digest) => {
      const image = named(`127.0.0.1:${mirrorPort}/docker.io/library/busybox:1`, digest);
      await run(engine('oras'), ['copy', '--from-plain-http', '--to-oci-layout', image, `${target}:1`]);
    },
    remove: () => rm(target, { recursive: true }),
  };
}
