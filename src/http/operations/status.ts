/** What `millpond status` shows. Its numbers are read from the metrics, so that nothing is counted twice. */
import type { FleetCondition } from '../../fleet/fleet.ts';
import type { Metrics } from '../../telemetry/metrics.ts';
import type { UpstreamCondition } from '../../upstream/limits/resilience.ts';

/** Which configuration counts. */
export interface ConfigurationStatus {
  /** Null: the built-in defaults. */
  file: string | null;
  /** Null before the first reload. */
  lastReload: { at: string; successful: boolean; problems: readonly object[] } | null;
  /** Keys that were changed in the file and count from the next start. */
  waitsForRestart: readonly string[];
}

/** A list of images that is fetched regularly. */
export interface WarmStatus {
  images: readonly string[];
  /** Null before the first time that it was done. */
  last: { at: string; images: number; failed: number } | null;
}

/** What the metrics do not tell. Times are milliseconds since the epoch. */
export interface StatusFacts {
  version: string;
  startedAt: number;
  sealed: boolean;
  configuration: ConfigurationStatus;
  directory: string;
  /** Bytes that are free on the file system of the cache; null if it does not say. */
  freeBytes: number | null;
  warm: readonly WarmStatus[];
  /** Undefined: the mirror is alone. */
  fleet: FleetCondition | undefined;
  /** Undefined: nothing is known, because the upstream is sealed. */
  upstreams: Iterable<[name: string, condition: UpstreamCondition | undefined]>;
}

export interface Status {
  version: string;
  startedAt: string;
  sealed: boolean;
  configuration: ConfigurationStatus;
  store: {
    directory: string;
    bytes: number;
    capacityBytes: number;
    freeBytes: number | null;
    objects: number;
    evictions: number;
  };
  /** Since the start of the process. Rates are from 0 to 1; null before the first request. */
  requests: {
    total: number;
    hitRate: number | null;
    bytes: number;
    byteHitRate: number | null;
  };
  upstreams: {
    name: string;
    up: boolean;
    /** Why it gets no requests now; null while it is up. */
    outage: { reason: string; since: string; retryAt: string } | null;
    /** Until then some requests are not sent, because of a 429. */
    pausedUntil: string | null;
    requests: number;
    rateLimit: { limit: number | null; remaining: number | null; resetsAt: string | null };
  }[];
  warm: readonly WarmStatus[];
  /** Absent: the mirror is alone. */
  fleet?: FleetCondition;
}

interface Metric {
  get(): Promise<{ values: { value: number; labels: Partial<Record<string, string | number>> }[] }>;
}

const FROM_CACHE = ['hit', 'revalidated', 'stale', 'collapsed', 'store', 'node'];

export async function readStatus(metrics: Metrics, facts: StatusFacts): Promise<Status> {
  const requests = await shares(metrics.requests);
  const bytes = await shares(metrics.responseBytes);
  const upstreams = [...facts.upstreams].map(async ([upstream, condition]) => ({
    name: upstream,
    up: (await value(metrics.upstreamUp, upstream)) !== 0,
    outage: outageOf(condition),
    pausedUntil: isoOrNull(condition?.pausedUntil),
    requests: (await value(metrics.upstreamRequests, upstream)) ?? 0,
    rateLimit: {
      limit: condition?.pullWindow?.limit ?? null,
      remaining: condition?.pullWindow?.remaining ?? null,
      resetsAt: isoOrNull(condition?.pullWindow?.endsAt),
    },
  }));
  return {
    version: facts.version,
    startedAt: iso(facts.startedAt),
    sealed: facts.sealed,
    configuration: facts.configuration,
    store: {
      directory: facts.directory,
      bytes: (await value(metrics.storeBytes)) ?? 0,
      capacityBytes: (await value(metrics.storeCapacity)) ?? 0,
      freeBytes: facts.freeBytes,
      objects: (await value(metrics.storeObjects)) ?? 0,
      evictions: (await value(metrics.evictions)) ?? 0,
    },
    requests: { total: requests.total, hitRate: requests.rate, bytes: bytes.total, byteHitRate: bytes.rate },
    upstreams: await Promise.all(upstreams),
    warm: facts.warm,
    ...(facts.fleet === undefined ? {} : { fleet: facts.fleet }),
  };
}

function outageOf(condition: UpstreamCondition | undefined) {
  if (condition?.outage === undefined) return null;
  const { reason, since, retryAt } = condition.outage;
  return { reason, since: iso(since), retryAt: iso(retryAt) };
}

function isoOrNull(ms: number | undefined): string | null {
  return ms === undefined ? null : iso(ms);
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}

/** Computes the hit rate as the README defines it. */
async function shares(metric: Metric): Promise<{ total: number; rate: number | null }> {
  let [hits, total] = [0, 0];
  for (const { labels, value: count } of (await metric.get()).values) {
    if (labels['cache'] === 'none') continue;
    total += count;
    if (FROM_CACHE.includes(String(labels['cache']))) hits += count;
  }
  return { total, rate: total === 0 ? null : hits / total };
}

/** Sums up all labels, or those of one upstream. @returns null if there is no value at all */
async function value(metric: Metric, upstream?: string): Promise<number | null> {
  const values = (await metric.get()).values.filter(
    ({ labels }) => upstream === undefined || labels['upstream'] === upstream,
  );
  return values.length === 0 ? null : values.reduce((sum, one) => sum + one.value, 0);
}
