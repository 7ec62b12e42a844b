/**
 * The composition root. Builds each part after those that it depends on, and closes them in reverse order.
 *
 * The path of a pull: the registry listener → access log → error mapping → routing (http/registry/routes) → its handler
 * (http/registry/pulls) → a mirror (mirror/). The mirror answers from the cache (cache/), follows a fill, or asks
 * upstream (upstream/).
 */
import { randomUUID } from 'node:crypto';
import type { DestinationStream } from 'pino';
import { canonicalAddress, isLoopback } from '../access/network/addresses.ts';
import type { IndexStore } from '../cache/index/index-store.ts';
import type { FileSystem } from '../cache/store/file-system.ts';
import type { Clock } from '../clock.ts';
import type { Config } from '../config/schema.ts';
import type { Environment } from '../config/secrets.ts';
import { upstreamByHost } from '../config/upstream-names.ts';
import { createLogger, type Logger } from '../telemetry/log.ts';
import { Metrics } from '../telemetry/metrics.ts';
import type { Upstream } from '../upstream/upstream.ts';
import type { AccessSurroundings } from './access.ts';
import type { FleetSurroundings } from './fleet/open-fleet.ts';
import { LiveUpstreams } from './live-upstreams.ts';
import { createMirrors } from './mirrors.ts';
import { openOperationsSide } from './operations-side.ts';
import { PolicedMirrors } from './policed-mirrors.ts';
import { openRegistrySide } from './registry-side.ts';
import { watchConfigFile } from './reload/config-watch.ts';
import { type ConfigFile, Reloader } from './reload/reload.ts';
import { openStorage, type Storage } from './storage.ts';

export interface AppOptions {
  config: Config;
  /** Where `config` came from. Absent: the built-in defaults. */
  configFile?: ConfigFile | undefined;
  environment: Environment;
  version: string;
  clock: Clock;
  /** At least 0, below 1. Spreads retries, so that clients of one upstream do not all come back at once. */
  random: () => number;
  fileSystem: FileSystem;
  logDestination: DestinationStream;
  /** Called once after a large index was read: that leaves more garbage than the records need memory. */
  collectGarbage: () => void;
  /** Also export prom-client's metrics of the whole process. */
  processMetrics: boolean;
}

export interface App {
  /** `host:port` as bound. */
  readonly registryAddress: string;
  readonly operationsAddress: string;
  /** Reads the configuration file again, and takes over what can be. What it finds is in the log. Never rejects. */
  reload(): Promise<void>;
  /** Drains the registry side, then closes everything; the index last. Idempotent. */
  close(): Promise<void>;
}

/** @throws the first error that keeps the mirror from starting. Closes what was opened before */
export async function startApp(options: AppOptions): Promise<App> {
  const { config, clock, random, logDestination, version } = options;
  await using stack = new AsyncDisposableStack();
  const now = () => clock.now();
  const logger = createLogger({ level: config.log.level, destination: logDestination, now });
  const metrics = new Metrics({ version, processMetrics: options.processMetrics });

  const identity = { userAgent: `millpond/${version}`, via: `1.1 millpond-${randomUUID()}` };
  const opened = await openFleet(config, {
    ...{ ...options, logger, metrics },
    upstreams: () => upstreams.configs,
  });
  stack.defer(() => opened?.close(0)); // for a start that fails before the line below
  const fleet = opened?.fleet;
  const share = fleet && ((upstream: Upstream) => fleet.shareUpstream(upstream));
  const upstreams = new LiveUpstreams(config, { ...options, metrics, logger, identity, share });
  const { seal, bandwidths } = upstreams;
  const sealed = () => seal.isApplied;
  const shareIndex = fleet && ((own: IndexStore) => fleet.shareIndex(own));
  const storage = stack.use(
    await openStorage({ ...options, config: config.cache, metrics, logger, sealed, shareIndex }),
  );
  logStart(logger, options, storage);
  stack.defer(() => opened?.close(config.server.drainTimeout));
  await fleet?.start(storage);
  stack.defer(() => seal.apply());
  if (!config.sealed) await seal.lift();
  const mirrors = stack.use(createMirrors(storage, { metrics, logger, clock, random, bandwidths }));
  opened?.answerNodes((name, digest, fromNodes) =>
    mirrors.blobs.openHere({ upstream: { name }, digest }, fromNodes),
  );
  const cacheDirectory = config.cache.directory;
  const policed = stack.use(
    new PolicedMirrors(mirrors, {
      ...{ ...storage, cacheDirectory, clock, logger, metrics },
      ...{ environment: options.environment, isSealed: () => seal.isApplied, cutOff: () => seal.apply() },
      upstreamNamed: (name) => upstreams.routing.upstreamByName.get(name),
    }),
  );
  using prepared = await policed.prepare(config);
  prepared.use();

  const accessControl = await openAccessControl(config, { ...options, ...identity, sealed, logger });
  if (accessControl !== undefined) stack.use(accessControl);
  const access = accessControl?.control;
  const shared = { mirrors: policed, logger, metrics, clock };
  let draining = false;
  let reloader: Reloader | undefined;
  const operations = stack.use(
    await openOperationsSide(config, {
      ...{ ...shared, storage, upstreams, seal, fleet, version, access, fileSystem: options.fileSystem },
      manifests: mirrors.manifestStore,
      draining: () => draining,
      reloader: () => reloader,
    }),
  );
  const registry = await openRegistrySide(config.server, {
    ...{ ...shared, access, via: identity.via, logDestination, logged: config.log.access },
    elsewhere: opened?.elsewhere,
    routing: () => upstreams.routing,
  });
  stack.defer(() => {
    draining = true;
    return registry.drain(config.server.drainTimeout);
  });
  operations.schedule.use(config.warm);
  const { configFile } = options;
  if (configFile !== undefined) {
    const apply = async (changed: Config) => {
      using policies = await policed.prepare(changed);
      await upstreams.use(changed);
      policies.use();
      if (changed.access !== undefined) access?.useRules(changed.access.rules, upstreamByHost(changed));
      logger.level = changed.log.level;
      operations.schedule.use(changed.warm);
    };
    const reloading = new Reloader(configFile, config, { apply, now, logger, metrics });
    reloader = reloading;
    if (config.watchConfig)
      stack.use(await watchConfigFile(configFile.path, clock, () => reloading.reload()));
  }

  // Comes last: whoever reads these lines may send a signal at once.
  logger.info({ listener: 'operations', address: operations.address }, 'listening');
  logger.info({ listener: 'registry', address: registry.address, sealed: config.sealed }, 'listening');
  const running = stack.move();
  return {
    registryAddress: registry.address,
    operationsAddress: operations.address,
    reload: async () => {
      if (reloader !== undefined) await reloader.reload();
      else logger.warn({}, 'nothing to reload: the mirror was started without a configuration file');
    },
    close: async () => {
      if (running.disposed) return;
      logger.info({}, 'shutting down');
      await running.disposeAsync();
      logger.info({}, 'shut down');
    },
  };
}

/** What an operator wants to know first: which program, by which configuration, on which data, towards which upstreams. */
function logStart(logger: Logger, { config, configFile, version }: AppOptions, { space }: Storage): void {
  const withCredentials = [...config.upstreams].filter(([, { credentials }]) => credentials !== 'none');
  logger.info(
    {
      ...{ version, node: process.version },
      config: configFile?.path ?? 'none found, built-in defaults',
      directory: config.cache.directory,
      ...{ bytes: space.used, maxBytes: space.maxBytes },
      upstreams: [...config.upstreams.keys()],
      withCredentials: withCredentials.map(([name]) => name),
    },
    'starting',
  );
}

/** Undefined: the mirror is alone. */
async function openFleet({ fleet }: Config, surroundings: FleetSurroundings) {
  return fleet && (await import('./fleet/open-fleet.ts')).openFleet(fleet, surroundings);
}

/** Undefined: everybody may pull everything. */
async function openAccessControl(config: Config, surroundings: AccessSurroundings) {
  const { access, server } = config;
  if (access !== undefined) return (await import('./access.ts')).openAccess(config, access, surroundings);
  const { host } = server.listen;
  if (host !== 'localhost' && !isLoopback(canonicalAddress(host))) {
    surroundings.logger.warn(
      { listener: 'registry', host },
      'there is no access control: everybody who reaches this address may pull everything; add access to the configuration',
    );
  }
  return undefined;
}
