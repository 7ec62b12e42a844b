/** dockerd, containerd, podman, skopeo, crane and oras, as they log in to a mirror over TLS and pull from it by its name. */
import assert from 'node:assert/strict';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import type { Certificate } from './certificates.ts';
import { engine } from './engines.ts';
import { containerd2, daemonDir, startContainerdProcess } from './real-clients.ts';
import { run, startProcess, until } from './real-processes.ts';
import { tempDir } from './temp-dir.ts';
import { TestProxy } from './test-proxy.ts';

export interface Login {
  user: string;
  password: string;
}

export interface LoginClient {
  /**
   * Logs in and keeps that for later pulls. Clients without such a command send the credentials with the pull.
   *
   * @returns the client's output @throws with it, if the client was refused
   */
  login(login: Login): Promise<string>;
  logout(): Promise<void>;
  /** Pulls `repository:1` of the mirror, nothing of which is kept from before. @throws with the client's output */
  pull(repository: string): Promise<string>;
  /** Shows a certificate from now on. Absent: the client cannot. */
  show?(certificate: Certificate): Promise<void>;
}

export interface MirrorAddress {
  /** `host:port`. */
  name: string;
  /** PEM file of the authority of its certificate, and its content. Absent: plain HTTP, for docker and podman only. */
  ca?: string;
  caText?: string;
}

export async function startDockerLogin(t: TestContext, mirror: MirrorAddress): Promise<LoginClient> {
  const directory = await daemonDir(t);
  const host = `unix://${directory}/docker.sock`;
  const containerd = await startContainerdProcess(t, directory);
  await writeFile(`${directory}/daemon.json`, '{}');
  // Loopback addresses are insecure for dockerd: it shows them no certificate. So it gets a name, which only a proxy knows.
  const port = Number(mirror.name.split(':')[1]);
  const name = mirror.caText === undefined ? mirror.name : `mirror.test:${port}`;
  const proxy = await TestProxy.start(t, { routes: { [name]: port } });
  // dockerd knows no other place for the authorities and certificates of one registry.
  const certificates = join('/etc/docker/certs.d', name);
  await mkdir(certificates, { recursive: true });
  t.after(() => rm(certificates, { recursive: true }));
  if (mirror.caText !== undefined) await writeFile(join(certificates, 'ca.crt'), mirror.caText);
  const daemon = startProcess(
    t,
    'dockerd',
    [
      ...[
        '--host',
        host,
        '--pidfile',
        `${directory}/docker.pid`,
        '--config-file',
        `${directory}/daemon.json`,
      ],
      ...[
        '--data-root',
        `${directory}/data`,
        '--exec-root',
        `${directory}/exec`,
        '--containerd',
        containerd.socket,
      ],
      ...['--iptables=false', '--ip6tables=false', '--bridge=none', '--storage-driver', 'vfs'],
    ],
    { HTTPS_PROXY: `http://${proxy.host}` },
  );
  const docker = (...args: string[]) =>
    run('docker', ['--config', join(directory, 'config'), '--host', host, ...args]);
  await until('dockerd', daemon, async () => (await docker('version')) !== '');
  return {
    login: ({ user, password }) => docker('login', '--username', user, '--password', password, name),
    logout: async () => void (await docker('logout', name)),
    pull: async (repository) => {
      const image = `${name}/${repository}:1`;
      const output = await docker('pull', image);
      await docker('rmi', image);
      return output;
    },
    show: async ({ cert, key }) => {
      await writeFile(join(certificates, 'client.cert'), cert);
      await writeFile(join(certificates, 'client.key'), key);
    },
  };
}

/** By its own way of naming: a mirror in hosts.toml. */
export async function startContainerdLogin(t: TestContext, mirror: MirrorAddress): Promise<LoginClient> {
  const programs = containerd2();
  const directory = await daemonDir(t);
  const { socket } = await startContainerdProcess(t, directory, programs);
  const folder = join(directory, 'certs.d', 'docker.io');
  await mkdir(folder, { recursive: true });
  const writeHosts = async (...more: string[]) => {
    const host = `https://${mirror.name}`;
    const lines = [
      `server = "${host}"`,
      `[host."${host}"]`,
      '  capabilities = ["pull", "resolve"]',
      `  ca = "${mirror.ca}"`,
      ...more,
    ];
    await writeFile(join(folder, 'hosts.toml'), lines.join('\n'));
  };
  await writeHosts();
  let credentials: string[] = [];
  return {
    login: async ({ user, password }) => {
      credentials = ['--user', `${user}:${password}`];
      return '';
    },
    logout: async () => {
      credentials = [];
    },
    pull: async (repository) => {
      const ctr = (...args: string[]) => run(programs.ctr, ['-a', socket, 'images', ...args]);
      const options = [
        '--hosts-dir',
        join(directory, 'certs.d'),
        '--snapshotter',
        'native',
        ...programs.pullOptions,
      ];
      const output = await ctr('pull', ...options, ...credentials, `${repository}:1`);
      await ctr('rm', '--sync', `${repository}:1`);
      await run(programs.ctr, ['-a', socket, 'content', 'prune', 'references']);
      return output;
    },
    show: async ({ cert, key }) => {
      await writeFile(join(directory, 'client.cert'), cert);
      await writeFile(join(directory, 'client.key'), key);
      await writeHosts(`  client = [["${directory}/client.cert", "${directory}/client.key"]]`);
    },
  };
}

/** Of podman and skopeo, which read the same folder of certificates. */
async function certificateFolder(t: TestContext, { caText }: MirrorAddress) {
  const folder = await tempDir(t);
  if (caText !== undefined) await writeFile(join(folder, 'ca.crt'), caText);
  return {
    folder,
    show: async ({ cert, key }: Certificate) => {
      await writeFile(join(folder, 'client.cert'), cert);
      await writeFile(join(folder, 'client.key'), key);
    },
  };
}

export async function preparePodmanLogin(t: TestContext, mirror: MirrorAddress): Promise<LoginClient> {
  const directory = await daemonDir(t);
  const { folder, show } = await certificateFolder(t, mirror);
  const env = { REGISTRY_AUTH_FILE: join(directory, 'auth.json'), TMPDIR: directory };
  await writeFile(env.REGISTRY_AUTH_FILE, '{}'); // podman wants it to be there
  const storage = ['--root', `${directory}/root`, '--runroot', `${directory}/run`, '--storage-driver', 'vfs'];
  const quiet = ['--cgroup-manager', 'cgroupfs', '--events-backend', 'none', '--tmpdir', `${directory}/tmp`];
  const podman = (...args: string[]) => run('podman', [...storage, ...quiet, ...args], env);
  const trust = mirror.caText === undefined ? ['--tls-verify=false'] : ['--cert-dir', folder];
  return {
    login: ({ user, password }) =>
      podman('login', ...trust, '--username', user, '--password', password, mirror.name),
    logout: async () => void (await podman('logout', '--all')),
    pull: async (repository) => {
      const output = await podman('pull', ...trust, `${mirror.name}/${repository}:1`);
      await podman('rmi', '--all', '--force');
      return output;
    },
    show,
  };
}

export async function prepareSkopeoLogin(t: TestContext, mirror: MirrorAddress): Promise<LoginClient> {
  const directory = await tempDir(t);
  const { folder, show } = await certificateFolder(t, mirror);
  const env = { REGISTRY_AUTH_FILE: join(directory, 'auth.json') };
  const skopeo = (...args: string[]) => run('skopeo', args, env);
  const target = join(directory, 'copy');
  return {
    login: ({ user, password }) =>
      skopeo('login', '--cert-dir', folder, '--username', user, '--password', password, mirror.name),
    logout: async () => void (await skopeo('logout', '--all')),
    pull: async (repository) => {
      const source = `docker://${mirror.name}/${repository}:1`;
      const output = await skopeo(
        '--insecure-policy',
        'copy',
        '--src-cert-dir',
        folder,
        source,
        `dir:${target}`,
      );
      await rm(target, { recursive: true });
      return output;
    },
    show,
  };
}

export async function prepareCraneLogin(t: TestContext, mirror: MirrorAddress): Promise<LoginClient> {
  const directory = await tempDir(t);
  const env = { DOCKER_CONFIG: directory, SSL_CERT_FILE: mirror.ca ?? '' };
  const crane = (...args: string[]) => run(engine('crane'), args, env);
  const target = join(directory, 'layout');
  return {
    // It only writes the file; the pull says whether they are right.
    login: ({ user, password }) =>
      crane('auth', 'login', '--username', user, '--password', password, mirror.name),
    logout: async () => void (await crane('auth', 'logout', mirror.name)),
    pull: async (repository) => {
      const output = await crane('pull', '--format', 'oci', `${mirror.name}/${repository}:1`, target);
      await rm(target, { recursive: true });
      return output;
    },
  };
}

export async function prepareOrasLogin(t: TestContext, mirror: MirrorAddress): Promise<LoginClient> {
  const directory = await tempDir(t);
  const config = ['--registry-config', join(directory, 'config.json')];
  const sourceConfig = ['--from-registry-config', join(directory, 'config.json')];
  const ca = mirror.ca ?? '';
  let certificates = ['--from-ca-file', ca];
  const target = join(directory, 'layout');
  return {
    login: ({ user, password }) =>
      run(engine('oras'), [
        'login',
        ...config,
        '--ca-file',
        ca,
        '--username',
        user,
        '--password',
        password,
        mirror.name,
      ]),
    logout: async () => void (await run(engine('oras'), ['logout', ...config, mirror.name])),
    pull: async (repository) => {
      const image = `${mirror.name}/${repository}:1`;
      const options = [...sourceConfig, ...certificates, '--to-oci-layout'];
      const output = await run(engine('oras'), ['copy', ...options, image, `${target}:1`]);
      await rm(target, { recursive: true });
      return output;
    },
    show: async ({ cert, key }) => {
      await writeFile(join(directory, 'client.cert'), cert);
      await writeFile(join(directory, 'client.key'), key);
      certificates = [
        ...certificates,
        '--from-cert-file',
        join(directory, 'client.cert'),
        '--from-key-file',
        join(directory, 'client.key'),
      ];
    },
  };
}

export const LOGIN_CLIENTS: Readonly<
  Record<string, (t: TestContext, address: MirrorAddress) => Promise<LoginClient>>
> = {
  dockerd: startDockerLogin,
  'containerd 2': startContainerdLogin,
  podman: preparePodmanLogin,
  skopeo: prepareSkopeoLogin,
  crane: prepareCraneLogin,
  oras: prepareOrasLogin,
};

/** Tells what a client that was refused has shown to its user. */
export async function refusalOf(act: () => Promise<unknown>): Promise<string> {
  try {
    await act();
  } catch (error) {
    return String(error);
  }
  return assert.fail('the client was not refused');
}
