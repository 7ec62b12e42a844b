/** The registry side alone: HTTP without a cache and an upstream. In their place stands what notes that it was asked. */
import type { TestContext } from 'node:test';
import Koa from 'koa';
import { Agent } from 'undici';
import { accessLog } from '../../src/http/registry/access-log.ts';
import { directClient } from '../../src/http/registry/client-request.ts';
import { answerErrors } from '../../src/http/registry/errors.ts';
import type { PullState } from '../../src/http/registry/pull-state.ts';
import { answerPulls, type PullContext } from '../../src/http/registry/pulls.ts';
import { RequestParser } from '../../src/http/registry/routes.ts';
import { ContentSender } from '../../src/http/server/content-sender.ts';
import { Listener, type ListenerOptions } from '../../src/http/server/listener.ts';
import type { FreshnessPolicy } from '../../src/mirror/freshness.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { OCI_INDEX } from '../../src/oci/manifest.ts';
import type { RequestContext } from '../../src/request-context.ts';
import { createLogger } from '../../src/telemetry/log.ts';
import { Metrics } from '../../src/telemetry/metrics.ts';
import type { Upstream } from '../../src/upstream/upstream.ts';
import { type Certificate, selfSigned } from './certificates.ts';
import { cleanUp } from './cleanup.ts';
import { FakeClock } from './fake-clock.ts';

/** What every manifest and every blob is. */
export const BYTES = Buffer.from('{"schemaVersion":2}');
export const SHA = digestOf(BYTES);
export const VIA = '1.1 millpond-test';
export const CERTIFICATE: Certificate = selfSigned('mirror.test');
export const FRESHNESS: FreshnessPolicy = {
  tagTtlMs: 60_000,
  immutableTags: [/^v/],
  staleWhileRevalidateMs: 1000,
  staleIfErrorMs: 0,
  onTagDeleted: 'forget',
  negativeTtlMs: 0,
};

const UPSTREAM = 'registry.test';

export type LogLine = Record<string, unknown>;

export interface RegistrySide {
  address: string;
  /** The contexts of the requests that reached the cache or upstream. */
  asked: RequestContext[];
  metrics: Metrics;
  firstLine: Promise<LogLine>;
  send(
    method: string,
    path: string,
    headers?: Record<string, string>,
  ): Promise<{ status: number; headers: Record<string, string | string[] | undefined>; text: string }>;
}

/** @param pulls replaces parts of what answers */
export async function startRegistrySide(
  t: TestContext,
  pulls: Partial<PullContext> = {},
  options: ListenerOptions = {},
): Promise<RegistrySide> {
  const asked: RequestContext[] = [];
  const answer =
    <T>(reply: T) =>
    async ({ context }: { context: RequestContext }) => {
      asked.push(context);
      return reply;
    };
  const read = async (target: Buffer, position: number, end: number) => BYTES.copy(target, 0, position, end);
  const content = { size: BYTES.length, read, close: async () => undefined };
  const outcome = 'hit' as const;
  const firstLine = Promise.withResolvers<LogLine>();
  const destination = { write: (line: string) => firstLine.resolve(JSON.parse(line) as LogLine) };
  const logger = createLogger({ level: 'info', destination, now: () => 0 });
  const metrics = new Metrics({ version: 'test', processMetrics: false });
  const routing = {
    parser: new RequestParser({
      defaultUpstream: UPSTREAM,
      upstreamByHost: new Map([[UPSTREAM, UPSTREAM]]),
      upstreamByVirtualHost: new Map(),
    }),
    upstreamByName: new Map([
      [UPSTREAM, { client: { name: UPSTREAM } as Upstream, segments: 1, freshnessFor: () => FRESHNESS }],
    ]),
  };
  const app = new Koa<PullState>();
  app.silent = true;
  app.use(
    accessLog({ logger, metrics, clock: new FakeClock(), clientOf: directClient, lines: 'all', destination }),
  );
  app.use(answerErrors());
  app.use(
    answerPulls({
      routing: () => routing,
      via: VIA,
      manifests: {
        open: answer({ digest: SHA, mediaType: OCI_INDEX, bytes: BYTES, size: BYTES.length, outcome }),
      },
      blobs: { open: answer({ content, outcome }), stat: answer({ size: BYTES.length, outcome }) },
      discovery: {
        tags: answer({ body: BYTES }),
        referrers: answer({ referrers: { body: BYTES }, outcome }),
      },
      sender: new ContentSender({ clientTimeoutMs: 60_000 }),
      ...pulls,
    }),
  );
  const listener = await Listener.open({ host: '127.0.0.1', port: 0 }, app.callback(), options);
  const client = new Agent({ connect: { ca: CERTIFICATE.cert, servername: 'mirror.test' } });
  cleanUp(t, async () => {
    await client.destroy();
    await listener.drain(0);
  });
  const origin = `${options.tls === undefined ? 'http' : 'https'}://${listener.address}`;
  return {
    address: listener.address,
    asked,
    metrics,
    firstLine: firstLine.promise,
    send: async (method, path, headers = {}) => {
      const reply = await client.request({ origin, method, path, headers });
      return { status: reply.statusCode, headers: reply.headers, text: await reply.body.text() };
    },
  };
}
