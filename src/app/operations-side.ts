/** Opens the operations side: the listener for metrics, health and the API, and the parts that the API uses. */
import type { Clock } from '../clock.ts';
import type { Config } from '../config/schema.ts';
import { createOperationsApp } from '../http/operations/operations.ts';
import { readStatus } from '../http/operations/status.ts';
import { type ListenAddress, Listener } from '../http/server/listener.ts';
import { Images } from '../mirror/manifests/images.ts';
import type { MirroredUpstream } from '../mirror/mirrored-upstream.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { Exporter } from '../transfer/exporter.ts';
import { Importer } from '../transfer/importer.ts';
import { Warmer } from '../transfer/warmer.ts';
import type { Seal } from '../upstream/client/seal.ts';
import type { Mirrors } from './mirrors.ts';
import type { Storage } from './storage.ts';

export interface OperationsSideContext {
  storage: Storage;
  mirrors: Mirrors;
  upstreamByName: ReadonlyMap<string, MirroredUpstream>;
  /** Gives the name of the upstream for a host in an image name; undefined if none is configured. */
  upstreamOf: (host: string) => string | undefined;
  seal: Seal;
  version: string;
  logger: Logger;
  metrics: Metrics;
  clock: Clock;
  draining: () => boolean;
}

export interface OperationsSide extends AsyncDisposable {
  /** `host:port` as bound. */
  address: string;
  warmer: Warmer;
}

/** @throws the system's error if the address cannot be bound */
export async function openOperationsSide(
  config: Config,
  context: OperationsSideContext,
): Promise<OperationsSide> {
  const { storage, mirrors, upstreamByName, upstreamOf, seal, version, logger, metrics, clock, draining } =
    context;
  await using stack = new AsyncDisposableStack();
  const { spool, faults, scrubber } = storage;
  const shared = { ...storage, manifests: mirrors.manifestStore, upstreamOf, clock, logger };
  const importer = new Importer(shared);
  stack.defer(() => importer.close());
  const warmer = new Warmer({
    ...{ ...mirrors, catalog: storage.catalog, upstreamByName, upstreamOf, clock, logger },
    sealed: () => seal.isApplied,
  });
  stack.defer(() => warmer.close());
  const app = createOperationsApp({
    metrics,
    logger,
    transfer: {
      warmer,
      exporter: new Exporter(shared),
      importer,
      logger,
      clientTimeoutMs: config.server.clientTimeout,
    },
    notReadyReason: async () => {
      if (draining()) return 'shutting down';
      const isWritable = (await faults.tolerate(() => spool.probe())) ?? false;
      return isWritable ? undefined : 'the cache directory cannot be written';
    },
    status: () => readStatus(metrics, { version, sealed: seal.isApplied, upstreams: upstreamByName.keys() }),
    images: new Images(shared),
    upstreamOf,
    scrub: (signal) => scrubber.begin(signal),
    setSealed: async (sealed) => {
      await (sealed ? seal.apply() : seal.lift());
      logger.warn({ sealed }, sealed ? 'sealed: no upstream is asked' : 'unsealed');
    },
  });
  const listener = await Listener.open(addressOf(config.operations), app.callback(), {
    requestTimeoutMs: 0, // no limit: a large archive takes long to import
  });
  stack.defer(() => listener.drain(0));
  const open = stack.move();
  return { address: listener.address, warmer, [Symbol.asyncDispose]: () => open.disposeAsync() };
}

function addressOf({ listen, socketMode }: Config['operations']): ListenAddress {
  return 'socket' in listen ? { ...listen, mode: socketMode } : listen;
}
