/** The parts of a node that talk to other nodes, without a mirror behind them. */

import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { buildConnector } from 'undici';
import type { ContentReader } from '../../src/cache/store/content-store.ts';
import type { Coordinator } from '../../src/fleet/coordinator/coordinator.ts';
import { Engine } from '../../src/fleet/engines/engine.ts';
import { Removals } from '../../src/fleet/journal/removals.ts';
import { CallBacks } from '../../src/fleet/nodes/call-backs.ts';
import { Leases } from '../../src/fleet/nodes/leases.ts';
import { Members } from '../../src/fleet/nodes/members.ts';
import { answerPeers } from '../../src/fleet/nodes/peer-route.ts';
import { PeerSignatures } from '../../src/fleet/nodes/peer-signatures.ts';
import { Peers } from '../../src/fleet/nodes/peers.ts';
import { FleetSecret } from '../../src/fleet/records/fleet-secret.ts';
import type { MemberState } from '../../src/fleet/records/signed-record.ts';
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
    /** Where others are told to reach it. */
    address?: string;
    openHere?: (upstream: string, digest: Digest) => Promise<ContentReader | undefined>;
  } = {},
) {
  const file = join(await tempDir(t), 'secret');
  await writeFile(file, options.secret ?? SECRET, { mode: 0o600 });
  const clock = new FakeClock();
  clock.impatient = false;
  const log: Record<string, unknown>[] = [];
  const write = (line: string) => void log.push(JSON.parse(line) as Record<string, unknown>);
  const logger = createLogger({ level: 'info', destination: { write }, now: () => 0 });
  const metrics = new Metrics({ version: 'test', processMetrics: false });
  const secret = await FleetSecret.open(file, { clock, logger });
  const coordinator = options.coordinator ?? new MemoryCoordinator();
  const removals = new Removals();
  const context = { removals, clock, logger, metrics, secret, coordinator, random: () => 0.5 };
  const engine = new Engine('coordinator', context);
  const signaturesOf = () => new PeerSignatures(secret, () => members.now());
  const route = answerPeers({
    ownId: id,
    signatures: signaturesOf(),
    openHere: options.openHere ?? (async () => undefined),
  });
  const calls: string[] = [];
  let mayAnswerCalls: Promise<unknown> = Promise.resolve();
  const answer = async (request: IncomingMessage, response: ServerResponse) => {
    const isCall = request.url?.startsWith('/fleet/members/') ?? false;
    if (isCall) calls.push(request.url ?? '');
    if (isCall) await mayAnswerCalls;
    await route(request, response);
  };
  const server = createServer((request, response) => void answer(request, response));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const own = { id, address: options.address ?? address, version: 'test' };
  const state = (): MemberState => ({
    ...{ fetching: leases.fetching, fetches: leases.fetching.length },
    ...(callBacks.last === undefined ? {} : { called: callBacks.last }),
  });
  const members: Members = new Members({ ...context, engine, own, state });
  const waiting = new Set<Digest>();
  const leases = new Leases({ ...context, engine, members, isWaiting: (digest) => waiting.has(digest) });
  const peers = new Peers({ members, signatures: signaturesOf(), connect: buildConnector({}), clock });
  const callBacks = new CallBacks({ ...context, members, peers });
  cleanUp(t, async () => {
    await leases.close();
    await peers.close();
    server.close().closeAllConnections();
  });
  const parts = { address, leases, members, peers, callBacks, log, signatures: signaturesOf(), waiting };
  return {
    ...{ ...context, ...parts, engine },
    /** Paths of other members' calls so far. */
    calls,
    answerCallsWhen: (ready: Promise<unknown>) => {
      mayAnswerCalls = ready;
    },
  };
}
