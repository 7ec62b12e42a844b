/** Answers Prometheus. Some gauges are set only when they are asked for, because what they say changes by itself. */
import type { Middleware } from 'koa';
import type { Metrics } from '../../telemetry/metrics.ts';
import type { UpstreamCondition } from '../../upstream/limits/resilience.ts';
import type { OperationsState } from './permit.ts';
import type { WarmStatus } from './status.ts';

export interface ScrapeFacts {
  sealed: boolean;
  /** Whether traffic may come here. */
  ready: boolean;
  /** Bytes that are free on the file system of the cache; null if it does not say. */
  freeBytes: number | null;
  warm: readonly WarmStatus[];
  /** Undefined: the upstream is sealed. */
  upstreams: Iterable<[name: string, condition: UpstreamCondition | undefined]>;
}

const OPEN_METRICS = 'application/openmetrics-text; version=1.0.0';
const TEXT = 'text/plain; version=0.0.4';

export function answerScrapes(
  metrics: Metrics,
  facts: () => Promise<ScrapeFacts>,
): Middleware<OperationsState> {
  return async (ctx) => {
    ctx.state.permit.require(['observe']);
    setGauges(metrics, await facts());
    const format = ctx.accepts(TEXT, OPEN_METRICS) === OPEN_METRICS ? 'openmetrics' : 'prometheus';
    const { contentType, text } = await metrics.write(format);
    ctx.set('Content-Type', contentType);
    ctx.body = text;
  };
}

function setGauges(metrics: Metrics, { sealed, ready, freeBytes, warm, upstreams }: ScrapeFacts): void {
  metrics.sealed.set(sealed ? 1 : 0);
  metrics.ready.set(ready ? 1 : 0);
  if (freeBytes === null) metrics.diskFree.remove();
  else metrics.diskFree.set(freeBytes);
  metrics.warmFailedImages.set(warm.reduce((sum, { last }) => sum + (last?.failed ?? 0), 0));
  // A window that is over must not look as if it lasted.
  const { upstreamRateLimit, upstreamRateLimitRemaining, upstreamRateLimitReset } = metrics;
  for (const gauge of [upstreamRateLimit, upstreamRateLimitRemaining, upstreamRateLimitReset]) gauge.reset();
  for (const [upstream, condition] of upstreams) {
    const { pullWindow } = condition ?? {};
    if (pullWindow === undefined) continue;
    const { limit, remaining, endsAt } = pullWindow;
    if (limit !== undefined) upstreamRateLimit.set({ upstream }, limit);
    upstreamRateLimitRemaining.set({ upstream }, remaining);
    upstreamRateLimitReset.set({ upstream }, endsAt / 1000);
  }
}
