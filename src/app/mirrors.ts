/** Creates the mirrors of manifests, blobs and lists. They share the storage and serve all upstreams. */
import type { Clock } from '../clock.ts';
import { BlobMirror } from '../mirror/blobs/blob-mirror.ts';
import { SEGMENT_MAX_BYTES } from '../mirror/blobs/segments.ts';
import { UpstreamOrigin } from '../mirror/blobs/upstream-origin.ts';
import { DiscoveryMirror } from '../mirror/manifests/discovery-mirror.ts';
import { ManifestMirror } from '../mirror/manifests/manifest-mirror.ts';
import { ManifestStore } from '../mirror/manifests/manifest-store.ts';
import { Permissions } from '../mirror/permissions.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import type { Bandwidths } from '../upstream/limits/bandwidths.ts';
import type { Upstream } from '../upstream/upstream.ts';
import type { Storage } from './storage.ts';

/** What has come behind the front is lost to followers when this node dies. */
const FOLLOWED_SEGMENT_BYTES = 8 * 1024 * 1024;

export interface Mirrors extends AsyncDisposable {
  manifests: ManifestMirror;
  manifestStore: ManifestStore;
  blobs: BlobMirror;
  discovery: DiscoveryMirror;
}

export function createMirrors(
  storage: Storage,
  context: {
    metrics: Metrics;
    logger: Logger;
    clock: Clock;
    random: () => number;
    bandwidths: Bandwidths;
    /** Others follow what is fetched here. */
    isInFleet: boolean;
  },
): Mirrors {
  const longestSegment = context.isInFleet ? FOLLOWED_SEGMENT_BYTES : SEGMENT_MAX_BYTES;
  const shared = { ...storage, ...context, longestSegment };
  const permissions = new Permissions(shared);
  const originOf = (upstream: Upstream) =>
    new UpstreamOrigin(upstream, { ...context, bandwidth: context.bandwidths.of(upstream.name) });
  const blobs = new BlobMirror({ ...shared, permissions, originOf });
  const manifestStore = new ManifestStore(shared);
  const manifests = new ManifestMirror({ ...shared, manifests: manifestStore });
  return {
    ...{ manifests, manifestStore, blobs, discovery: new DiscoveryMirror(shared) },
    [Symbol.asyncDispose]: async () => {
      await blobs.close();
      await manifests.close();
    },
  };
}
