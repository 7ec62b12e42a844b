/** A transport with the limits and the identity of these tests, closed when the test has ended. */
import type { TestContext } from 'node:test';
import { createLogger } from '../../src/telemetry/log.ts';
import { Metrics } from '../../src/telemetry/metrics.ts';
import { Transport, type TransportSettings } from '../../src/upstream/network/transport.ts';
import { cleanUp } from './cleanup.ts';
import { FakeClock } from './fake-clock.ts';

export function startTransport(
  t: TestContext,
  settings: Partial<TransportSettings> & { url: string },
): Transport {
  const transport = new Transport(
    {
      name: 'registry.corp',
      allowPrivateAddresses: false,
      maxConnections: 4,
      connectTimeoutMs: 5000,
      headersTimeoutMs: 5000,
      bodyTimeoutMs: 5000,
      ...settings,
    },
    {
      logger: silentLogger(),
      metrics: new Metrics({ version: 'test', processMetrics: false }),
      clock: new FakeClock(),
      identity: { userAgent: 'millpond/test', via: '1.1 millpond-test' },
    },
  );
  cleanUp(t, () => transport.close());
  return transport;
}

export function silentLogger() {
  return createLogger({ level: 'silent', destination: { write: () => undefined }, now: () => 0 });
}
