/** Opens the registry side: the listener that clients pull from. */
import { BlockList, isIP, isIPv6 } from 'node:net';
import Koa from 'koa';
import type { DestinationStream } from 'pino';
import type { Clock } from '../clock.ts';
import type { Config } from '../config/schema.ts';
import { accessLog } from '../http/registry/access-log.ts';
import { answerErrors } from '../http/registry/errors.ts';
import type { PullState } from '../http/registry/pull-state.ts';
import { answerPulls } from '../http/registry/pulls.ts';
import type { RoutingTable } from '../http/registry/routes.ts';
import { ContentSender } from '../http/server/content-sender.ts';
import { Listener } from '../http/server/listener.ts';
import type { MirroredUpstream } from '../mirror/mirrored-upstream.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import type { Mirrors } from './mirrors.ts';

export interface RegistrySideContext {
  mirrors: Mirrors;
  upstreamByName: ReadonlyMap<string, MirroredUpstream>;
  table: RoutingTable;
  /** Our own entry in `Via`. */
  via: string;
  logger: Logger;
  logDestination: DestinationStream;
  metrics: Metrics;
  clock: Clock;
}

/** @throws the system's error if the address cannot be bound */
export function openRegistrySide(config: Config['server'], context: RegistrySideContext): Promise<Listener> {
  const { mirrors, upstreamByName, table, via, logger, logDestination, metrics, clock } = context;
  const { clientTimeout, accelRedirect, revalidateFrom, listen } = config;
  const app = new Koa<PullState>();
  app.silent = true; // every error ends in answerErrors
  app.use(accessLog({ logger, metrics, clock, destination: logDestination }));
  app.use(answerErrors());
  app.use(
    answerPulls({
      ...mirrors,
      table,
      via,
      upstreamByName,
      sender: new ContentSender({ clientTimeoutMs: clientTimeout }),
      ...(accelRedirect === null ? {} : { accelRedirect }),
      ...(revalidateFrom.length === 0 ? {} : { mayRevalidate: isIn(revalidateFrom) }),
    }),
  );
  return Listener.open(listen, app.callback());
}

export function routingTable(config: Config): RoutingTable {
  const upstreamByHost = new Map<string, string>();
  const upstreamByVirtualHost = new Map<string, string>();
  for (const [name, { aliases, hosts }] of config.upstreams) {
    for (const host of [name, ...aliases]) upstreamByHost.set(host.toLowerCase(), name);
    for (const host of hosts) upstreamByVirtualHost.set(host.toLowerCase(), name);
  }
  const defaultUpstream = upstreamByHost.get(config.defaultUpstream.toLowerCase()) ?? config.defaultUpstream;
  return { defaultUpstream, upstreamByHost, upstreamByVirtualHost };
}

function isIn(networks: readonly string[]): (address: string | undefined) => boolean {
  const list = new BlockList();
  for (const network of networks) {
    const [address = '', bits] = network.split('/');
    const family = isIPv6(address) ? 'ipv6' : 'ipv4';
    list.addSubnet(address, bits === undefined ? (family === 'ipv6' ? 128 : 32) : Number(bits), family);
  }
  // Handles IPv4-mapped IPv6: a listener on :: reports IPv4 clients as ::ffff:10.0.0.1.
  return (address) => {
    const bare = address?.replace(/^::ffff:(?=\d+\.)/i, '') ?? '';
    return isIP(bare) !== 0 && list.check(bare, isIPv6(bare) ? 'ipv6' : 'ipv4');
  };
}
