/** The servers that are compared, each as a process of its own with a cache of its own, in front of one upstream. */
import { existsSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { stringify } from 'yaml';
import type { BareReply } from './bare.ts';
import { freePort, isOnPath, type RunningProcess, run, startProcess, until } from './processes.ts';

/**
 * `accel`: Millpond behind an nginx that sends warm blobs itself. `direct`: no server between. `bare`: node:http with one
 * fixed reply, what a plain server on Node does.
 */
export type PeerName =
  | 'millpond'
  | 'millpond-tls'
  | 'nginx-tls'
  | 'accel'
  | 'docker-registry'
  | 'nginx'
  | 'direct'
  | 'bare';

/** Millpond in a comparison of two checkouts: `again` is the other one a second time. */
export type VersionName = 'this' | 'other' | 'again';

export interface Server {
  name: PeerName | VersionName;
  port: number;
  /** None for `direct`: the upstream is not what is measured. */
  pids: readonly number[];
  metricsUrl?: string;
  tls?: true;
  /** Of a Millpond. */
  checkout?: Checkout;
  stop(): Promise<void>;
}

/** A checkout of this repository, and how its own `npm start` starts Millpond. */
export interface Checkout {
  folder: string;
  /** The Node that is installed there. */
  node: string;
  /** What follows after `node`, with paths made absolute. */
  args: readonly string[];
}

/** @throws if there is no Millpond in `folder`, or `npm ci` has not been run there */
export async function readCheckout(folder: string): Promise<Checkout> {
  const root = resolve(folder);
  const { scripts } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as {
    scripts: { start: string };
  };
  const [program, ...args] = scripts.start.split(' ');
  const node = join(root, 'node_modules/.bin/node');
  if (program !== 'node') throw new Error(`${root}: npm start does not begin with node`);
  if (!existsSync(node)) throw new Error(`${node} does not exist: run npm ci in ${root}`);
  return { folder: root, node, args: args.map((word) => (word.endsWith('.ts') ? join(root, word) : word)) };
}

const PROGRAM: Partial<Record<PeerName, string>> = {
  'docker-registry': 'docker-registry',
  nginx: 'nginx',
  accel: 'nginx',
};

/** The program that `peer` needs and that is not here. */
export function missingProgram(peer: PeerName): string | undefined {
  const program = PROGRAM[peer];
  return program === undefined || isOnPath(program) ? undefined : program;
}

export interface Surroundings {
  /** Empty; removed by the caller. */
  directory: string;
  upstreamPort: number;
  foreignPort: number;
}

/** Settings besides those that every server has. */
export interface MoreConfig {
  cache?: Record<string, unknown>;
  server?: Record<string, unknown>;
  policies?: readonly Record<string, unknown>[];
  access?: Record<string, unknown>;
  fleet?: Record<string, unknown>;
  /** Of the upstream that most content comes from. */
  upstream?: Record<string, unknown>;
}

export async function startMillpond(
  { directory, upstreamPort, foreignPort }: Surroundings,
  checkout: Checkout,
  { cache, server: more, upstream, ...sections }: MoreConfig = {},
): Promise<Server> {
  const [port, operationsPort] = [await freePort(), await freePort()];
  const config = {
    server: { listen: `127.0.0.1:${port}`, ...more },
    operations: { listen: `127.0.0.1:${operationsPort}` },
    cache: { directory: join(directory, 'cache'), ...cache },
    ...sections,
    defaultUpstream: 'upstream.test',
    upstreams: {
      'upstream.test': { url: `http://127.0.0.1:${upstreamPort}`, ...upstream },
      'foreign.test': { url: `http://127.0.0.1:${foreignPort}` },
    },
  };
  const file = join(directory, 'millpond.yaml');
  await writeFile(file, stringify(config));
  const running = startProcess(
    checkout.node,
    [...checkout.args, '--config', file],
    join(directory, 'millpond.log'),
  );
  const metricsUrl = `http://127.0.0.1:${operationsPort}/metrics`;
  const readyUrl = `http://127.0.0.1:${operationsPort}/readyz`;
  await until('Millpond', running, async () => (await fetch(readyUrl)).ok);
  return { ...server('millpond', port, running), metricsUrl, checkout };
}

/** What Debian's own configuration says, with `proxy` added. */
export async function startDockerRegistry({ directory, upstreamPort }: Surroundings): Promise<Server> {
  const port = await freePort();
  const config = {
    version: '0.1',
    log: { fields: { service: 'registry' } },
    storage: {
      cache: { blobdescriptor: 'inmemory' },
      filesystem: { rootdirectory: join(directory, 'data') },
      delete: { enabled: true },
    },
    http: { addr: `127.0.0.1:${port}`, headers: { 'X-Content-Type-Options': ['nosniff'] } },
    health: { storagedriver: { enabled: true, interval: '10s', threshold: 3 } },
    proxy: { remoteurl: `http://127.0.0.1:${upstreamPort}` },
  };
  const file = join(directory, 'config.yml');
  await writeFile(file, stringify(config));
  const running = startProcess('docker-registry', ['serve', file], join(directory, 'registry.log'));
  await until('docker-registry', running, async () => (await fetch(`http://127.0.0.1:${port}/v2/`)).ok);
  return server('docker-registry', port, running);
}

/** The same certificate for both: an EC key, as certbot makes them by default. */
async function makeCertificate(directory: string): Promise<{ certificate: string; key: string }> {
  const files = { certificate: join(directory, 'tls.crt'), key: join(directory, 'tls.key') };
  const kind = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'];
  await run('openssl', [
    'req',
    '-x509',
    ...kind,
    '-subj',
    '/CN=bench',
    '-keyout',
    files.key,
    '-out',
    files.certificate,
  ]);
  return files;
}

export async function startMillpondTls(surroundings: Surroundings, checkout: Checkout): Promise<Server> {
  const tls = await makeCertificate(surroundings.directory);
  return {
    ...(await startMillpond(surroundings, checkout, { server: { tls } })),
    name: 'millpond-tls',
    tls: true,
  };
}

export async function startNginxTls(surroundings: Surroundings): Promise<Server> {
  const { certificate, key } = await makeCertificate(surroundings.directory);
  const lines = `ssl_certificate ${certificate}; ssl_certificate_key ${key};`;
  return { ...(await startNginx(surroundings, lines)), name: 'nginx-tls', tls: true };
}

/** @param ssl lines of a server that speaks TLS */
export async function startNginx({ directory, upstreamPort }: Surroundings, ssl?: string): Promise<Server> {
  const running = await runNginx(
    directory,
    (port) => `
  proxy_cache_path ${directory}/cache levels=1:2 keys_zone=registry:10m max_size=50g inactive=1d use_temp_path=off;
  upstream registry { server 127.0.0.1:${upstreamPort}; keepalive 16; }
  server {
    listen 127.0.0.1:${port} backlog=4096 ${ssl === undefined ? '' : 'ssl'};
    ${ssl ?? ''}
    location = /ready { return 204; }
    location / {
      proxy_pass http://registry;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_cache registry;
      proxy_cache_key $uri;
      proxy_cache_valid 200 1h;
      proxy_cache_lock on;
      proxy_cache_lock_age 10m;
      proxy_cache_lock_timeout 10m;
    }
  }`,
  );
  return server('nginx', running.port, running.process);
}

/** As the README says. */
export async function startAccelerated(surroundings: Surroundings, checkout: Checkout): Promise<Server> {
  const { directory } = surroundings;
  const millpond = await startMillpond(surroundings, checkout, {
    server: { accelRedirect: '/blobs/', trustedProxies: ['127.0.0.1'] },
  });
  await mkdir(join(directory, 'front'));
  const front = await runNginx(
    join(directory, 'front'),
    (port) => `
  upstream millpond { server 127.0.0.1:${millpond.port}; keepalive 32; }
  server {
    listen 127.0.0.1:${port} backlog=4096;
    location = /ready { return 204; }
    location / {
      proxy_pass http://millpond;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $http_host;
      proxy_set_header X-Sendfile-Type X-Accel-Redirect;
      proxy_max_temp_file_size 0;
    }
    location /blobs/ {
      internal;
      alias ${directory}/cache/blobs/;
      etag off;
    }
  }`,
  );
  return {
    name: 'accel',
    port: front.port,
    pids: [...millpond.pids, front.process.pid],
    stop: async () => {
      await front.process.stop();
      await millpond.stop();
    },
  };
}

async function runNginx(
  directory: string,
  http: (port: number) => string,
): Promise<{ port: number; process: RunningProcess }> {
  const port = await freePort();
  const file = join(directory, 'nginx.conf');
  await mkdir(join(directory, 'temp'));
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
    (kind) => `${kind}_temp_path ${directory}/temp/${kind};`,
  );
  const config = `
daemon off;
${process.getuid?.() === 0 ? 'user root;' : ''}
worker_processes auto;
pid ${directory}/nginx.pid;
events { worker_connections 4096; }
http {
  access_log ${directory}/access.log;
  ${temporary.join('\n  ')}
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000;
${http(port)}
}
`;
  await writeFile(file, config);
  const errors = join(directory, 'error.log');
  const running = startProcess('nginx', ['-c', file, '-e', errors], join(directory, 'nginx.log'));
  await until('nginx', running, async () => (await fetch(`http://127.0.0.1:${port}/ready`)).status > 0);
  return { port, process: running };
}

/** Answers with the very bytes and headers that `example` answers with. */
export async function startBare({ directory }: Surroundings, example: Response): Promise<Server> {
  const port = await freePort();
  const headers = Object.fromEntries(example.headers);
  for (const name of ['date', 'connection', 'keep-alive']) delete headers[name];
  const base64 = Buffer.from(await example.arrayBuffer()).toString('base64');
  const reply: BareReply = { port, headers, base64 };
  const running = startProcess(
    process.execPath,
    [join(import.meta.dirname, 'bare.ts'), JSON.stringify(reply)],
    join(directory, 'bare.log'),
  );
  await until('the bare server', running, async () => (await fetch(`http://127.0.0.1:${port}/`)).ok);
  return server('bare', port, running);
}

export function direct({ upstreamPort }: Surroundings): Server {
  return { name: 'direct', port: upstreamPort, pids: [], stop: async () => undefined };
}

function server(name: PeerName, port: number, running: RunningProcess): Server {
  return { name, port, pids: [running.pid], stop: () => running.stop() };
}
