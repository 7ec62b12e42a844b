/** Where the bytes of an image under decision come from: the mirror, so that a scan shares the one download. */
import type { Digest } from '../../../../oci/digest.ts';

export interface QuarantineContent {
  /** Opens a config or layer of the manifest under decision. Undefined: the repository has none. @throws {UpstreamError} */
  blob(digest: Digest): Promise<QuarantineBlob | undefined>;
}

export interface QuarantineBlob {
  /** Bytes. */
  size: number;
  /** The bytes from `start`. Throws when upstream fails, or when they are not those of the digest. */
  stream(start: number): AsyncIterable<Buffer>;
  /** Must be called, once. */
  close(): Promise<void>;
}
