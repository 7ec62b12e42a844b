/** Where the bytes of a cold blob come from. */
import type { Digest } from '../../oci/digest.ts';
import type { Repository } from '../../oci/reference.ts';
import type { RequestContext } from '../../request-context.ts';
import type { BandwidthShare } from '../../upstream/limits/bandwidth-share.ts';
import type { OtherSource } from '../../upstream/upstream.ts';

/** An upstream today. It may also be an object store or another node: fills and readers see no difference. */
export interface BlobOrigin {
  /**
   * Only requests to the same origin share a fill: wrong bytes or a slow connection must not harm pulls from another.
   */
  readonly name: string;
  /** Opens a share of the bandwidth for one fetch, on however many connections. Absent: there are no limits. */
  openShare?(): BandwidthShare;
  /** @throws {UpstreamError} */
  open(request: BlobBytesRequest): Promise<BlobBytes>;
}

export interface BlobBytesRequest {
  /** Its signal stops the bytes. */
  context: RequestContext;
  repository: Repository;
  digest: Digest;
  /** Bytes of the whole blob, if a manifest states them. They may be wrong: what the origin states takes precedence. */
  expectedSize: number | undefined;
  /** Of the fetch that the bytes are for. Absent: there are no limits. */
  share?: BandwidthShare | undefined;
  /** Position of the first byte. */
  from: number;
  /** Position of the end, exclusive. Absent: the end of the blob. */
  to?: number;
  /** Called each time that bytes begin to come. @param source undefined: from the upstream */
  onSource?: (source: OtherSource | undefined) => void;
}

/** The bytes that an origin sends for a blob. The reader must hash them: they may be wrong. */
export interface BlobBytes {
  /** Bytes of the whole blob. Undefined: not known before the end. */
  readonly size: number | undefined;
  /** End of {@link chunks}, exclusive: as requested, or the end of the blob if the origin ignores ranges. */
  readonly end: number | undefined;
  /** Call it once. @throws {UpstreamError} the bytes broke off and could not be resumed */
  chunks(): AsyncGenerator<Buffer, void, undefined>;
  /** Releases the connection if nobody reads {@link chunks}. */
  close(): void;
}
