/**
 * The composition root: builds everything in the order in which it depends on each other, and takes it down in reverse.
 *
 * What a pull meets: the registry listener → access log → error mapping → the door (http/routes) → its handler
 * (http/pulls) → a mirror (mirror/), which has it in the cache (cache/), joins a fill, or asks upstream (upstream/).
 */
import { randomUUID } from 'node:crypto';
import { BlockList, isIP, isIPv6 } from 'node:net';
import Koa from 'koa';
import type { DestinationStream } from 'pino';
import { ContentCache } from '../cache/catalog/content-cache.ts';
import { Inventory } from '../cache/catalog/inventory.ts';
import { openCacheDirectory } from '../cache/catalog/recovery.ts';
import { Scrubbing } from '../cache/catalog/scrub.ts';
import { Space } from '../cache/catalog/space.ts';
import { Spool } from '../cache/ingest/spool.ts';
import type { FileSystem } from '../cache/store/file-system.ts';
import { FsStore } from '../cache/store/fs-store.ts';
import { StorageFaults } from '../cache/store/storage-faults.ts';
import type { Clock } from '../clock.ts';
import type { Config } from '../config/schema.ts';
import type { Environment } from '../config/secrets.ts';
import { createOperationsApp } from '../http/operations/operations.ts';
import { readStatus } from '../http/operations/status.ts';
import { accessLog } from '../http/registry/access-log.ts';
import { answerErrors } from '../http/registry/errors.ts';
import type { PullState } from '../http/registry/pull-state.ts';
import { answerPulls } from '../http/registry/pulls.ts';
import type { RoutingTable } from '../http/registry/routes.ts';
import { ContentSender } from '../http/server/content-sender.ts';
import { Listener } from '../http/server/listener.ts';
import { BlobMirror } from '../mirror/blobs/blob-mirror.ts';
import { DiscoveryMirror } from '../mirror/manifests/discovery-mirror.ts';
import { Images } from '../mirror/manifests/images.ts';
import { ManifestMirror } from '../mirror/manifests/manifest-mirror.ts';
import { ManifestStore } from '../mirror/manifests/manifest-store.ts';
import { imagePattern } from '../oci/reference.ts';
import { createLogger } from '../telemetry/log.ts';
import { Metrics } from '../telemetry/metrics.ts';
import { Exporting } from '../transfer/export.ts';
import { Importing } from '../transfer/import.ts';
import { Warming } from '../transfer/warm.ts';
import { createUpstreams } from './upstreams.ts';

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
  const { upstreamByName, seal } = createUpstreams(config, { ...options, metrics, logger, identity });
  stack.defer(() => seal.apply());
  if (!config.sealed) await seal.lift();

  const { maxSize, lowWatermark, keepFree, pin } = config.cache;
  const maxBytes =
    typeof maxSize === 'number' ? maxSize : await shareOf(directory, maxSize.share, fileSystem);
  metrics.storeCapacity.set(maxBytes);
  const space = new Space(
    {
      directory,
      maxBytes,
      lowWatermark,
      keepFree,
      pin: pin.map(imagePattern),
      evicts: () => !seal.isApplied,
    },
    { cache, inventory, index, spool, fileSystem, metrics, faults, logger },
  );
  stack.defer(() => space.close());

  const shared = { cache, space, index, spool, faults, metrics, logger, clock };
  const blobs = new BlobMirror(shared);
  stack.defer(() => blobs.close());
  const manifestStore = new ManifestStore(shared);
  const manifests = new ManifestMirror({ ...shared, manifests: manifestStore, manifestsWithoutOwner });
  stack.defer(() => manifests.close());
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
  const { revalidateFrom } = config.server;
  const revalidation = revalidateFrom.length === 0 ? {} : { mayRevalidate: isIn(revalidateFrom) };
  registryApp.use(
    answerPulls({
      table,
      via,
      upstreamByName,
      manifests,
      blobs,
      discovery,
      sender,
      ...handOver,
      ...revalidation,
    }),
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
  const upstreamOf = (host: string) => table.upstreamByHost.get(host);
  const importing = new Importing({ ...shared, manifests: manifestStore, upstreamOf });
  stack.defer(() => importing.close());
  const warming = new Warming({
    ...{ cache, manifests, manifestStore, blobs, discovery, upstreamByName, upstreamOf, clock, logger },
    sealed: () => seal.isApplied,
  });
  stack.defer(() => warming.close());
  const operationsApp = createOperationsApp({
    metrics,
    logger,
    transfer: {
      warming,
      exporting: new Exporting({ cache, index, manifests: manifestStore, upstreamOf }),
      importing,
      logger,
      clientTimeoutMs: config.server.clientTimeout,
    },
    notReadyReason,
    status: () =>
      readStatus(metrics, {
        version: options.version,
        sealed: seal.isApplied,
        upstreams: upstreamByName.keys(),
      }),
    images: new Images({ ...shared, inventory, manifests: manifestStore }),
    upstreamOf,
    scrub: (signal) => scrubbing.begin(signal),
    setSealed: async (sealed) => {
      await (sealed ? seal.apply() : seal.lift());
      logger.warn({ sealed }, sealed ? 'sealed: no upstream is asked' : 'unsealed');
    },
  });
  const operations = await Listener.open(config.operations.listen, operationsApp.callback(), {
    requestTimeoutMs: 0, // an import takes as long as its archive is large
  });
  stack.defer(() => operations.drain(0));
  const registry = await Listener.open(config.server.listen, registryApp.callback());
  stack.defer(() => {
    draining = true;
    return registry.drain(config.server.drainTimeout);
  });
  logger.info({ listener: 'operations', address: operations.address }, 'listening');
  logger.info({ listener: 'registry', address: registry.address, sealed: config.sealed }, 'listening');
  for (const { every, ...images } of config.warm) {
    const request = { ...images, referrers: true };
    warming.runInBackground(request);
    stack.use(clock.every(every, () => warming.runInBackground(request)));
  }

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

async function shareOf(directory: string, share: number, fileSystem: FileSystem): Promise<number> {
  const { blocks, bsize } = await fileSystem.statfs(directory);
  return Math.floor(blocks * bsize * share);
}

function isIn(networks: readonly string[]): (address: string | undefined) => boolean {
  const list = new BlockList();
  for (const network of networks) {
    const [address = '', bits] = network.split('/');
    const family = isIPv6(address) ? 'ipv6' : 'ipv4';
    list.addSubnet(address, bits === undefined ? (family === 'ipv6' ? 128 : 32) : Number(bits), family);
  }
  // An IPv4 client of a listener on :: has an address such as ::ffff:10.0.0.1.
  return (address) => {
    const bare = address?.replace(/^::ffff:(?=\d+\.)/i, '') ?? '';
    return isIP(bare) !== 0 && list.check(bare, isIPv6(bare) ? 'ipv6' : 'ipv4');
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
