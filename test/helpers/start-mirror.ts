/** A whole mirror in this process, on free ports, with a directory of its own. */

import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { Agent, request } from 'undici';
import { stringify } from 'yaml';
import { type App, startApp } from '../../src/app/app.ts';
import { type FileSystem, nodeFileSystem } from '../../src/cache/store/file-system.ts';
import { loadConfig } from '../../src/config/load.ts';
import { cleanUp } from './cleanup.ts';
import { FakeClock } from './fake-clock.ts';
import { assertNothingTold } from './secrets.ts';
import { tempDir } from './temp-dir.ts';

export interface MirrorOptions {
  /** Base URL by upstream name. */
  upstreams: Record<string, string | Record<string, unknown>>;
  defaultUpstream?: string;
  sealed?: boolean;
  watchConfig?: boolean;
  warm?: Record<string, unknown>[];
  server?: Record<string, unknown>;
  /** With `access` and without `listen` it listens on a socket, so that the tests themselves need no rights. */
  operations?: Record<string, unknown>;
  /** Sent when a test asks for metrics. */
  operator?: Record<string, string>;
  access?: Record<string, unknown>;
  policies?: Record<string, unknown>[];
  policyWait?: string;
  notify?: string;
  fleet?: Record<string, unknown>;
  cache?: Record<string, unknown>;
  log?: Record<string, unknown>;
  environment?: Record<string, string>;
  directory?: string;
  clock?: FakeClock;
  fileSystem?: FileSystem;
}

export interface TestMirror {
  app: App;
  url: string;
  /** `http://host:port`, or `unix:` and the path of a socket. */
  operationsUrl: string;
  directory: string;
  clock: FakeClock;
  /** Lines of the log so far. */
  log: Record<string, unknown>[];
  get(path: string, headers?: Record<string, string>): Promise<TestReply>;
  head(path: string, headers?: Record<string, string>): Promise<TestReply>;
  send(method: string, path: string, headers?: Record<string, string>, body?: string): Promise<TestReply>;
  metric(name: string, labels?: Record<string, string>): Promise<number>;
  /** Resolves when no fetch runs any more: replies end a little before what they brought is stored. */
  idle(): Promise<void>;
}

export interface TestReply {
  status: number;
  headers: Record<string, string | string[] | undefined>;
  body: Buffer;
  /** The code of the registry error in the body. */
  error: string | undefined;
}

export async function startMirror(t: TestContext, options: MirrorOptions): Promise<TestMirror> {
  const directory = options.directory ?? (await tempDir(t));
  const file = join(directory, 'millpond.yaml');
  const upstreams = Object.fromEntries(
    Object.entries(options.upstreams).map(([name, value]) => [
      name,
      typeof value === 'string' ? { url: value } : value,
    ]),
  );
  const [first = 'docker.io'] = Object.keys(upstreams);
  await writeFile(
    file,
    stringify({
      server: { listen: '127.0.0.1:0', drainTimeout: '1s', ...options.server },
      operations: {
        listen: options.access === undefined ? '127.0.0.1:0' : `unix:${join(directory, 'ops.sock')}`,
        ...options.operations,
      },
      ...(options.access === undefined ? {} : { access: options.access }),
      policies: options.policies ?? [],
      ...(options.policyWait === undefined ? {} : { policyWait: options.policyWait }),
      ...(options.notify === undefined ? {} : { notify: options.notify }),
      ...(options.fleet === undefined ? {} : { fleet: options.fleet }),
      cache: { directory: join(directory, 'data'), ...options.cache },
      defaultUpstream: options.defaultUpstream ?? first,
      sealed: options.sealed ?? false,
      watchConfig: options.watchConfig ?? true,
      warm: options.warm ?? [],
      log: options.log ?? {},
      upstreams,
    }),
  );
  const environment = options.environment ?? {};
  const load = () => loadConfig({ file, cwd: directory, environment });
  const clock = options.clock ?? new FakeClock();
  const log: Record<string, unknown>[] = [];
  const app = await startApp({
    config: await load(),
    configFile: { path: file, load },
    environment,
    version: 'test',
    clock,
    random: () => 0.5,
    fileSystem: options.fileSystem ?? nodeFileSystem,
    logDestination: { write: (line) => void log.push(JSON.parse(line) as Record<string, unknown>) },
    collectGarbage: () => undefined,
    processMetrics: false,
  });
  const client = new Agent({ connections: 500 });
  /** Errors that clients were told. */
  const errors: string[] = [];
  cleanUp(t, async () => {
    await client.destroy();
    await operator.destroy();
    await app.close();
    assertNothingTold([...log.map((line) => JSON.stringify(line)), ...errors], environment);
  });
  const url = `http://${app.registryAddress}`;
  const { operationsAddress } = app;
  const socketPath = /^unix:(.+)$/.exec(operationsAddress)?.[1];
  const scheme = options.operations?.['tls'] === undefined ? 'http' : 'https';
  const operationsUrl = socketPath === undefined ? `${scheme}://${operationsAddress}` : operationsAddress;
  const operator = new Agent({
    connect: { rejectUnauthorized: false, ...(socketPath === undefined ? {} : { socketPath }) },
  });

  const send = async (method: string, path: string, headers = {}, body?: string): Promise<TestReply> => {
    // The raw path, so that what URL parsers would tidy up reaches the mirror.
    const reply = await client.request({
      origin: url,
      path,
      method,
      headers,
      body: body ?? null,
    });
    const bytes = Buffer.from(await reply.body.arrayBuffer());
    const error = errorCode(bytes);
    if (error !== undefined) errors.push(bytes.toString());
    return { status: reply.statusCode, headers: reply.headers, body: bytes, error };
  };
  const metric = async (name: string, labels: Record<string, string> = {}): Promise<number> => {
    const base = socketPath === undefined ? operationsUrl : 'http://localhost';
    const { operator: headers = {} } = options;
    const reply = await request(`${base}/metrics`, { dispatcher: operator, headers });
    const text = await reply.body.text();
    if (reply.statusCode !== 200) throw new Error(`no metrics: ${text}`);
    return text
      .split('\n')
      .filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `))
      .filter((line) =>
        Object.entries(labels).every(([label, value]) => line.includes(`${label}="${value}"`)),
      )
      .reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
  };
  return {
    app,
    url,
    operationsUrl,
    directory,
    clock,
    log,
    metric,
    idle: async () => {
      while ((await metric('millpond_ingests_in_progress')) > 0) await setImmediate();
    },
    send,
    get: (path, headers) => send('GET', path, headers),
    head: (path, headers) => send('HEAD', path, headers),
  };
}

function errorCode(body: Buffer): string | undefined {
  if (body[0] !== 0x7b) return undefined;
  try {
    const json = JSON.parse(body.toString()) as { errors?: { code: string }[] };
    return json.errors?.[0]?.code;
  } catch {
    return undefined;
  }
}
