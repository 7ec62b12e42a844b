/** Opens the operations side: the listener for metrics, health and the API, and the parts that the API uses. */
import type { AccessControl } from '../access/control/access-control.ts';
import { isFromAnotherSite } from '../access/network/web-page.ts';
import type { RepositoryKey } from '../cache/index/index-store.ts';
import type { FileSystem } from '../cache/store/file-system.ts';
import type { Clock } from '../clock.ts';
import { imagePattern } from '../config/fields/images.ts';
import type { Config } from '../config/schema.ts';
import type { Fleet } from '../fleet/fleet.ts';
import type { FleetOperations } from '../http/operations/api.ts';
import { createOperationsApp } from '../http/operations/operations.ts';
import { type Admit, admitEverybody } from '../http/operations/permit.ts';
import { readStatus } from '../http/operations/status.ts';
import type { ServerCertificate } from '../http/server/certificate.ts';
import type { ListenAddress } from '../http/server/listen-address.ts';
import { Listener } from '../http/server/listener.ts';
import { Images } from '../mirror/manifests/images.ts';
import type { ManifestStore } from '../mirror/manifests/manifest-store.ts';
import type { Digest } from '../oci/digest.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { Exporter } from '../transfer/exporter.ts';
import { Importer } from '../transfer/importer.ts';
import { Warmer } from '../transfer/warmer.ts';
import type { Seal } from '../upstream/client/seal.ts';
import { openCertificate } from './listener-certificate.ts';
import type { LiveUpstreams } from './live-upstreams.ts';
import type { PolicedMirrors } from './policed-mirrors.ts';
import type { Reloader } from './reload/reload.ts';
import type { Storage } from './storage.ts';
import { WarmSchedule } from './warm-schedule.ts';

export interface OperationsSideContext {
  storage: Storage;
  mirrors: PolicedMirrors;
  manifests: ManifestStore;
  upstreams: LiveUpstreams;
  seal: Seal;
  /** Undefined: the mirror is alone. */
  fleet: Fleet | undefined;
  fleetOperations: FleetOperations | undefined;
  /** Absent: everybody who reaches the listener may do everything. */
  access: AccessControl | undefined;
  version: string;
  fileSystem: Pick<FileSystem, 'statfs'>;
  logger: Logger;
  metrics: Metrics;
  clock: Clock;
  draining: () => boolean;
  /** Undefined: the configuration is the built-in defaults. */
  reloader: () => Reloader | undefined;
}

export interface OperationsSide extends AsyncDisposable {
  /** `host:port` as bound, or `unix:` and the path of the socket. */
  address: string;
  schedule: WarmSchedule;
}

/** @throws the system's error if the address cannot be bound; an error of the files that `tls` names */
export async function openOperationsSide(
  config: Config,
  context: OperationsSideContext,
): Promise<OperationsSide> {
  const { storage, mirrors, upstreams, seal, version, logger, metrics, clock, draining, reloader } = context;
  const upstreamOf = (host: string) => upstreams.nameOf(host);
  await using stack = new AsyncDisposableStack();
  const { spool, faults, scrubber } = storage;
  const shared = { ...storage, manifests: context.manifests, upstreamOf, clock, logger };
  const requireManifest = async (key: RepositoryKey, digest: Digest) =>
    mirrors.door?.requireManifest(key, digest);
  const importer = new Importer({
    ...{ ...shared, requireManifest },
    onImported: async (key, digest, tag) => mirrors.door?.admitImported(key, digest, tag),
  });
  stack.defer(() => importer.close());
  const warmer = new Warmer({
    ...{ manifests: mirrors.manifests, blobs: mirrors.blobs, discovery: mirrors.discovery },
    ...{ catalog: storage.catalog, manifestStore: context.manifests, upstreamOf, clock, logger },
    upstreamNamed: (name) => upstreams.routing.upstreamByName.get(name),
    sealed: () => seal.isApplied,
  });
  stack.defer(() => warmer.close());
  const schedule = stack.use(new WarmSchedule(warmer, clock));
  const startedAt = clock.now();
  const { directory } = config.cache;
  const freeBytes = async () => {
    const found = await faults.tolerate(() => context.fileSystem.statfs(directory));
    return found === undefined ? null : found.bavail * found.bsize;
  };
  const notReadyReason = async () => {
    if (draining()) return 'shutting down';
    const isWritable = (await faults.tolerate(() => spool.probe())) ?? false;
    return isWritable ? undefined : 'the cache directory cannot be written';
  };
  /** Counts nothing: whoever looks must not change what is seen. */
  const isReady = () => !draining() && spool.probe().catch(() => false);
  const { listen, tls, hosts } = config.operations;
  const certificate = await openCertificate('operations', tls, context);
  if (certificate !== undefined) stack.use(certificate);
  const app = createOperationsApp({
    admit: await admission(config.operations, certificate, context),
    hosts: 'socket' in listen ? undefined : hosts,
    metrics,
    logger,
    transfer: {
      warmer,
      exporter: new Exporter({ ...shared, requireManifest }),
      importer,
      upstreamOf,
      logger,
      clientTimeoutMs: config.server.clientTimeout,
    },
    policy: {
      office: () => mirrors.office,
      upstreamOf,
      clientTimeoutMs: config.server.clientTimeout,
    },
    pins: {
      ...{ pins: storage.pins, maxBytes: storage.space.maxBytes, logger },
      problemOf: (pattern) => imagePattern().safeParse(pattern).error?.issues[0]?.message,
      clientTimeoutMs: config.server.clientTimeout,
    },
    notReadyReason,
    scrapeFacts: async () => ({
      ...{ sealed: seal.isApplied, upstreams: upstreams.conditions(), warm: schedule.status },
      ...{ ready: await isReady(), freeBytes: await freeBytes() },
    }),
    status: async () =>
      readStatus(metrics, {
        ...{ version, sealed: seal.isApplied, upstreams: upstreams.conditions() },
        ...{ startedAt, directory, warm: schedule.status, freeBytes: await freeBytes() },
        fleet: await context.fleet?.condition(),
        configuration: reloader()?.status ?? { file: null, lastReload: null, waitsForRestart: [] },
      }),
    reload: async () => reloader()?.reload(),
    images: new Images(shared),
    isPinned: (image) => storage.pins.has(image),
    upstreamOf,
    scrub: (signal) => scrubber.begin(signal),
    setSealed: async (sealed) => {
      await (sealed ? seal.apply() : seal.lift());
      logger.warn({ sealed }, seal.isApplied ? 'sealed: no upstream is asked' : 'unsealed');
      return seal.isApplied;
    },
    fleet: context.fleetOperations,
  });
  const listener = await Listener.open(addressOf(config.operations), app.callback(), {
    key: 'operations.listen',
    requestTimeoutMs: 0, // no limit: a large archive takes long to import
    ...(certificate === undefined ? {} : { tls: certificate.tls }),
  });
  certificate?.watch((changed) => listener.setSecureContext(changed));
  stack.defer(() => listener.drain(0));
  const open = stack.move();
  return { address: listener.address, schedule, [Symbol.asyncDispose]: () => open.disposeAsync() };
}

function addressOf({ listen, socketMode }: Config['operations']): ListenAddress {
  return 'socket' in listen ? { ...listen, mode: socketMode } : listen;
}

/** Whoever can open the socket is operator: its mode says who that is. */
async function admission(
  { listen }: Config['operations'],
  certificate: ServerCertificate | undefined,
  { access, metrics }: OperationsSideContext,
): Promise<Admit> {
  if (access === undefined || 'socket' in listen) return admitEverybody;
  const [{ Gate }, { admitByRules }] = await Promise.all([
    import('../http/gate/gate.ts'),
    import('../http/gate/operations-gate.ts'),
  ]);
  const gate = new Gate(access, (socket) => certificate?.identityOf(socket), isFromAnotherSite);
  return admitByRules(gate, metrics);
}
