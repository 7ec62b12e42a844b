/** What `millpond status` shows. All of it is read from the metrics, so that nothing is counted twice. */
import type { Metrics } from '../../telemetry/metrics.ts';

/** Which configuration counts. */
export interface ConfigurationStatus {
  /** Null: the built-in defaults. */
  file: string | null;
  /** Null before the first reload. */
  lastReload: { at: string; successful: boolean; problems: readonly object[] } | null;
  /** Keys that were changed in the file and count from the next start. */
  waitsForRestart: readonly string[];
}

export interface Status {
  version: string;
  sealed: boolean;
  configuration: ConfigurationStatus;
  store: { bytes: number; capacityBytes: number; objects: number; evictions: number };
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
    requests: number;
    rateLimit: { limit: number | null; remaining: number | null };
  }[];
}

interface Metric {
  get(): Promise<{ values: { value: number; labels: Partial<Record<string, string | number>> }[] }>;
}

const FROM_CACHE = ['hit', 'revalidated', 'stale', 'collapsed'];

export async function readStatus(
  metrics: Metrics,
  facts: {
    version: string;
    sealed: boolean;
    upstreams: Iterable<string>;
    configuration: ConfigurationStatus;
  },
): Promise<Status> {
  const requests = await shares(metrics.requests);
  const bytes = await shares(metrics.responseBytes);
  const upstreams = [...facts.upstreams].map(async (upstream) => ({
    name: upstream,
    up: (await value(metrics.upstreamUp, upstream)) !== 0,
    requests: (await value(metrics.upstreamRequests, upstream)) ?? 0,
    rateLimit: {
      limit: await value(metrics.upstreamRateLimit, upstream),
      remaining: await value(metrics.upstreamRateLimitRemaining, upstream),
    },
  }));
  return {
    version: facts.version,
    sealed: facts.sealed,
    configuration: facts.configuration,
    store: {
      bytes: (await value(metrics.storeBytes)) ?? 0,
      capacityBytes: (await value(metrics.storeCapacity)) ?? 0,
      objects: (await value(metrics.storeObjects)) ?? 0,
      evictions: (await value(metrics.evictions)) ?? 0,
    },
    requests: { total: requests.total, hitRate: requests.rate, bytes: bytes.total, byteHitRate: bytes.rate },
    upstreams: await Promise.all(upstreams),
  };
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
