/** Where the bytes of a cold blob come from. */
import type { Digest } from '../../oci/digest.ts';
import type { Repository } from '../../oci/reference.ts';
import type { RequestContext } from '../../request-context.ts';

/** An upstream today. An object store or another node can stand here too: neither a fill nor a reader knows which. */
export interface BlobOrigin {
  /** A running fill is shared only among requests to the same origin: one that lies or crawls must not hurt another's. */
  readonly name: string;
  /** @throws {UpstreamError} */
  open(request: BlobBytesRequest): Promise<BlobBytes>;
}

export interface BlobBytesRequest {
  /** Its signal ends the bytes. */
  context: RequestContext;
  repository: Repository;
  digest: Digest;
  /** Bytes of the whole blob, where a manifest says so. It may be wrong: the origin's own word counts. */
  expectedSize: number | undefined;
  /** Where to begin. */
  from: number;
  /** Where to end, exclusive. Absent: at the end of the blob. */
  to?: number;
}

/** Bytes that an origin says are those of the blob. Whether they are is for the reader to hash. */
export interface BlobBytes {
  /** Bytes of the whole blob. Undefined: nobody says before the end. */
  readonly size: number | undefined;
  /** Where {@link chunks} ends, exclusive: as asked for, or at the end of the blob where the origin ignores ranges. */
  readonly end: number | undefined;
  /** Call it once. @throws {UpstreamError} they broke off for good */
  chunks(): AsyncGenerator<Buffer, void, undefined>;
  /** Lets go of bytes whose {@link chunks} nobody reads. */
  close(): void;
}
