/** The parts of a node that talk to other nodes, without a mirror behind them. */

import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import type { Coordinator } from '../../src/fleet/coordinator/coordinator.ts';
import { Engine } from '../../src/fleet/engines/engine.ts';
import { Followers } from '../../src/fleet/nodes/followers.ts';
import { Leases } from '../../src/fleet/nodes/leases.ts';
import { Members } from '../../src/fleet/nodes/members.ts';
import { answerPeers, type OpenHere } from '../../src/fleet/nodes/peer-route.ts';
import { PeerSignatures } from '../../src/fleet/nodes/peer-signatures.ts';
import { Peers } from '../../src/fleet/nodes/peers.ts';
import { FleetSecret } from '../../src/fleet/records/fleet-secret.ts';
import type { Digest } from '../../src/oci/digest.ts';
import { createLogger } from '../../src/telemetry/log.ts';
import { Metrics } from '../../src/telemetry/metrics.ts';
import { cleanUp } from './cleanup.ts';
import { FakeClock } from './fake-clock.ts';
import { MemoryCoordinator } from './memory-coordinator.ts';
import { tempDir } from './temp-dir.ts';

const SECRET = 'a secret that all the nodes of this fleet share';

/** Time stands still for it. */
export async function testNode(
  t: TestContext,
  id: string,
  options: {
    coordinator?: Coordinator;
    secret?: string;
    openHere?: OpenHere;
  } = {},
) {
  const file = join(await tempDir(t), 'secret');
  await writeFile(file, options.secret ?? SECRET, { mode: 0o600 });
  const clock = new FakeClock();
  clock.impatient = false;
  const logger = createLogger({ level: 'silent', destination: { write: () => undefined }, now: () => 0 });
  const metrics = new Metrics({ version: 'test', processMetrics: false });
  const secret = await FleetSecret.open(file, { clock, logger });
  const coordinator = options.coordinator ?? new MemoryCoordinator();
  const context = { clock, logger, metrics, secret, coordinator, random: () => 0.5 };
  const engine = new Engine('coordinator', context);
  const signaturesOf = () => new PeerSignatures(secret, () => members.now());
  let sending = 0;
  const server = createServer((request, response) => {
    sending += 1;
    response.once('close', () => {
      sending -= 1;
    });
    void route(request, response);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const members = new Members({ ...context, engine, own: { id, address, version: 'test' } });
  const followers = new Followers(members);
  const route = answerPeers({
    signatures: signaturesOf(),
    ...{ followers, openHere: options.openHere ?? (async () => undefined) },
  });
  const waiting = new Set<Digest>();
  const leases = new Leases({ ...context, engine, members, isWaiting: (digest) => waiting.has(digest) });
  const peers = new Peers({ members, signatures: signaturesOf(), clock });
  cleanUp(t, async () => {
    members[Symbol.dispose]();
    await leases.close();
    await peers.close();
    server.close().closeAllConnections();
  });
  const parts = { address, leases, members, peers, signatures: signaturesOf(), waiting };
  /** Other nodes that it answers now. */
  const sendingNow = () => sending;
  return { ...context, ...parts, engine, sending: sendingNow };
}
