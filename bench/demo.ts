/**
 * What a mirror is for, in one table, without a network: starts a small upstream and a mirror, pulls an image cold
 * and warm over HTTP, and prints what each pull cost.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { request } from 'undici';
import { type App, startApp } from '../src/app/app.ts';
import { nodeFileSystem } from '../src/cache/store/file-system.ts';
import { systemClock } from '../src/clock.ts';
import { loadConfig } from '../src/config/load.ts';
import { digestOf } from '../src/oci/digest.ts';
import type { TestImage } from '../test/helpers/images.ts';
import { ScriptedUpstream } from '../test/helpers/scripted-upstream.ts';

const MIB = 1024 * 1024;
const REPOSITORY = 'library/demo';
const LAYERS = [8 * MIB, 24 * MIB, 2 * MIB];
/** The upstream gives each connection this many bytes a second, as a content network does. */
const UPSTREAM_RATE = 40 * MIB;

const steps: (() => unknown)[] = [];
try {
  await demo();
} finally {
  for (const step of steps.toReversed()) await step();
}

async function demo(): Promise<void> {
  const upstream = await ScriptedUpstream.start({ after: (step) => void steps.push(step as () => unknown) });
  upstream.script({ kind: 'blob' }, (reply) => {
    reply.rate = UPSTREAM_RATE;
  });
  const image = upstream.addImage(REPOSITORY, 'latest', { layers: LAYERS });
  const mirror = await startMirror(upstream.url);

  const rows = [];
  for (const pull of ['cold', 'warm']) {
    const requestsBefore = upstream.requests.length;
    const startedAt = systemClock.now();
    const { bytes, statuses } = await pullImage(mirror.registryAddress, image);
    rows.push({
      pull,
      seconds: ((systemClock.now() - startedAt) / 1000).toFixed(2),
      MiB: (bytes / MIB).toFixed(1),
      'upstream requests': upstream.requests.length - requestsBefore,
      'cache status': [...new Set(statuses)].join(', '),
    });
  }
  process.stdout.write(`${table(rows)}\n`);
}

async function startMirror(upstreamUrl: string): Promise<App> {
  const directory = await mkdtemp(join(tmpdir(), 'millpond-demo-'));
  steps.push(() => rm(directory, { recursive: true }));
  const defaults = await loadConfig({ cwd: directory });
  const hub = defaults.upstreams.get('docker.io');
  if (hub === undefined) throw new Error('the defaults have no docker.io');
  const anyPort = { host: '127.0.0.1', port: 0 };
  const app = await startApp({
    config: {
      ...defaults,
      server: { ...defaults.server, listen: anyPort },
      operations: { ...defaults.operations, listen: anyPort },
      upstreams: new Map([['docker.io', { ...hub, url: upstreamUrl }]]),
      log: { ...defaults.log, level: 'warn' },
    },
    environment: {},
    version: 'demo',
    clock: systemClock,
    random: Math.random,
    fileSystem: nodeFileSystem,
    logDestination: process.stderr,
    collectGarbage: () => undefined,
    processMetrics: false,
  });
  steps.push(() => app.close());
  return app;
}

/** As docker does it: the manifest, then everything it lists at once. Every blob is checked against its digest. */
async function pullImage(address: string, image: TestImage): Promise<{ bytes: number; statuses: string[] }> {
  const base = `http://${address}/v2/${REPOSITORY}`;
  const replies = [await request(`${base}/manifests/latest`)];
  replies.push(...(await Promise.all(image.blobs.map((blob) => request(`${base}/blobs/${digestOf(blob)}`)))));
  let bytes = 0;
  for (const reply of replies) {
    const body = Buffer.from(await reply.body.arrayBuffer());
    if (digestOf(body) !== reply.headers['docker-content-digest']) throw new Error('a reply has wrong bytes');
    bytes += body.length;
  }
  return { bytes, statuses: replies.map((reply) => String(reply.headers['cache-status'])) };
}

function table(rows: Record<string, string | number>[]): string {
  const columns = Object.keys(rows[0] ?? {});
  const cells = [columns, ...rows.map((row) => columns.map((column) => String(row[column])))];
  const widths = columns.map((_, at) => Math.max(...cells.map((row) => row[at]?.length ?? 0)));
  return cells
    .map((row) =>
      row
        .map((cell, at) => cell.padEnd(widths[at] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}
