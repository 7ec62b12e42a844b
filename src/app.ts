/**
 * The composition root: builds everything in the order in which it depends on each other, and takes it down in reverse.
 *
 * What a pull meets: the registry listener → access log → error mapping → the door (http/routes) → its handler
 * (http/pulls) → a mirror (mirror/), which has it in the cache (cache/), joins a fill, or asks upstream (upstream/).
 */
import { randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import Koa from 'koa';
import type { DestinationStream } from 'pino';
import { ContentCache } from './cache/content-cache.ts';
import type { FileSystem } from './cache/file-system.ts';
import { FsStore } from './cache/fs-store.ts';
import { Inventory } from './cache/inventory.ts';
import { openCacheDirectory } from './cache/recovery.ts';
import { Scrubbing } from './cache/scrub.ts';
import { Space } from './cache/space.ts';
import { Spool } from './cache/spool.ts';
import { StorageFaults } from './cache/storage-faults.ts';
import type { Clock } from './clock.ts';
import type { Config, UpstreamConfig } from './config/schema.ts';
import { type Environment, Secret } from './config/secrets.ts';
import { accessLog } from './http/access-log.ts';
import { ContentSender } from './http/content.ts';
import { answerErrors } from './http/errors.ts';
import { Listener } from './http/listener.ts';
import { createOperationsApp } from './http/operations.ts';
import type { PullState } from './http/pull-state.ts';
import { answerPulls, type MirroredUpstream } from './http/pulls.ts';
import type { RoutingTable } from './http/routes.ts';
import { readStatus } from './http/status.ts';
import { BlobMirror } from './mirror/blob-mirror.ts';
import { DiscoveryMirror } from './mirror/discovery-mirror.ts';
import type { FreshnessPolicy } from './mirror/freshness.ts';
import { Images } from './mirror/images.ts';
import { ManifestMirror } from './mirror/manifest-mirror.ts';
import { ManifestStore } from './mirror/manifest-store.ts';
import { imagePattern } from './oci/reference.ts';
import { createLogger, type Logger } from './telemetry/log.ts';
import { Metrics } from './telemetry/metrics.ts';
import { UpstreamClient } from './upstream/client.ts';
import { helperCredentials } from './upstream/credential-helper.ts';
import type { CredentialProvider } from './upstream/credentials.ts';
import { dockerConfigCredentials, serverOf } from './upstream/docker-config.ts';
import { ecrCredentials } from './upstream/ecr.ts';
import { type ProxyRule, proxyForAll, proxyFromEnvironment } from './upstream/proxy-rule.ts';
import { PullQuota } from './upstream/pull-quota.ts';
import { ResilientUpstream } from './upstream/resilience.ts';
import { Seal, SealableUpstream } from './upstream/sealed.ts';
import type { Identity } from './upstream/transport.ts';

/** What a crash can make us forget about the order of use. */
const FLUSH_INTERVAL_MS = 10_000;

/** Records; see {@link AppOptions.collectGarbage}. */
const GARBAGE_WORTH_COLLECTING = 50_000;

export interface AppOptions {
  config: Config;
  environment: Environment;
  version: string;
  clock: Clock;
  fileSystem: FileSystem;
  logDestination: DestinationStream;
  /** Called once after a large index was read, which leaves more garbage than the records take. */
  collectGarbage: () => void;
  /** Also export prom-client's metrics of the whole process. */
  processMetrics: boolean;
}

export interface App {
  /** `host:port` as bound. */
  readonly registryAddress: string;
  readonly operationsAddress: string;
  /** Drains the registry side, then closes everything; the index last. Idempotent. */
  close(): Promise<void>;
}

/** @throws the first error that keeps the mirror from starting; what was begun is closed again */
export async function startApp(options: AppOptions): Promise<App> {
  const { config, clock, fileSystem } = options;
  await using stack = new AsyncDisposableStack();
  const logger = createLogger({
    level: config.log.level,
    destination: options.logDestination,
    now: () => clock.now(),
  });
  const metrics = new Metrics({ version: options.version, processMetrics: options.processMetrics });
  const faults = new StorageFaults({ metrics, logger, clock });

  const { directory } = config.cache;
  const store = new FsStore(directory, fileSystem);
  const { index, contents, manifestsWithoutOwner, ...opened } = await openCacheDirectory(directory, {
    store,
    fileSystem,
    logger,
  });
  stack.defer(opened.close);
  const inventory = new Inventory(metrics);
  inventory.load(contents);
  if (inventory.objects >= GARBAGE_WORTH_COLLECTING) options.collectGarbage();
  const spool = new Spool(directory, fileSystem);
  await faults.tolerate(() => spool.sweep());
  const cache = new ContentCache({ store, index, inventory, faults, logger, clock });
  stack.defer(() => cache.flush());
  stack.use(clock.every(FLUSH_INTERVAL_MS, () => void cache.flush()));
  const identity = { userAgent: `millpond/${options.version}`, via: `1.1 millpond-${randomUUID()}` };
  const upstreamByName = new Map<string, MirroredUpstream>();
  const sealable: SealableUpstream[] = [];
  for (const [name, upstream] of config.upstreams) {
    const context = { ...options, metrics, logger, identity };
    const client = new SealableUpstream(name, () => createUpstream(name, upstream, context));
    sealable.push(client);
    upstreamByName.set(name, { client, segments: upstream.segments, freshness: freshnessPolicy(upstream) });
  }
  const seal = new Seal(sealable);
  stack.defer(() => seal.close());
  if (!config.sealed) await seal.open();

  const { maxSize, lowWatermark, keepFree, pin } = config.cache;
  const maxBytes =
    typeof maxSize === 'number' ? maxSize : await shareOf(directory, maxSize.share, fileSystem);
  metrics.storeCapacity.set(maxBytes);
  const space = new Space(
    { directory, maxBytes, lowWatermark, keepFree, pin: pin.map(imagePattern), evicts: () => !seal.isClosed },
    { cache, inventory, index, spool, fileSystem, metrics, faults, logger },
  );
  stack.defer(() => space.close());

  const shared = { cache, space, index, spool, faults, metrics, logger, clock };
  const blobs = new BlobMirror(shared);
  stack.defer(() => blobs.close());
  const manifestStore = new ManifestStore(shared);
  const manifests = new ManifestMirror({ ...shared, manifests: manifestStore, manifestsWithoutOwner });
  const discovery = new DiscoveryMirror(shared);

  const registryApp = new Koa<PullState>();
  registryApp.silent = true; // every error ends in answerErrors
  registryApp.use(accessLog({ logger, metrics, clock, destination: options.logDestination }));
  registryApp.use(answerErrors());
  const sender = new ContentSender({ clientTimeoutMs: config.server.clientTimeout });
  const table = routingTable(config);
  const { via } = identity;
  const { accelRedirect } = config.server;
  const handOver = accelRedirect === null ? {} : { accelRedirect };
  registryApp.use(
    answerPulls({ table, via, upstreamByName, manifests, blobs, discovery, sender, ...handOver }),
  );

  let draining = false;
  const notReadyReason = async () => {
    if (draining) return 'shutting down';
    return (await faults.tolerate(() => spool.probe())) === undefined
      ? 'the cache directory cannot be written'
      : undefined;
  };
  const scrubbing = new Scrubbing({ cache, store, inventory, clock, logger });
  stack.defer(() => scrubbing.close());
  const { scrubInterval } = config.cache;
  if (scrubInterval !== null) stack.use(clock.every(scrubInterval, () => scrubbing.runInBackground()));
  const operationsApp = createOperationsApp({
    metrics,
    logger,
    notReadyReason,
    status: () =>
      readStatus(metrics, {
        version: options.version,
        sealed: seal.isClosed,
        upstreams: upstreamByName.keys(),
      }),
    images: new Images({ ...shared, inventory, manifests: manifestStore }),
    upstreamOf: (host) => table.upstreamByHost.get(host),
    scrub: (signal) => scrubbing.begin(signal),
    setSealed: async (sealed) => {
      await (sealed ? seal.close() : seal.open());
      logger.warn({ sealed }, sealed ? 'sealed: no upstream is asked' : 'unsealed');
    },
  });
  const operations = await Listener.open(config.operations.listen, operationsApp.callback());
  stack.defer(() => operations.drain(0));
  const registry = await Listener.open(config.server.listen, registryApp.callback());
  stack.defer(() => {
    draining = true;
    return registry.drain(config.server.drainTimeout);
  });
  logger.info({ listener: 'operations', address: operations.address }, 'listening');
  logger.info({ listener: 'registry', address: registry.address, sealed: config.sealed }, 'listening');

  const running = stack.move();
  return {
    registryAddress: registry.address,
    operationsAddress: operations.address,
    close: async () => {
      if (running.disposed) return;
      logger.info({}, 'shutting down');
      await running.disposeAsync();
      logger.info({}, 'shut down');
    },
  };
}

async function createUpstream(
  name: string,
  config: UpstreamConfig,
  context: { environment: Environment; metrics: Metrics; logger: Logger; clock: Clock; identity: Identity },
): Promise<ResilientUpstream> {
  const { ca, clientCertificate } = config;
  const settings = {
    name,
    realmHosts: config.realmHosts,
    credentials: credentialProvider(name, config, context),
    ...(ca === undefined ? {} : { ca: await readFile(ca, 'utf8') }),
    ...(clientCertificate === undefined
      ? {}
      : { clientCertificate: await readCertificate(clientCertificate) }),
    proxyFor: proxyRule(config, context.environment),
    allowPrivateAddresses: config.allowPrivateAddresses,
    maxConnections: config.maxConnections,
    connectTimeoutMs: config.connectTimeout,
    headersTimeoutMs: config.headersTimeout,
    bodyTimeoutMs: config.bodyTimeout,
  };
  const urls = [config.url, ...config.fallbackUrls];
  const quota = new PullQuota(config.rateLimit.reserve, context.clock);
  const clients = urls.map((url) => new UpstreamClient({ ...settings, url }, { ...context, quota }));
  return new ResilientUpstream(name, clients, { ...context, quota, random: Math.random });
}

async function readCertificate(paths: { cert: string; key: string }): Promise<{ cert: string; key: string }> {
  return { cert: await readFile(paths.cert, 'utf8'), key: await readFile(paths.key, 'utf8') };
}

function credentialProvider(
  name: string,
  { credentials, url, aliases }: UpstreamConfig,
  { environment, clock }: { environment: Environment; clock: Clock },
): CredentialProvider {
  if (credentials === 'none') return async () => undefined;
  const { host } = new URL(url);
  if ('dockerConfig' in credentials) {
    const file = new Secret({ file: credentials.dockerConfig }, environment);
    return dockerConfigCredentials({
      read: () => file.read(),
      hosts: [...new Set([name, host, ...aliases])],
      helper: (helper, server) => helperCredentials(helper, server, { environment, clock }),
    });
  }
  if ('helper' in credentials) {
    const server = name === 'docker.io' ? serverOf(name) : host;
    return helperCredentials(credentials.helper, server, { environment, clock });
  }
  if ('ecr' in credentials) {
    const importPackage = (specifier: string) => import(specifier) as Promise<unknown>;
    return ecrCredentials({ host, region: credentials.ecr.region }, { clock, importPackage });
  }
  if ('identityToken' in credentials) {
    const token = new Secret(credentials.identityToken, environment);
    return async () => ({ identityToken: await token.read() });
  }
  const { username } = credentials;
  const user =
    typeof username === 'string' ? { read: async () => username } : new Secret(username, environment);
  const password = new Secret(credentials.password, environment);
  return async () => ({ username: await user.read(), password: await password.read() });
}

async function shareOf(directory: string, share: number, fileSystem: FileSystem): Promise<number> {
  const { blocks, bsize } = await fileSystem.statfs(directory);
  return Math.floor(blocks * bsize * share);
}

function proxyRule({ proxy }: UpstreamConfig, environment: Environment): ProxyRule {
  if (proxy === undefined) return proxyFromEnvironment(environment);
  if (proxy === 'none') return () => undefined;
  if (typeof proxy === 'string') return proxyForAll(proxy);
  const password = new Secret(proxy.password, environment);
  return proxyForAll(proxy.url, () => password.read());
}

function freshnessPolicy({ freshness }: UpstreamConfig): FreshnessPolicy {
  return {
    tagTtlMs: freshness.tagTtl,
    immutableTags: freshness.immutableTags,
    staleIfErrorMs: freshness.staleIfError,
    onTagDeleted: freshness.onTagDeleted,
    negativeTtlMs: freshness.negativeTtl,
  };
}

function routingTable(config: Config): RoutingTable {
  const upstreamByHost = new Map<string, string>();
  const upstreamByVirtualHost = new Map<string, string>();
  for (const [name, { aliases, hosts }] of config.upstreams) {
    for (const host of [name, ...aliases]) upstreamByHost.set(host.toLowerCase(), name);
    for (const host of hosts) upstreamByVirtualHost.set(host.toLowerCase(), name);
  }
  const defaultUpstream = upstreamByHost.get(config.defaultUpstream.toLowerCase()) ?? config.defaultUpstream;
  return { defaultUpstream, upstreamByHost, upstreamByVirtualHost };
}
