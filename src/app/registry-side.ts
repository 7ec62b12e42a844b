/** Opens the registry side: the listener that clients pull from. */
import Koa from 'koa';
import type { DestinationStream } from 'pino';
import type { AccessControl } from '../access/control/access-control.ts';
import { NetworkList } from '../access/network/networks.ts';
import { isFromBrowser } from '../access/network/web-page.ts';
import type { Clock } from '../clock.ts';
import type { Config } from '../config/schema.ts';
import { accessLog } from '../http/registry/access-log.ts';
import type { BlobContext } from '../http/registry/blobs.ts';
import { type ClientOf, directClient } from '../http/registry/client-request.ts';
import { answerErrors } from '../http/registry/errors.ts';
import type { PullState } from '../http/registry/pull-state.ts';
import { answerPulls, type Routing } from '../http/registry/pulls.ts';
import type { ServerCertificate } from '../http/server/certificate.ts';
import { ContentSender } from '../http/server/content-sender.ts';
import { Listener } from '../http/server/listener.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { openCertificate } from './listener-certificate.ts';
import type { PolicedMirrors } from './policed-mirrors.ts';

export interface RegistrySideContext {
  mirrors: PolicedMirrors;
  routing: () => Routing;
  /** Absent: everybody may pull everything. */
  access: AccessControl | undefined;
  /** See {@link BlobContext.elsewhere}. */
  elsewhere: BlobContext['elsewhere'] | undefined;
  /** Our own entry in `Via`. */
  via: string;
  logger: Logger;
  logDestination: DestinationStream;
  /** Which requests are logged. */
  logged: Config['log']['access'];
  metrics: Metrics;
  clock: Clock;
}

export interface RegistrySide {
  /** `host:port` as bound. */
  address: string;
  /** Lets running replies finish for `timeoutMs`, then cuts them. */
  drain(timeoutMs: number): Promise<void>;
}

/** @throws the system's error when the address cannot be had; an error of the files that `tls` names */
export async function openRegistrySide(
  config: Config['server'],
  context: RegistrySideContext,
): Promise<RegistrySide> {
  const { mirrors, routing, access, elsewhere, via, logger, logDestination, logged, metrics, clock } =
    context;
  const { clientTimeout, accelRedirect, revalidateFrom, listen } = config;
  await using stack = new AsyncDisposableStack();
  const certificate = await openCertificate('server', config.tls, context);
  if (certificate !== undefined) stack.use(certificate);
  const clientOf = await clientFinder(config);
  const door = access === undefined ? undefined : await openDoor(access, certificate, config, metrics);

  const app = new Koa<PullState>();
  app.silent = true; // every error ends in answerErrors
  app.use(accessLog({ logger, metrics, clock, clientOf, lines: logged, destination: logDestination }));
  app.use(answerErrors());
  if (door !== undefined) app.use(door.tokenEndpoint);
  app.use(
    answerPulls({
      ...{ manifests: mirrors.manifests, blobs: mirrors.blobs, discovery: mirrors.discovery },
      routing,
      via,
      sender: new ContentSender({ clientTimeoutMs: clientTimeout }),
      ...(accelRedirect === null ? {} : { accelRedirect }),
      ...(elsewhere === undefined ? {} : { elsewhere }),
      ...(revalidateFrom.length === 0 ? {} : { mayRevalidate: isIn(revalidateFrom) }),
      ...(door === undefined ? {} : { authorizer: door.authorizer }),
    }),
  );
  const options = { key: 'server.listen', ...(certificate === undefined ? {} : { tls: certificate.tls }) };
  const listener = await Listener.open(listen, app.callback(), options);
  certificate?.watch((changed) => listener.setSecureContext(changed));
  const open = stack.move();
  return {
    address: listener.address,
    drain: async (timeoutMs) => {
      await listener.drain(timeoutMs);
      await open.disposeAsync();
    },
  };
}

async function clientFinder({ trustedProxies, forwardedHeader }: Config['server']): Promise<ClientOf> {
  if (trustedProxies.length === 0) return directClient;
  const { TrustedProxies } = await import('../access/network/client-address.ts');
  const proxies = new TrustedProxies(trustedProxies, forwardedHeader);
  return ({ socket, headers }) =>
    proxies.clientOf({
      address: socket.remoteAddress,
      encrypted: 'encrypted' in socket,
      host: headers.host,
      headers,
    });
}

async function openDoor(
  access: AccessControl,
  certificate: ServerCertificate | undefined,
  { externalUrl }: Config['server'],
  metrics: Metrics,
) {
  const [{ Gate }, { RuleAuthorizer }, { Challenger }, { answerTokenRequests }, decisions] =
    await Promise.all([
      import('../http/gate/gate.ts'),
      import('../http/gate/rule-authorizer.ts'),
      import('../http/gate/challenge.ts'),
      import('../http/gate/token-endpoint.ts'),
      import('../http/gate/decisions.ts'),
    ]);
  const gate = new Gate(access, (socket) => certificate?.identityOf(socket), isFromBrowser);
  decisions.beginDecisions(metrics);
  const challenger = new Challenger(externalUrl);
  return {
    authorizer: new RuleAuthorizer({ gate, challenger, metrics }),
    tokenEndpoint: answerTokenRequests(gate, metrics),
  };
}

/** @param networks valid ones */
function isIn(networks: readonly string[]): (address: string | undefined) => boolean {
  const list = new NetworkList(networks);
  return (address) => list.has(address);
}
