/**
 * Gathers replies by their labels until the metrics are read.
 *
 * prom-client checks and joins the labels again for every count and every observation, even through its `labels()`
 * children. A thousand observations in a row cost less than a thousand among other work. Without this
 * a hit costs 1.05 times the CPU.
 */
import type { Counter, Histogram } from 'prom-client';

/** One reply to a pull, as the metrics see it. */
export interface Reply {
  upstream: string;
  kind: string;
  method: string;
  cache: string;
  code: number;
}

interface Gathered {
  labels: Reply;
  bytes: number;
  seconds: number[];
  firstByteSeconds: number[];
}

export interface ReplyMetrics {
  requests: Counter<'upstream' | 'kind' | 'method' | 'cache' | 'code'>;
  responseBytes: Counter<'upstream' | 'kind' | 'cache'>;
  requestDuration: Histogram<'kind' | 'cache'>;
  firstByte: Histogram<'kind' | 'cache'>;
}

/** Observations with the same labels that are gathered at most, so that memory is bounded even if nobody reads them. */
const MOST_GATHERED = 1000;

export class ReplyTally {
  readonly #metrics: ReplyMetrics;
  readonly #gathered = new Map<string, Gathered>();

  constructor(metrics: ReplyMetrics) {
    this.#metrics = metrics;
  }

  add(labels: Reply, bytes: number, seconds: number, firstByteSeconds: number): void {
    const key = `${labels.upstream} ${labels.kind} ${labels.method} ${labels.cache} ${labels.code}`;
    let gathered = this.#gathered.get(key);
    if (gathered === undefined) {
      gathered = { labels, bytes: 0, seconds: [], firstByteSeconds: [] };
      this.#gathered.set(key, gathered);
    }
    gathered.bytes += bytes;
    gathered.seconds.push(seconds);
    gathered.firstByteSeconds.push(firstByteSeconds);
    if (gathered.seconds.length === MOST_GATHERED) this.#passOn(gathered);
  }

  /** Passes everything on to the metrics. */
  flush(): void {
    for (const gathered of this.#gathered.values()) {
      if (gathered.seconds.length > 0) this.#passOn(gathered);
    }
  }

  #passOn(gathered: Gathered): void {
    const { requests, responseBytes, requestDuration, firstByte } = this.#metrics;
    const { labels, bytes, seconds, firstByteSeconds } = gathered;
    const { upstream, kind, cache } = labels;
    requests.inc({ ...labels }, seconds.length);
    if (bytes > 0) responseBytes.inc({ upstream, kind, cache }, bytes);
    for (const value of seconds) requestDuration.observe({ kind, cache }, value);
    for (const value of firstByteSeconds) firstByte.observe({ kind, cache }, value);
    gathered.bytes = 0;
    gathered.seconds = [];
    gathered.firstByteSeconds = [];
  }
}
