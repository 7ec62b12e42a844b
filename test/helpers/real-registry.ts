/** Debian's docker-registry as the upstream, and a real image in it. */
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { gzipSync } from 'node:zlib';
import { stringify } from 'yaml';
import { digestOf } from '../../src/oci/digest.ts';
import { freePort, type RunningProcess, run, startProcess, until } from './real-processes.ts';
import { tempDir } from './temp-dir.ts';

export interface LoggedRequest {
  method: string;
  path: string;
  status: number;
}

export class RealRegistry {
  readonly port: number;
  readonly #process: RunningProcess;
  #seen = 0;

  private constructor(port: number, process: RunningProcess) {
    this.port = port;
    this.#process = process;
  }

  /** @param auth the `auth` section of its configuration */
  static async start(t: TestContext, auth?: Record<string, unknown>): Promise<RealRegistry> {
    const directory = await tempDir(t);
    const port = await freePort();
    const config = {
      version: '0.1',
      log: { level: 'error', accesslog: { disabled: false } },
      storage: { filesystem: { rootdirectory: join(directory, 'data') } },
      http: { addr: `127.0.0.1:${port}` },
      ...(auth === undefined ? {} : { auth }),
    };
    await writeFile(join(directory, 'config.yml'), stringify(config));
    const process = startProcess(t, 'docker-registry', ['serve', join(directory, 'config.yml')]);
    await until(
      'docker-registry',
      process,
      async () => (await fetch(`http://127.0.0.1:${port}/v2/`)).status < 500,
    );
    const registry = new RealRegistry(port, process);
    registry.takeRequests();
    return registry;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  /** What it was asked since the last call, pings aside; from its own access log. */
  takeRequests(): LoggedRequest[] {
    const lines = this.#process.lines.slice(this.#seen);
    this.#seen = this.#process.lines.length;
    return lines.flatMap((line) => {
      const match = /"(GET|HEAD|POST|PUT|PATCH|DELETE) (\S+) HTTP\/[\d.]+" (\d{3})/.exec(line);
      const [, method = '', path = '', status = ''] = match ?? [];
      return match === null || path === '/v2/' ? [] : [{ method, path, status: Number(status) }];
    });
  }

  stop(): Promise<void> {
    return this.#process.stop();
  }
}

export interface RealImage {
  /** An OCI layout, for skopeo. */
  layout: string;
  /** Of the index. */
  digest: string;
}

/** busybox for two platforms, two layers each, as an OCI layout with the tag `1`. */
export async function makeImage(directory: string): Promise<RealImage> {
  const layout = join(directory, 'layout');
  await mkdir(join(layout, 'blobs/sha256'), { recursive: true });
  const add = async (bytes: Buffer) => {
    const digest = digestOf(bytes);
    await writeFile(join(layout, 'blobs/sha256', digest.slice('sha256:'.length)), bytes);
    return { digest, size: bytes.length };
  };
  const tars = [
    tar([{ name: 'bin/busybox', mode: 0o755, bytes: await readFile('/bin/busybox') }]),
    tar([{ name: 'etc/motd', mode: 0o644, bytes: Buffer.from('the miller sends his regards\n') }]),
  ];
  const layers = [];
  for (const bytes of tars) {
    layers.push({
      mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
      ...(await add(gzipSync(bytes))),
    });
  }
  const manifests = [];
  for (const architecture of ['amd64', 'arm64']) {
    const config = {
      architecture,
      os: 'linux',
      config: { Cmd: ['/bin/busybox', 'sh'] },
      rootfs: { type: 'layers', diff_ids: tars.map((bytes) => digestOf(bytes)) },
    };
    const manifest = {
      schemaVersion: 2,
      mediaType: 'application/vnd.oci.image.manifest.v1+json',
      config: { mediaType: 'application/vnd.oci.image.config.v1+json', ...(await add(json(config))) },
      layers,
    };
    manifests.push({
      mediaType: manifest.mediaType,
      ...(await add(json(manifest))),
      platform: { architecture, os: 'linux' },
    });
  }
  const mediaType = 'application/vnd.oci.image.index.v1+json';
  const index = await add(json({ schemaVersion: 2, mediaType, manifests }));
  const annotations = { 'org.opencontainers.image.ref.name': '1' };
  await writeFile(
    join(layout, 'index.json'),
    json({ schemaVersion: 2, manifests: [{ mediaType, ...index, annotations }] }),
  );
  await writeFile(join(layout, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
  return { layout, digest: index.digest };
}

/** @param destination `library/busybox:1` */
export async function pushImage(
  image: RealImage,
  registry: RealRegistry,
  destination: string,
  credentials?: string,
): Promise<void> {
  await run('skopeo', [
    'copy',
    '--insecure-policy',
    '--all',
    '--dest-tls-verify=false',
    ...(credentials === undefined ? [] : ['--dest-creds', credentials]),
    `oci:${image.layout}:1`,
    `docker://127.0.0.1:${registry.port}/${destination}`,
  ]);
  registry.takeRequests();
}

function json(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value));
}

/** A ustar archive, the same bytes every time. */
function tar(files: { name: string; mode: number; bytes: Buffer }[]): Buffer {
  const blocks = files.flatMap(({ name, mode, bytes }) => {
    const header = Buffer.alloc(512);
    header.write(name, 0);
    header.write(octal(mode, 8), 100);
    header.write(octal(0, 8), 108);
    header.write(octal(0, 8), 116);
    header.write(octal(bytes.length, 12), 124);
    header.write(octal(0, 12), 136);
    header.write('        ', 148);
    header.write('0', 156);
    header.write('ustar\0', 257);
    header.write('00', 263);
    const sum = header.reduce((total, byte) => total + byte, 0);
    header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
    return [header, bytes, Buffer.alloc((512 - (bytes.length % 512)) % 512)];
  });
  return Buffer.concat([...blocks, Buffer.alloc(1024)]);
}

function octal(value: number, width: number): string {
  return `${value.toString(8).padStart(width - 1, '0')}\0`;
}
