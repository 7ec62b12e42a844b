/** Opens the fleet. Loaded only if it is configured: the clients of its engines take long to load. */
import { randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { getCACertificates } from 'node:tls';
import { NetworkList } from '../../access/network/networks.ts';
import type { Clock } from '../../clock.ts';
import type { Config } from '../../config/schema.ts';
import { type Environment, Secret } from '../../config/secrets.ts';
import { valkeyCoordinator } from '../../fleet/coordinator/valkey-coordinator.ts';
import { Fleet } from '../../fleet/fleet.ts';
import { Nodes } from '../../fleet/nodes/nodes.ts';
import type { OpenHere } from '../../fleet/nodes/peer-route.ts';
import { S3Store } from '../../fleet/objects/s3-store.ts';
import { FleetSecret } from '../../fleet/records/fleet-secret.ts';
import type { BlobContext } from '../../http/registry/blobs.ts';
import { Listener } from '../../http/server/listener.ts';
import type { Logger } from '../../telemetry/log.ts';
import type { Metrics } from '../../telemetry/metrics.ts';
import { type UpstreamConfigs, upstreamKeys } from './upstream-keys.ts';

type FleetConfig = NonNullable<Config['fleet']>;

export interface FleetSurroundings {
  version: string;
  environment: Environment;
  clock: Clock;
  random: () => number;
  logger: Logger;
  metrics: Metrics;
  /** Not to be called before the upstreams are there. */
  upstreams: () => UpstreamConfigs;
}

export interface OpenFleet {
  fleet: Fleet;
  /** See {@link BlobContext.elsewhere}. Absent: everything is sent from here. */
  elsewhere?: NonNullable<BlobContext['elsewhere']>;
  /** Begins to answer other nodes. @param openHere opens what this node has of a blob of an upstream, or gets now */
  answerNodes: (openHere: OpenHere) => void;
  /** Goes on uploading for at most `timeoutMs`, and answers other nodes meanwhile. Idempotent. */
  close: (timeoutMs: number) => Promise<void>;
}

const CREDENTIALS_LAST_MS = 5 * 60_000;

type Answer = Parameters<typeof Listener.open>[1];

/**
 * @throws {FileError} a file cannot be read @throws {ListenError} the address cannot be had
 * @throws {Error} the secret cannot be used
 */
export async function openFleet(config: FleetConfig, surroundings: FleetSurroundings): Promise<OpenFleet> {
  const { logger } = surroundings;
  const secret = await FleetSecret.open(config.secret.file, surroundings);
  const upstreamKeyOf = upstreamKeys(secret, surroundings);
  const context = { ...surroundings, secret, upstreamKeyOf };
  let answer: Answer = async (_, response) => void response.writeHead(503).end();
  const opened = await openNodes(config, context, (request, response) => answer(request, response));
  const fleet = new Fleet(
    {
      maxUpload: config.objects.maxUpload ?? undefined,
      redirectAbove: config.objects.redirectAbove ?? undefined,
    },
    {
      ...context,
      nodes: opened?.nodes,
      objects: await openObjects(config.objects, surroundings),
    },
  );
  if (opened !== undefined) logger.info({ listener: 'fleet', address: opened.listener.address }, 'listening');
  let isClosed = false;
  return {
    fleet,
    ...(config.objects.redirectAbove === null ? {} : { elsewhere: elsewhere(fleet, config.objects) }),
    answerNodes: (openHere) => {
      answer = fleet.peerRoute(openHere, () => surroundings.upstreams().names()) ?? answer;
    },
    close: async (timeoutMs) => {
      if (isClosed) return;
      isClosed = true;
      await fleet.close(timeoutMs);
      await opened?.listener.drain(0);
    },
  };
}

async function openObjects(
  { bucket, endpoint, region, prefix, credentials, ca }: FleetConfig['objects'],
  { environment, clock }: { environment: Environment; clock: Clock },
): Promise<S3Store> {
  const [id, key] = [credentials?.accessKeyId, credentials?.secretAccessKey].map(
    (ref) => ref && new Secret(ref, environment),
  );
  return new S3Store({
    ...{ bucket, endpoint, region, prefix },
    credentials:
      id === undefined || key === undefined
        ? undefined
        : async () => ({
            ...{ accessKeyId: await id.read(), secretAccessKey: await key.read() },
            expiration: new Date(clock.now() + CREDENTIALS_LAST_MS), // a changed file is read by then
          }),
    ca: await authorities(ca),
    clock,
  });
}

function elsewhere(
  fleet: Fleet,
  { redirectFor }: FleetConfig['objects'],
): NonNullable<BlobContext['elsewhere']> {
  const networks = new NetworkList(redirectFor);
  return async (digest, size, client) =>
    redirectFor.length === 0 || networks.has(client) ? fleet.urlOf(digest, size) : undefined;
}

/** Undefined: there is no coordinator. */
async function openNodes(
  { coordinator, listen, advertise, objects }: FleetConfig,
  context: FleetSurroundings & Omit<ConstructorParameters<typeof Nodes>[0], 'coordinator' | 'own'>,
  answer: Answer,
): Promise<{ nodes: Nodes; listener: Listener } | undefined> {
  if (coordinator === undefined) return undefined;
  const { url, username, password, ca } = coordinator;
  const secret = password && new Secret(password, context.environment);
  const listener = await Listener.open(listen, answer, { key: 'fleet.listen' });
  const valkey = valkeyCoordinator({
    ...{ url, username, prefix: objects.prefix },
    password: secret && (() => secret.read()),
    ca: await authorities(ca),
  });
  const own = {
    id: randomUUID(),
    address: advertise ?? `http://${listener.address}`,
    version: context.version,
  };
  return { nodes: new Nodes({ ...context, coordinator: valkey, own }), listener };
}

/** The usual ones, and those of a file. Undefined: the usual ones. */
async function authorities(ca: string | undefined): Promise<string | undefined> {
  return ca === undefined
    ? undefined
    : [...getCACertificates('default'), await readFile(ca, 'utf8')].join('\n');
}
