/** A client of an upstream, closed when the test has ended. */
import type { TestContext } from 'node:test';
import { Metrics } from '../../src/telemetry/metrics.ts';
import type { AuthenticatedTransportSettings } from '../../src/upstream/auth/authenticated-transport.ts';
import { UpstreamClient } from '../../src/upstream/client/client.ts';
import { PullQuota } from '../../src/upstream/limits/pull-quota.ts';
import { cleanUp } from './cleanup.ts';
import { FakeClock } from './fake-clock.ts';
import { silentLogger } from './test-transport.ts';

/** Longer than any test runs. */
const TIMEOUT_MS = 60_000;

export function startClient(
  t: TestContext,
  { url, ...settings }: Partial<AuthenticatedTransportSettings> & { url: string },
) {
  const metrics = new Metrics({ version: 'test', processMetrics: false });
  const clock = new FakeClock();
  const quota = new PullQuota(0, clock);
  const context = {
    quota,
    metrics,
    logger: silentLogger(),
    clock,
    identity: { userAgent: 'millpond/test', via: '1.1 millpond-test' },
  };
  const client = new UpstreamClient(
    {
      name: 'quay.io',
      url,
      realmHosts: [],
      credentials: async () => undefined,
      allowPrivateAddresses: false,
      maxConnections: 3,
      connectTimeoutMs: TIMEOUT_MS,
      headersTimeoutMs: TIMEOUT_MS,
      bodyTimeoutMs: TIMEOUT_MS,
      ...settings,
    },
    context,
  );
  cleanUp(t, () => client.close());
  return { client, context, metrics, clock, quota };
}
