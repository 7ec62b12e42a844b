/**
 * Declares every metric. No label holds a repository, tag, digest or client: the number of time series must not grow with
 * traffic.
 */
import { collectDefaultMetrics } from 'prom-client';
import { DecisionTally } from './decision-tally.ts';
import { MetricRegistry } from './metric-registry.ts';
import { ReplyTally } from './reply-tally.ts';

/** What a client asks for: the `kind` label. Requests to upstream also have the kind `token`. */
export type RequestKind = 'manifest' | 'blob' | 'tags' | 'referrers';

const HOUR = 3600;
/** From a minute to a quarter of a year: a cache that is too small shows at one end, one that is too large at the other. */
const IDLE_BUCKETS = [
  60,
  600,
  HOUR,
  6 * HOUR,
  12 * HOUR,
  ...[1, 2, 4, 7, 14, 30, 90].map((days) => days * 24 * HOUR),
];
/** Why content is rejected. */
const REJECTIONS = ['digest-mismatch', 'size-mismatch', 'not-a-manifest'];
/** Operations on the disk, and the faults that operators watch for. */
const STORAGE_OPERATIONS = ['open', 'write', 'sync', 'rename', 'read', 'index', 'reserve'];
const STORAGE_FAULTS = ['EIO', 'ENOSPC'];

export class Metrics extends MetricRegistry {
  /** Fills the four metrics below. */
  readonly replies = new ReplyTally(this);
  readonly requests = this.counter(
    'millpond_requests_total',
    'Requests for cacheable content, by how the cache answered.',
    ['upstream', 'kind', 'method', 'cache', 'code'],
    () => this.replies.flush(),
  );
  readonly responseBytes = this.counter(
    'millpond_response_bytes_total',
    'Body bytes sent to clients.',
    ['upstream', 'kind', 'cache'],
    () => this.replies.flush(),
  );
  readonly requestDuration = this.histogram(
    'millpond_request_duration_seconds',
    'From the request to the last byte of its reply.',
    ['kind', 'cache'],
    { collect: () => this.replies.flush() },
  );
  readonly firstByte = this.histogram(
    'millpond_first_byte_seconds',
    'From the request to the headers of its reply.',
    ['kind', 'cache'],
    { collect: () => this.replies.flush() },
  );
  readonly upstreamRequests = this.counter(
    'millpond_upstream_requests_total',
    'Requests sent to upstreams, including redirects that were followed and requests for tokens. Code 0: no reply.',
    ['upstream', 'kind', 'method', 'code'],
  );
  readonly upstreamBytes = this.counter(
    'millpond_upstream_bytes_total',
    'Body bytes received from upstreams.',
    ['upstream', 'kind'],
  );
  readonly upstreamRequestDuration = this.histogram(
    'millpond_upstream_request_duration_seconds',
    'From sending an upstream request to the headers of its reply.',
    ['upstream', 'kind'],
  );
  readonly upstreamRateLimit = this.gauge(
    'millpond_upstream_ratelimit_limit',
    'Pulls allowed in the current window, as the upstream last reported. Absent: not told, or the window is over.',
    ['upstream'],
  );
  readonly upstreamRateLimitRemaining = this.gauge(
    'millpond_upstream_ratelimit_remaining',
    'Pulls left in the current window, as the upstream last reported. Absent: not told, or the window is over.',
    ['upstream'],
  );
  readonly upstreamRateLimitReset = this.gauge(
    'millpond_upstream_ratelimit_reset_timestamp_seconds',
    'When the current window ends at the latest. Absent: not told, or the window is over.',
    ['upstream'],
  );
  readonly upstreamCredentialsRefused = this.counter(
    'millpond_upstream_credentials_refused_total',
    'Times that the upstream or its token server did not accept the configured credentials.',
    ['upstream'],
  );
  readonly upstreamBandwidthWait = this.counter(
    'millpond_upstream_bandwidth_wait_seconds_total',
    'How long fetches of blobs have waited for maxBandwidth or maxUpstreamBandwidth.',
    ['upstream'],
  );
  readonly upstreamUp = this.gauge(
    'millpond_upstream_up',
    '0 while the upstream does not answer and therefore gets no requests.',
    ['upstream'],
  );
  readonly sealed = this.gauge('millpond_sealed', '1 while the mirror is sealed and asks no upstream.', []);
  readonly sealedRefusals = this.counter(
    'millpond_sealed_refusals_total',
    'Requests refused because the content is not cached and upstream must not be asked for it.',
    ['upstream'],
  );
  readonly ready = this.gauge('millpond_ready', '1 while /readyz is 200.', []);
  readonly certificateExpiry = this.gauge(
    'millpond_certificate_expiry_timestamp_seconds',
    'When a certificate that this mirror shows ends: server.tls, operations.tls.',
    ['certificate'],
  );
  readonly warmFailedImages = this.gauge(
    'millpond_warm_failed_images',
    'Images of the warm lists that could not be fetched the last time.',
    [],
  );
  readonly ingestsInProgress = this.gauge(
    'millpond_ingests_in_progress',
    'Blobs being fetched from upstreams now.',
    [],
  );
  readonly ingestFollowers = this.gauge(
    'millpond_ingest_followers',
    'Replies that get their bytes from a running fetch now.',
    [],
  );
  readonly ingestResumes = this.counter(
    'millpond_ingest_resumes_total',
    'Fetches continued with a Range request after upstream broke off, or after a restart.',
    ['upstream'],
  );
  readonly contentRejected = this.counter(
    'millpond_content_rejected_total',
    'Upstream content refused because it did not match its digest or descriptor.',
    ['upstream', 'reason'],
  );
  /** Fills the metric below. */
  readonly decisions = new DecisionTally(() => this.accessDecisions);
  readonly accessDecisions = this.counter(
    'millpond_access_decisions_total',
    'Requests and logins that access control allowed or refused; unauthorized: wrong or no credentials.',
    ['identity_kind', 'decision'],
    () => this.decisions.flush(),
  );
  readonly fillBytes = this.counter(
    'millpond_fill_bytes_total',
    'Body bytes of cold blobs, by where they came from: upstream, store (the object store of the fleet) or node (another node of it).',
    ['source'],
  );
  readonly fleetUp = this.gauge(
    'millpond_fleet_up',
    '0 while an engine that the fleet shares does not answer, or must not be used.',
    ['engine'],
  );
  readonly fleetRequestDuration = this.histogram(
    'millpond_fleet_request_duration_seconds',
    'From a request to an engine of the fleet to its answer, or to the end of its deadline.',
    ['engine', 'operation'],
  );
  readonly fleetMembers = this.gauge(
    'millpond_fleet_members',
    'Nodes of the fleet that were there at the last look, this one too.',
    ['engine'],
  );
  readonly fleetClockOffset = this.gauge(
    'millpond_fleet_clock_offset_seconds',
    "How far the fleet's clock is ahead of this machine's.",
    ['engine'],
  );
  readonly fleetRecordsRefused = this.counter(
    'millpond_fleet_records_refused_total',
    'Records that no node of this fleet has signed, or that are none.',
    ['engine'],
  );
  readonly fleetRedirects = this.counter(
    'millpond_fleet_redirects_total',
    'Blobs that redirectAbove is about: redirected, or sent from here because the object is absent, unverified or unavailable.',
    ['result'],
  );
  readonly fleetTakeovers = this.counter(
    'millpond_fleet_takeovers_total',
    'Leases that this node took from another one, because that one could not be reached (unreachable) or was slow (slow).',
    ['reason'],
  );
  readonly fleetFetchesAlone = this.counter(
    'millpond_fleet_fetches_alone_total',
    'Fetches of a blob from upstream for this node alone: no answer of the coordinator (coordinator), or of the nodes that fetch it (unreachable), or what they have is absent, slow or distrusted.',
    ['reason'],
  );
  readonly uploadQueueBytes = this.gauge(
    'millpond_upload_queue_bytes',
    'Content that waits to be written to the object store of the fleet.',
    ['engine'],
  );
  readonly policyDecisions = this.counter(
    'millpond_policy_decisions_total',
    'Manifests that a policy has decided about. A decision that is remembered is not counted again.',
    ['policy', 'decision', 'mode'],
  );
  readonly policyScans = this.counter(
    'millpond_policy_scans_total',
    'Images that a scanner was asked about, by what came of it.',
    ['policy', 'result'],
  );
  readonly policyFilesUsable = this.gauge(
    'millpond_policy_files_usable',
    '0 while the files of a policy cannot be used, and their last content is in use.',
    ['policy'],
  );
  readonly storeBytes = this.gauge('millpond_store_bytes', 'Bytes of stored content.', []);
  readonly storeCapacity = this.gauge('millpond_store_capacity_bytes', 'The configured cache.maxSize.', []);
  readonly storeObjects = this.gauge('millpond_store_objects', 'Stored manifests and blobs.', []);
  readonly evictions = this.counter(
    'millpond_evictions_total',
    'Manifests and blobs removed to make room.',
    [],
  );
  readonly evictionIdle = this.histogram(
    'millpond_eviction_idle_seconds',
    'From the last use of content to its eviction.',
    [],
    { buckets: IDLE_BUCKETS },
  );
  readonly diskFree = this.gauge(
    'millpond_disk_free_bytes',
    'Bytes that are free on the file system of the cache. Absent: it does not say.',
    [],
  );
  readonly diskKeepFree = this.gauge('millpond_disk_keep_free_bytes', 'The configured cache.keepFree.', []);
  readonly evictedBytes = this.counter('millpond_evicted_bytes_total', 'Bytes freed by evictions.', []);
  readonly storageErrors = this.counter(
    'millpond_storage_errors_total',
    'Failed operations on the cache directory. The pull itself goes on uncached.',
    ['operation', 'code'],
  );
  readonly configReloadSuccessful = this.gauge(
    'millpond_config_last_reload_successful',
    '0 when the configuration file had mistakes at the last reload, and the old configuration stayed in use.',
    [],
  );
  readonly configReloadTime = this.gauge(
    'millpond_config_last_reload_success_timestamp_seconds',
    'When the configuration in use was read.',
    [],
  );
  readonly buildInfo = this.gauge('millpond_build_info', 'Always 1. The labels say which version runs.', [
    'version',
    'node',
  ]);

  /** @param options.processMetrics also collect prom-client's default metrics of the process and of Node */
  constructor(options: { version: string; processMetrics: boolean }) {
    super();
    if (options.processMetrics) collectDefaultMetrics({ register: this.registry });
    this.buildInfo.set({ version: options.version, node: process.version }, 1);
    for (const operation of STORAGE_OPERATIONS)
      for (const code of STORAGE_FAULTS) this.storageErrors.inc({ operation, code }, 0);
    this.fillBytes.inc({ source: 'upstream' }, 0);
  }

  /** Begins the counters of an upstream at 0, so that a first event is seen as an increase. Idempotent. */
  beginUpstream(upstream: string): void {
    for (const counter of [this.ingestResumes, this.upstreamCredentialsRefused, this.sealedRefusals])
      counter.inc({ upstream }, 0);
    for (const reason of REJECTIONS) this.contentRejected.inc({ upstream, reason }, 0);
  }

  /** Ends the gauge of an upstream that is no longer configured. Its counters stay: they say what has happened. */
  forgetUpstream(upstream: string): void {
    this.upstreamUp.remove({ upstream });
  }
}
