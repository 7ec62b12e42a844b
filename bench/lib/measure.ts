/** One measurement: load on a server, and what the server and the upstream had to do for it. */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import type { LoadJob, LoadResult } from './load.ts';
import type { Server } from './peers.ts';
import { cpuSeconds, peakResidentMiB, resetPeak, residentMiB, run, settled } from './processes.ts';
import type { Lab, Sample } from './scenario.ts';
import type { UpstreamStats } from './upstream.ts';

export const MIB = 1024 * 1024;
const GB = 1e9;
export const REPOSITORY = 'bench/image';

export interface Observed<T> {
  result: T;
  upstream: UpstreamStats;
  /** Empty for `direct`. */
  process: { cpuSeconds?: number; peakRssMiB?: number; rssGrowthMiB?: number; loopP99Ms?: number };
}

/**
 * CPU is counted until the server has come to rest: what it does after the last reply is part of the price.
 *
 * @param content the work moves large content: see {@link touchMemory}
 */
export async function observe<T>(
  lab: Lab,
  server: Server,
  work: () => Promise<T>,
  content = false,
): Promise<Observed<T>> {
  const { pids } = server;
  if (!lab.smoke) await run('sync', ['-f', lab.directory]); // what others have left to write is not this one's burden
  if (content) await touchMemory(lab.directory);
  await lab.upstream.reset();
  if (pids.length === 0) {
    const result = await work();
    return { result, upstream: await lab.upstream.stats(), process: {} };
  }
  await loopP99Ms(server); // reading it begins a new interval
  await settled(pids);
  const rssBefore = residentMiB(pids);
  resetPeak(pids);
  const cpuBefore = cpuSeconds(pids);
  const result = await work();
  await settled(pids);
  const used = cpuSeconds(pids) - cpuBefore;
  const peakRssMiB = peakResidentMiB(pids);
  const lag = await loopP99Ms(server);
  return {
    result,
    upstream: await lab.upstream.stats(),
    process: {
      cpuSeconds: used,
      peakRssMiB,
      rssGrowthMiB: peakRssMiB - rssBefore,
      ...(lag === undefined ? {} : { loopP99Ms: lag }),
    },
  };
}

/**
 * Writes a file and removes it, so that the next pages the kernel gives away have memory of the host behind them.
 * On a virtual machine a page that nobody has touched for some seconds costs the one who gets it five times as much as
 * the write into it; without this, what is measured is who was unlucky.
 */
async function touchMemory(directory: string): Promise<void> {
  const file = join(directory, 'scratch');
  await run('dd', ['if=/dev/zero', `of=${file}`, 'bs=1M', 'count=1024', 'status=none']);
  await rm(file);
}

async function loopP99Ms({ metricsUrl }: Server): Promise<number | undefined> {
  if (metricsUrl === undefined) return undefined;
  const text = await (await fetch(metricsUrl)).text();
  const match = /^nodejs_eventloop_lag_p99_seconds (\S+)$/m.exec(text);
  return match === null ? undefined : Number(match[1]) * 1000;
}

export async function download(job: LoadJob): Promise<LoadResult> {
  const output = await run(process.execPath, [join(import.meta.dirname, 'load.ts'), JSON.stringify(job)]);
  const result = JSON.parse(output) as LoadResult;
  if (result.failures.length > 0) throw new Error(`port ${job.port}, ${job.path}: ${result.failures[0]}`);
  return result;
}

export function blobPath(digest: string): string {
  return `/v2/${REPOSITORY}/blobs/${digest}`;
}

/** Downloads one blob, and gives the figures that every blob scenario has. */
export async function measureDownload(
  lab: Lab,
  server: Server,
  job: Omit<LoadJob, 'port' | 'tls'>,
): Promise<Sample & { blobBytes: number }> {
  const seen = await observe(
    lab,
    server,
    async () => download({ ...job, port: server.port, tls: server.tls === true }),
    !lab.smoke,
  );
  const { result, upstream } = seen;
  return {
    ...figures(seen),
    wallMs: result.wallMs,
    MiBps: result.bytes / MIB / (result.wallMs / 1000),
    firstByteMs: Math.max(...result.firstByteMs),
    firstByteAfterUpstreamMs: Math.max(...result.firstByteAt) - upstream.firstByteAt,
    blobBytes: result.bytes,
    ...(seen.process.cpuSeconds === undefined
      ? {}
      : { cpuSecondsPerGB: seen.process.cpuSeconds / (result.bytes / GB) }),
  };
}

export function figures({ upstream, process }: Observed<unknown>): Sample {
  return {
    ...process,
    upstreamMiB: upstream.bytes / MIB,
    upstreamRequests: Object.values(upstream.requests).reduce((sum, count) => sum + count, 0),
  };
}

/**
 * wrk on one path: 32 connections that are kept alive, one thread.
 *
 * @param script for wrk, when it is to ask for more than the one path
 */
export async function measureRequests(
  lab: Lab,
  server: Server,
  path: string,
  headers: readonly string[] = [],
  script?: string,
): Promise<Sample> {
  const seconds = lab.smoke ? 1 : 3;
  const url = `http://127.0.0.1:${server.port}${path}`;
  const options = [
    ...headers.flatMap((line) => ['-H', line]),
    ...(script === undefined ? [] : ['-s', script]),
  ];
  const args = ['-t1', '-c32', `-d${seconds}s`, '--latency', ...options, url];
  const seen = await observe(lab, server, () => run('wrk', args));
  const text = seen.result;
  if (/Non-2xx|Socket errors/.test(text)) throw new Error(`wrk saw errors at ${server.name}:\n${text}`);
  const requests = Number(/(\d+) requests in/.exec(text)?.[1]);
  const used = seen.process.cpuSeconds;
  return {
    ...figures(seen),
    requestsPerSecond: Number(/Requests\/sec: +([\d.]+)/.exec(text)?.[1]),
    p50Ms: latency(text, '50%'),
    p99Ms: latency(text, '99%'),
    ...(used === undefined ? {} : { cpuSecondsPer1000: used / (requests / 1000) }),
  };
}

function latency(text: string, percentile: string): number {
  const match = new RegExp(`${percentile} +([\\d.]+)(us|ms|s)`).exec(text);
  const unit = { us: 0.001, ms: 1, s: 1000 }[match?.[2] ?? 'ms'] ?? Number.NaN;
  return Number(match?.[1]) * unit;
}

/** Fetches `path` once from everyone, so that it is warm; nothing is measured before the bytes have proved right. */
export async function warmUp(lab: Lab, path: string): Promise<void> {
  for (const server of Object.values(lab.servers)) {
    const verify = path.includes('/blobs/');
    if (verify) {
      await download({
        port: server.port,
        tls: server.tls === true,
        path,
        clients: 1,
        repeat: 1,
        verify,
      }).catch((error: unknown) => {
        throw new Error(`${server.name} does not warm up`, { cause: error });
      });
    } else {
      const reply = await fetch(`http://127.0.0.1:${server.port}${path}`, { headers: ACCEPT });
      if (!reply.ok) throw new Error(`${server.name} answered ${reply.status} to ${path}`);
      await reply.arrayBuffer();
    }
  }
  await setTimeout(200); // docker-registry stores after it has answered
}

export const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
export const OCI_CONFIG = 'application/vnd.oci.image.config.v1+json';
export const OCI_LAYER = 'application/vnd.oci.image.layer.v1.tar+gzip';
const ACCEPT = { accept: OCI_MANIFEST };
export const ACCEPT_LINE = `Accept: ${OCI_MANIFEST}`;

/**
 * A blob that nobody has seen, behind a manifest that `server` has just been asked for: no client asks for a blob whose
 * size no manifest has told.
 *
 * @returns its path
 */
export async function coldBlob(lab: Lab, server: Server, size: number): Promise<string> {
  const digest = await lab.upstream.newBlob(size);
  const config = Buffer.from('{}');
  const manifest = await lab.upstream.addManifest(REPOSITORY, 'cold', OCI_MANIFEST, {
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    config: { mediaType: OCI_CONFIG, digest: await lab.upstream.addBlob(config), size: config.length },
    layers: [{ mediaType: OCI_LAYER, digest, size }],
  });
  const path = `/v2/${REPOSITORY}/manifests/${manifest}`;
  const reply = await fetch(`http://127.0.0.1:${server.port}${path}`, { headers: ACCEPT });
  if (!reply.ok) throw new Error(`${server.name} answered ${reply.status} to ${path}`);
  await reply.arrayBuffer();
  return blobPath(digest);
}

/** A manifest of eight layers under `bench/image:1`; its layers are nowhere. */
export async function addManifest(lab: Lab): Promise<string> {
  const descriptor = (n: number) => ({ digest: `sha256:${String(n).padStart(64, '0')}`, size: 1000 + n });
  return lab.upstream.addManifest(REPOSITORY, '1', OCI_MANIFEST, {
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    config: { mediaType: OCI_CONFIG, ...descriptor(0) },
    layers: Array.from({ length: 8 }, (_, n) => ({ mediaType: OCI_LAYER, ...descriptor(n + 1) })),
  });
}

export async function exampleOf(server: Server, path: string): Promise<Response> {
  return fetch(`http://127.0.0.1:${server.port}${path}`, { headers: ACCEPT });
}
