/** Hashes content that is stored. */
import { createHash } from 'node:crypto';
import { type Digest, digestAlgorithm, digestFrom } from '../../oci/digest.ts';
import { BlockSums } from './block-sums.ts';
import type { ContentReader } from './content-store.ts';
import { ContentError } from './errors.ts';

const BUFFER_BYTES = 1024 * 1024;

/**
 * Hashes all of the content, and sums up its blocks.
 *
 * @param onRead told how many bytes were read, and awaited
 * @returns the block sums
 * @throws {ContentError} it is not what its digest says
 * @throws {StorageError}
 */
export async function sumUp(
  reader: ContentReader,
  digest: Digest,
  onRead?: (bytes: number) => Promise<void>,
): Promise<string> {
  const hash = createHash(digestAlgorithm(digest));
  const sums = new BlockSums();
  const buffer = Buffer.allocUnsafe(Math.min(BUFFER_BYTES, Math.max(1, reader.size)));
  for (let at = 0; at < reader.size; ) {
    const bytes = buffer.subarray(0, await reader.read(buffer, at, reader.size));
    hash.update(bytes);
    sums.update(bytes);
    at += bytes.length;
    await onRead?.(bytes.length);
  }
  const actual = digestFrom(hash, digestAlgorithm(digest));
  if (actual !== digest) throw new ContentError('digest-mismatch', digest, digest, actual);
  return sums.value();
}
